"""The tokenizer: text to ids and back without loss, what the ids mean, and streaming."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import pre_tokenizers

from miao.errors import MiaoError
from miao.files import fingerprint, read_json, write_json, write_text
from miao.tokenizer.spec import decoding_steps, is_control, ordinary_spec
from miao.tokenizer.template import MIAO_TEMPLATE, ChatTemplate

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
RESERVED_TOKENS = tuple(f"<|reserved_{number}|>" for number in range(7))
# "Special" tokens are never shown; the markup tokens are, since they carry meaning for the reader.
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END, *RESERVED_TOKENS)
MARKUP_TOKENS = (
    *("<think>", "</think>", "<tool_call>", "</tool_call>"),
    *("<tool_response>", "</tool_response>"),
)
CONTROL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END, *MARKUP_TOKENS, *RESERVED_TOKENS)

MIAO_CONFIG: dict[str, Any] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    # Every document follows an <|endoftext|>: it is what a text without context begins with.
    "bos_token": END_OF_TEXT,
    "eos_token": TURN_END,
    "pad_token": END_OF_TEXT,
    "add_bos_token": False,
    "clean_up_tokenization_spaces": False,
    "model_max_length": 32768,
    "chat_template": MIAO_TEMPLATE,
}

# What other families call these two; the first that the vocabulary holds counts.
_TURN_ENDS = (TURN_END, "<|eot_id|>", "<|eot|>", "<|end|>", "<end_of_turn>")
_DOCUMENT_ENDS = (END_OF_TEXT, "<|end_of_text|>", "<｜end▁of▁sentence｜>")
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")  # how sentencepiece spells a byte


class Tokenizer:
    """Byte-level BPE with its chat template: ours, or that of another model (Qwen, Llama 3, ...).
    Vocabularies of sentencepiece will do, too, where they hold all bytes.

    Immutable, picklable, safe to share between threads and to carry over a fork. Nothing is added
    to what is encoded: no beginning-of-text token, no padding, no truncation.

    Args:
        backend: a tokenizer of the `tokenizers` library.
        config: what `tokenizer_config.json` holds, the chat template included.
        stop_ids: further ids that end a generation (from a `generation_config.json`).

    Raises:
        MiaoError: some bytes are missing, or nothing in it ends a text.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        config: dict[str, Any],
        stop_ids: Iterable[int] = (),
    ):
        _be_quiet_about_forks()
        spec = json.loads(backend.to_str())
        steps = decoding_steps(spec)
        self.is_byte_level = "ByteLevel" in steps
        """Else it is one of sentencepiece, with pieces for single bytes."""
        self.strips_space = "Strip" in steps
        """Encoding puts a space before a text, decoding takes it away (sentencepiece)."""
        spec["truncation"] = spec["padding"] = None
        added: list[dict[str, Any]] = spec["added_tokens"]
        self._spec, self._config, self._further_stop_ids = spec, dict(config), tuple(stop_ids)
        self._backend = tokenizers.Tokenizer.from_str(json.dumps(spec))
        # In ordinary text no control token counts. The library can pass over tokens that it takes
        # for special, so in a second backend all control tokens are (<think>, too) and no others.
        self._ordinary = tokenizers.Tokenizer.from_str(json.dumps(ordinary_spec(spec)))
        self._ordinary.encode_special_tokens = True

        self.control_ids: dict[str, int] = {t["content"]: t["id"] for t in added if is_control(t)}
        self.special_ids = frozenset(token["id"] for token in added if token["special"])
        self.vocab_size: int = 1 + max(backend.get_vocab(with_added_tokens=True).values())
        self._template = _template_of(self._config)
        self.end_of_turn_id, self.document_boundary_id = self._find_ends()
        named = self._named_id("eos_token")
        ends = [self.end_of_turn_id, self.document_boundary_id, named, *self._further_stop_ids]
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys(i for i in ends if i is not None))
        self.own_start = self._find_start()
        """What the tokenizer itself puts before every text, as transformers calls it (Llama 3's
        <|begin_of_text|>); often nothing."""
        self.document_start = self.own_start or (self.document_boundary_id,)
        """What a text without context begins with, wherever it is trained on, measured or
        continued: the tokenizer's own beginning, else the token that ends the document before."""

    @classmethod
    def from_directory(cls, path: str | Path) -> Tokenizer:
        """Reads `tokenizer.json` and the settings beside it, of any Hugging Face directory.

        Raises:
            MiaoError: no tokenizer there, a damaged file, or a kind that is not byte-level BPE.
        """
        path = Path(path)
        file = path / "tokenizer.json"
        if not file.is_file():
            raise MiaoError(
                "there is no tokenizer.json here"
                if path.is_dir()
                else "there is no such directory",
                where=path,
                fix="name a directory that holds one, or train one with `miao tokenizer RECIPE`",
            )
        try:
            backend = tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises bare Exception for whatever it cannot parse
            raise MiaoError(
                f"the tokenizer cannot be read: {error}",
                where=file,
                fix="download or copy the file again",
            ) from error
        config = _read_object(path / "special_tokens_map.json")
        config |= _read_object(path / "tokenizer_config.json")
        template = path / "chat_template.jinja"
        if template.is_file():
            config["chat_template"] = template.read_text(encoding="utf-8")
        ends = _read_object(path / "generation_config.json").get("eos_token_id") or []
        try:
            return cls(backend, config, stop_ids=[ends] if isinstance(ends, int) else ends)
        except MiaoError as error:
            raise MiaoError(error.what, where=error.where or path, fix=error.fix) from error

    def save(self, directory: str | Path, *, model_max_length: int | None = None) -> None:
        """Writes `tokenizer.json` and `tokenizer_config.json`, which transformers reads alike.

        Args:
            model_max_length: tokens that the model can attend to; None keeps what the config says.
        """
        directory = Path(directory)
        config = dict(self._config)
        if config.get("tokenizer_class") in (None, "TokenizersBackend"):  # new in transformers 5
            config["tokenizer_class"] = MIAO_CONFIG["tokenizer_class"]
        if self._template:
            config["chat_template"] = self._template.source
        if model_max_length is not None:
            config["model_max_length"] = model_max_length
        write_text(directory / "tokenizer.json", self._backend.to_str(pretty=True) + "\n")
        write_json(directory / "tokenizer_config.json", config)

    @property
    def has_chat_template(self) -> bool:
        return self._template is not None

    @property
    def chat_template(self) -> ChatTemplate:
        """The template of this tokenizer's conversations.

        Raises:
            MiaoError: it has none (a base model's).
        """
        if self._template is None:
            raise MiaoError(
                "this tokenizer has no chat template",
                fix="use the instruct version of the model, or give it one: "
                "--tokenizer.chat_template miao (or chatml, llama3, gemma, a .jinja file)",
            )
        return self._template

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """The ids of a text.

        A control token spelt out in the text ("<|im_end|>", "<think>") is ordinary characters,
        unless `allow_special` says that the text is trusted and means the token.
        """
        return self.encode_batch([text], allow_special=allow_special)[0]

    def encode_batch(self, texts: Sequence[str], *, allow_special: bool = False) -> list[list[int]]:
        """The ids of each text, on all cores (`TOKENIZERS_PARALLELISM=false`: on one)."""
        backend = self._backend if allow_special else self._ordinary
        try:
            if len(texts) == 1:
                return [backend.encode(texts[0], add_special_tokens=False).ids]
            encodings = backend.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError as error:
            where = next((repr(text[:40]) for text in texts if not _is_unicode(text)), None)
            raise half_surrogate(where) from error
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of ids; bytes that are no UTF-8 (a character cut in two) become U+FFFD.

        <think> and the tool tags stay: they are control tokens, but not special ones.
        """
        skipped = self.special_ids if skip_special_tokens else frozenset()
        pieces = [self.token_bytes(i) for i in ids if i not in skipped]
        text = b"".join(pieces).decode("utf-8", "replace")
        return text.removeprefix(" ") if self.strips_space else text

    def id_to_token(self, id: int) -> str | None:
        """The token as the vocabulary spells it (see `byte_letters`), or None."""
        return self._backend.id_to_token(id) if 0 <= id < self.vocab_size else None

    def token_to_id(self, token: str) -> int | None:
        """The id of a token as the vocabulary spells it, or None."""
        return self._backend.token_to_id(token)

    def token_bytes(self, id: int) -> bytes:
        """The UTF-8 bytes that an id stands for; an id that the vocabulary leaves unused has none.

        Raises:
            MiaoError: the id is outside the vocabulary.
        """
        if not 0 <= id < self.vocab_size:
            raise MiaoError(
                f"token id {id} is outside the vocabulary (0 to {self.vocab_size - 1})",
                fix="use the tokenizer that belongs to the model",
            )
        return self._bytes_of_id[id]

    def spec(self) -> dict[str, Any]:
        """A copy of what `tokenizer.json` says."""
        copy: dict[str, Any] = json.loads(self._backend.to_str())
        return copy

    def with_spec(self, spec: dict[str, Any]) -> Tokenizer:
        """A tokenizer of another `tokenizer.json` with these settings and this chat template.

        Raises:
            MiaoError: the library does not take it.
        """
        try:
            backend = tokenizers.Tokenizer.from_str(json.dumps(spec))
        except Exception as error:  # the library raises bare Exception
            raise MiaoError(f"tokenizers does not take this vocabulary: {error}") from error
        return Tokenizer(backend, self._config, self._further_stop_ids)

    def with_template(self, source: str) -> Tokenizer:
        """The same vocabulary with another chat template.

        Raises:
            MiaoError: no valid Jinja.
        """
        config = self._config | {"chat_template": source}
        return Tokenizer(self._backend, config, self._further_stop_ids)

    def ordinary_json(self) -> str:
        """A `tokenizer.json` for encoding ordinary text: all control tokens in it are "special",
        so that an encoder can be told to pass over them."""
        return self._ordinary.to_str()

    @property
    def end_of_turn(self) -> str:
        """The token that ends an assistant's turn, as it is spelt."""
        return self.id_to_token(self.end_of_turn_id) or ""

    def fingerprint(self) -> str:
        """A stable hash of the vocabulary, its rules and the chat template."""
        return self._fingerprint

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer, (self._backend, self._config, self._further_stop_ids)

    @cached_property
    def _fingerprint(self) -> str:
        template = self._template.source if self._template else None
        return fingerprint({"tokenizer": self._spec, "template": template})

    @cached_property
    def _bytes_of_id(self) -> list[bytes]:
        byte_of_letter = {letter: byte for byte, letter in enumerate(byte_letters())}
        table = [b""] * self.vocab_size
        for token, id in self._backend.get_vocab(with_added_tokens=False).items():
            if not self.is_byte_level:
                byte = _BYTE_PIECE.fullmatch(token)
                table[id] = bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode()
            elif byte_of_letter.keys() >= set(token):
                table[id] = bytes(byte_of_letter[letter] for letter in token)
        for added in self._spec["added_tokens"]:
            table[added["id"]] = added["content"].encode()
        return table

    def _named_id(self, name: str) -> int | None:
        token = token_text(self._config.get(name))
        return None if token is None else self._backend.token_to_id(token)

    def _find_start(self) -> tuple[int, ...]:
        plain, whole = (self._backend.encode("a", add_special_tokens=s).ids for s in (False, True))
        for place in range(len(whole) - len(plain) + 1):
            if place and whole[place : place + len(plain)] == plain:
                return tuple(whole[:place])
        # Without such a rule some (DeepSeek) only say so in their settings.
        bos = self._named_id("bos_token") if self._config.get("add_bos_token") else None
        return () if bos is None else (bos,)

    def _find_ends(self) -> tuple[int, int]:
        """The ids that end an assistant's turn and a document."""
        eos = self._named_id("eos_token")
        known = self.control_ids
        script = self._template.source if self._template else ""
        turn = next((known[end] for end in _TURN_ENDS if end in known and end in script), eos)
        document = next((known[end] for end in _DOCUMENT_ENDS if end in known), eos)
        if document is None:
            raise MiaoError(
                "the tokenizer has no token that ends a text",
                fix="name its eos_token in tokenizer_config.json",
            )
        return (document if turn is None else turn), document


@cache
def byte_letters() -> tuple[str, ...]:
    """The letter that byte-level BPE writes for each of the 256 bytes (the table of GPT-2).

    Printable Latin-1 stands for itself; the other bytes get the letters from U+0100 on, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    letters = tuple(chr(byte if byte in printable else next(others)) for byte in range(256))
    assert set(letters) == set(pre_tokenizers.ByteLevel.alphabet())
    return letters


def token_text(entry: Any) -> str | None:
    """The text of a special token in a config, where it is a string or an object around one."""
    if isinstance(entry, dict):
        entry = entry.get("content")
    return entry if isinstance(entry, str) else None


def _template_of(config: dict[str, Any]) -> ChatTemplate | None:
    source = config.get("chat_template")
    if isinstance(source, list):  # several, by name
        named = {entry.get("name"): entry.get("template") for entry in source}
        source = named.get("default") or next(iter(named.values()), None)
    if not source:
        return None
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    special = {name: token_text(config.get(name)) for name in names}
    return ChatTemplate(source, {name: text for name, text in special.items() if text is not None})


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object of an optional file; empty when the file is not there."""
    value = read_json(path) if path.is_file() else {}
    if not isinstance(value, dict):
        raise MiaoError("a JSON object was expected here", where=path)
    return value


def half_surrogate(where: str | None) -> MiaoError:
    """The error for a text that no tokenizer takes."""
    return MiaoError(
        "the text holds half a surrogate pair, which no encoding can represent",
        where=where,
        fix="clean it with text.encode('utf-8', 'replace').decode()",
    )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@cache
def _be_quiet_about_forks() -> None:
    """Makes forked workers encode on one core each, without the library's warning about forks.

    The library decides in the child, from the environment, so the variable stands for the moment
    of the fork; a value that the user has set is left alone.
    """
    name = "TOKENIZERS_PARALLELISM"
    if not hasattr(os, "register_at_fork"):
        return
    set_by_us: list[bool] = []

    def before() -> None:
        set_by_us.append(name not in os.environ)
        os.environ.setdefault(name, "false")

    def after_in_parent() -> None:
        if set_by_us.pop():
            os.environ.pop(name, None)

    os.register_at_fork(before=before, after_in_parent=after_in_parent)

"""What a model computes here, to be compared with what it computes elsewhere."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from miao.errors import MiaoError
from miao.files import read_json, write_json

if TYPE_CHECKING:
    from miao.model import Decoder
    from miao.tokenizer import Tokenizer

READ, BEYOND, ANSWER = 256, 64, 24
"""Tokens that are read for the logits; those beyond the length that scaled positions were trained
for; and those of an answer."""
LONGEST = 1152

TEXT = (
    "清晨的露水落在小小的苗上，太阳慢慢升起来了。今天天气很好，我们去公园散步，好吗？"
    "The seedling grew a little every day, and the rain was kind to it. Don't you see?"
    " 37 + 45 = 82.\n\n臺灣與香港用繁體字。"
    "def area(w, h):\n    return w * h  # m²\n\t👩‍👩‍👧 café, ½ €9.99\r\n"
    "Ελληνικά, Русский, 日本語の文、한국어, مرحبا بالعالم."
)
TEXTS = (
    "清晨的露水落在小小的苗上，太阳慢慢升起来了。",
    "這是繁體中文，臺灣與香港的用字；「你好嗎？」他問道……",
    "The seedling grew, didn'T it? I'm sure they'VE seen it.",
    "👩‍👩‍👧‍👦 👍🏽 🏳️‍🌈 🇨🇳🇬🇧 ❤️‍🔥 5️⃣",
    "مرحبا بالعالم ١٢٣ שלום हिन्दी தமிழ் ภาษาไทย Ελληνικά Русский かな カナ 한국어",
    "e\u0301te\u0301 and été, \u212b and \u00c5, ﬁ, ｆｕｌｌ　ｗｉｄｔｈ１２３",
    "\t\ttabs\t and  two   spaces   \n\n\n\nnewlines\r\n\r\nwindows\r \n \n  ",
    " leading and trailing ",
    "12345678901234567890 3.14159 1,000,000 ½ ²³ Ⅷ ①",
    "def area(width, height):\n    return width * height  # 3 * 4 == 12\n",
    "zero\u200bwidth\u200d\ufeff\u00a0\u3000space \u2028line\u2029 \x00\x01\x7f \ufffd \U00020000",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|><think>\n</think> <|im_start| <tool_call>{}",
    "https://example.org/a?b=c&d=%20e#f foo_bar FooBar2000 C++ C# --flag=1 …—«»§†™√",
    "\n",
    " ",
    "",
)
QUESTIONS = ("你好，你是谁？", "What is the capital of France?", "37加45等于多少？")
BEGINNINGS = ("从前，", "Once upon a time, there was")

_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "今天的天气 (today's weather)",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
_CALL = {"name": "get_weather", "arguments": {"city": "成都", "days": 2}}
_HELLO: list[dict[str, Any]] = [
    {"role": "system", "content": "你是苗。\nBe brief."},
    {"role": "user", "content": "  你好 <b>{{ 1 }}</b>\n"},
    {"role": "assistant", "content": "Hello! \n"},
    {"role": "user", "content": "再见"},
]
CONVERSATIONS: dict[str, dict[str, Any]] = {
    "question": {"messages": _HELLO[1:2], "add_generation_prompt": True},
    "answered": {"messages": _HELLO[1:3]},
    "system and several turns": {"messages": _HELLO, "add_generation_prompt": True},
    "without thinking": {
        "messages": _HELLO[1:2],
        "add_generation_prompt": True,
        "enable_thinking": False,
    },
    "thoughts": {
        "messages": [
            _HELLO[3],
            {"role": "assistant", "content": "Bye.", "reasoning_content": "He leaves.\n"},
        ]
    },
    "tools": {
        "messages": [
            *_HELLO[:2],
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"type": "function", "function": _CALL}],
            },
            {"role": "tool", "content": '{"sky": "晴"}'},
        ],
        "tools": [_TOOL],
        "add_generation_prompt": True,
    },
}


@dataclass(frozen=True)
class Answer:
    """A greedy continuation. `gaps[i]`: by how much token i led the second likeliest, in logits;
    near zero it was a tie."""

    question: str | None
    """What a user asked; None: the text in `prompt` is continued."""
    prompt: str
    prompt_ids: list[int]
    ids: list[int]
    """With the stop token, where one ended it."""
    text: str
    gaps: list[float]


@dataclass(frozen=True)
class Reference:
    """What a model makes of fixed texts, in float32."""

    ids: list[int]
    logits_tv: np.ndarray
    """float32 [t, v] after each of `ids`."""
    encodings: dict[str, list[int]]
    """Ids of each text; a control token spelt out in it is that token."""
    decodings: dict[str, str]
    """Each text out of its ids: itself, but where the tokenizer normalises."""
    conversations: dict[str, str | None]
    """Each of `CONVERSATIONS` as text; None: the template refuses it, or there is none."""
    answers: list[Answer]
    stop_ids: list[int]
    """The first ends a turn."""

    def save(self, path: Path) -> None:
        """Writes JSON; the logits as base64 of little-endian float32."""
        raw = self.logits_tv.astype("<f4").tobytes()
        packed = {
            "shape": list(self.logits_tv.shape),
            "float32": base64.b64encode(raw).decode("ascii"),
        }
        fields = {name: value for name, value in vars(self).items() if name != "answers"}
        answers = [asdict(answer) for answer in self.answers]
        write_json(path, fields | {"logits_tv": packed, "answers": answers})

    @classmethod
    def load(cls, path: Path) -> Reference:
        """Reads what `save` wrote.

        Raises:
            MiaoError: missing, damaged, or something else.
        """
        fields = read_json(path)
        try:
            packed = fields["logits_tv"]
            raw = np.frombuffer(base64.b64decode(packed["float32"]), dtype="<f4")
            answers = [Answer(**answer) for answer in fields["answers"]]
            logits_tv = raw.reshape(packed["shape"])
            return cls(**fields | {"logits_tv": logits_tv, "answers": answers})
        except (KeyError, TypeError, ValueError) as error:
            raise MiaoError(
                f"this is not a reference of a model ({error})",
                where=path,
                fix="write one with python -m miao.export.parity DIRECTORY --write FILE",
            ) from error


def make_reference(model: Decoder, tokenizer: Tokenizer, draws_padding: bool = True) -> Reference:
    """Computes with `model`, whose weights are float32.

    Args:
        draws_padding: rows of the head behind the last token count as any other, as in the
            programs of others.
    """
    import torch

    model.eval()
    if draws_padding:
        model.config = replace(model.config, num_tokens=None)
    ids = _ids_to_read(model, tokenizer)
    with torch.inference_mode():
        logits_tv = model(torch.tensor([ids], device=model.device))[0].float().cpu().numpy()
    encodings = {text: tokenizer.encode(text, allow_special=True) for text in TEXTS}
    return Reference(
        ids,
        logits_tv,
        encodings,
        {text: tokenizer.decode(i, skip_special_tokens=False) for text, i in encodings.items()},
        {name: _rendered(tokenizer, each) for name, each in CONVERSATIONS.items()},
        _answers(model, tokenizer),
        list(tokenizer.stop_ids),
    )


def reference_of(directory: Path) -> Reference:
    """What the model in a directory computes here."""
    from miao.model import load_model
    from miao.tokenizer import Tokenizer

    return make_reference(load_model(directory), Tokenizer.from_directory(directory))


def _ids_to_read(model: Decoder, tokenizer: Tokenizer) -> list[int]:
    """Ids of the text; again from its start until scaled positions show what they do."""
    config, ids = model.config, tokenizer.encode(TEXT)[:READ]
    scaling = config.rope_scaling or {}
    trained = scaling.get("original_max_position_embeddings")
    if scaling.get("rope_type") == "dynamic":
        trained = config.max_position_embeddings
    length = max(len(ids), min(int(trained or 0) + BEYOND, LONGEST) if trained else 0)
    length = min(length, config.context_length)
    return (ids * (length // len(ids) + 1))[:length]


def _rendered(tokenizer: Tokenizer, conversation: dict[str, Any]) -> str | None:
    try:
        return tokenizer.chat_template.render(**conversation)
    except MiaoError:
        return None


def _answers(model: Decoder, tokenizer: Tokenizer) -> list[Answer]:
    from miao.engine import Engine, SamplingOptions

    prompts: list[tuple[str | None, str, list[int]]] = []
    for question in QUESTIONS:
        messages = [{"role": "user", "content": question}]
        conversation = {"messages": messages, "add_generation_prompt": True}
        if (text := _rendered(tokenizer, conversation)) is not None:
            ids = tokenizer.chat_template.encode_prompt(tokenizer, messages)
            prompts.append((question, text, ids))
    prompts += [(None, text, tokenizer.encode(text)) for text in BEGINNINGS]
    prompts = [prompt for prompt in prompts if len(prompt[2]) < model.config.context_length]
    engine = Engine(model, frozenset(tokenizer.stop_ids), rows=1)
    options = SamplingOptions(temperature=0, max_new_tokens=ANSWER)
    found = []
    for asked, text, ids in prompts:
        (answer,) = engine.generate([ids], options)
        best, gaps = _leaders(model, ids, answer)
        if best[-1] in tokenizer.stop_ids and len(answer) < ANSWER:
            answer = [*answer, best[-1]]
        # Embeddings are often padded to more rows than there are tokens.
        said = tokenizer.decode(id for id in answer if id < tokenizer.vocab_size)
        found.append(Answer(asked, text, ids, answer, said, gaps[: len(answer)]))
    return found


def _leaders(model: Decoder, prompt: list[int], answer: list[int]) -> tuple[list[int], list[float]]:
    """The likeliest token at each place of an answer and behind it, and its lead."""
    import torch

    with torch.inference_mode():
        logits_tv = model(torch.tensor([prompt + answer], device=model.device))[0].float()
    best = logits_tv[len(prompt) - 1 :].topk(2, dim=-1)
    lead = best.values[:, 0] - best.values[:, 1]
    return best.indices[:, 0].tolist(), lead.tolist()

"""Options of the raw text and of the tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from miao.recipe.cleaning import CleanOptions, ContaminationOptions, DedupOptions, MixOptions
from miao.recipe.quantities import Quantity


@dataclass
class SeedbedOptions:
    """The built-in generated corpus, used for every kind of record you bring none of."""

    characters: Quantity = "10M"
    """Size of the pretraining text, in characters."""
    conversations: int = 24000
    """How many conversations for SFT."""
    preferences: int = 3000
    """How many preference pairs for DPO."""
    single_answers: bool = False
    """Keep one answer of each preference pair, labelled as desirable or not: what KTO learns from
    where nobody has compared two."""
    document_weights: dict[str, float] = field(default_factory=dict)
    """Share of each topic in the pretraining text (knowledge, arithmetic, stories, dialogues,
    recall)."""
    recall_characters: int = 600
    """Longest text of the topic recall, which says numbers again that it has said long before."""
    conversation_weights: dict[str, float] = field(default_factory=dict)
    """Share of each topic in the conversations (general, knowledge, math, identity, and calculator,
    which calls a tool)."""
    name_zh: str = "小苗"
    """The assistant's name in Chinese."""
    name_en: str = "Miao"
    """The assistant's name in English."""
    maker_zh: str = "Miao 开源项目"
    """Who made the assistant, in Chinese."""
    maker_en: str = "the Miao open-source project"
    """Who made the assistant, in English."""


@dataclass
class CorpusOptions:
    """Raw text in: your files, or the built-in corpus."""

    paths: list[str] = field(default_factory=list)
    """Text to pretrain on: files, folders or globs of txt, md, jsonl, csv, parquet (also .gz .xz
    .bz2 .zst). Each path is one source, called as its file or folder, or by a name given before it
    (wiki=data/dump). Empty: the built-in corpus."""
    conversations: list[str] = field(default_factory=list)
    """Conversations for SFT (messages, sharegpt, alpaca, question/answer), beside the built-in ones
    (own_share). Empty: the built-in ones alone."""
    preferences: list[str] = field(default_factory=list)
    """Preference pairs for DPO (chosen/rejected), or labelled answers for KTO (prompt, completion,
    label). Empty: built-in."""
    own_share: float | Literal["auto"] | None = None
    """Share of your own conversations in what SFT reads, beside the built-in ones (who it is, small
    talk, sums), which carry the name and maker of `seedbed`. auto: by their size, yours up to four
    times over until they are half; 1: yours alone; null: 1 with model.path or corpus.mix, which
    talk already, else auto."""
    text_talks: int = 0
    """So many conversations are made from your own text, beside the others: asked about a word, a
    title or a sentence of it, the chat answers with a passage (as much of them as the text gives).
    Held-out text gives those that are asked in the evaluation."""
    local: str | None = "data/chinese"
    """CATEGORY.jsonl files of this folder, if there is one, are used for the kinds of record that
    the lists above are empty for; a file's name is its category. null: never."""
    weights: dict[str, float] = field(default_factory=dict)
    """Weight of each pretraining source in training (default: by its size)."""
    heldout: float = 0.01
    """Fraction of records kept out of training to measure on (chosen by content hash)."""
    heldout_max: int = 400
    """At most this many held-out records per source."""
    columns: dict[str, str] = field(default_factory=dict)
    """What columns of your data are, where it is not told rightly: {question: q, answer: data.a}
    (text, title, messages, question, answer, context, history, system, reasoning, tools, chosen,
    rejected, label, source; `a+b` joins two), and `unused: a,b` for those to leave out."""
    encoding: str | None = None
    """Encoding of text that is no UTF-8 (default: told; GB18030, Big5, UTF-16, UTF-32)."""
    skip_bad_records: bool = False
    """Count and skip unreadable records (listed in corpus/problems.jsonl) instead of stopping."""
    clean: CleanOptions = field(default_factory=CleanOptions)
    """Rules for your own text."""
    dedup: DedupOptions = field(default_factory=DedupOptions)
    """Duplicates in your own text."""
    contamination: ContaminationOptions = field(default_factory=ContaminationOptions)
    """Evaluation sets that your own text must not hold."""
    mix: MixOptions = field(default_factory=MixOptions)
    """How much of what goes in."""
    workers: int | None = None
    """Processes that clean (default: one per core, fewer for little text)."""
    seedbed: SeedbedOptions = field(default_factory=SeedbedOptions)
    """The built-in corpus."""

    @property
    def mixes_built_in(self) -> bool:
        """Whether built-in conversations stand beside the user's own."""
        return bool(self.conversations) and self.own_share not in (None, 1)

    @property
    def talks_built_in(self) -> bool:
        """Whether SFT learns the built-in conversations, alone or beside others."""
        return not self.conversations or self.mixes_built_in

    @property
    def tells_facts(self) -> bool:
        """Whether the built-in facts stand in the text, so that a model can know them."""
        return not self.paths


@dataclass
class TokenizerOptions:
    """Byte-level BPE."""

    path: str | None = None
    """Use this tokenizer (a directory with tokenizer.json) instead of training one."""
    chat_template: str | None = None
    """Give the tokenizer of `path` this chat template, as a base model needs for SFT: miao (tools
    and <think>), chatml, llama3, gemma, or a .jinja file. Control tokens that it lacks are added,
    and the model gets rows for them. null: its own."""
    vocab_size: int = 6400
    """Number of tokens, special ones included."""
    sample: Quantity = "50M"
    """Train on at most this many characters, from all over the sources; on fewer, where memory is
    short (Chinese takes up to 270 bytes of it per character with tokenizers, 150 with rustbpe;
    English some 20)."""
    balance: float = 0.0
    """Of more text than that: 0: each source counts by its size, 1: all count the same, 0.5: by
    the square root of its size."""
    trainer: Literal["auto", "tokenizers", "rustbpe"] = "auto"
    """The library that learns the merges (auto: tokenizers; where memory is short, rustbpe if it is
    installed)."""
    pattern: str = "qwen2"
    """How text is cut before merging: qwen2 (single digits), llama3 (up to three), gpt2, or a
    regular expression (which llama.cpp will not know)."""
    special_tokens: list[str] = field(default_factory=list)
    """Control tokens of your own, such as "<|user|>", after the 16 that are always there (or, with
    `path`, after those of that tokenizer)."""
    meant: dict[str, list[str]] = field(default_factory=dict)
    """Control tokens that texts of a source mean where they spell them, such as
    {"minimind": ["<|im_start|>", "<|im_end|>"]} ("*": every source). All others that are spelt in a
    text are learned as its letters, counted and said."""
    workers: int | None = None
    """Processes that tokenise (default: one per core, fewer for little text)."""
    fast_encoder: bool = True
    """Tokenise with fastokens where it is installed and gives the same ids."""

    @property
    def adds_to_given(self) -> bool:
        """Whether the tokenizer of `path` gets a chat template or tokens."""
        return self.path is not None and bool(self.chat_template or self.special_tokens)

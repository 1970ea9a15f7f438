"""Options of the raw text and of the tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    document_weights: dict[str, float] = field(default_factory=dict)
    """Share of each topic in the pretraining text (knowledge, arithmetic, stories, dialogues,
    recall)."""
    recall_characters: int = 600
    """Longest text of the topic recall, which says numbers again that it has said long before."""
    conversation_weights: dict[str, float] = field(default_factory=dict)
    """Share of each topic in the conversations (general, knowledge, math, identity)."""
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
    .bz2 .zst). Each path is one source. Empty: the built-in corpus."""
    conversations: list[str] = field(default_factory=list)
    """Conversations for SFT (messages, sharegpt, alpaca, question/answer). Empty: built-in."""
    preferences: list[str] = field(default_factory=list)
    """Preference pairs for DPO (chosen/rejected). Empty: built-in."""
    weights: dict[str, float] = field(default_factory=dict)
    """Weight of each pretraining source in training (default: by its size)."""
    heldout: float = 0.01
    """Fraction of records kept out of training to measure on (chosen by content hash)."""
    heldout_max: int = 400
    """At most this many held-out records per source."""
    skip_bad_records: bool = False
    """Count and skip unreadable records (listed in corpus/problems.jsonl) instead of stopping."""
    seedbed: SeedbedOptions = field(default_factory=SeedbedOptions)
    """The built-in corpus."""


@dataclass
class TokenizerOptions:
    """Byte-level BPE."""

    path: str | None = None
    """Use this tokenizer (a directory with tokenizer.json) instead of training one."""
    vocab_size: int = 6400
    """Number of tokens, special ones included."""
    sample: Quantity = "50M"
    """Train on at most this many characters, spread evenly over the sources."""

"""Options of the corpus workshop: cleaning, duplicates, overlap with evaluation sets, mixing.

null switches off a rule that has a threshold; an empty list one that has a list.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from miao.recipe.quantities import Quantity


@dataclass
class WebOptions:
    """Limits of published web corpora, over documents. A word is also one character of Chinese."""

    like: list[str] = field(default_factory=list)
    """Take the limits of gopher, c4, fineweb for all of these that are not set. They were found on
    English web pages: poems, tables, code and Chinese lists may fall; look at the report."""
    max_short_lines: float | None = None
    """Largest share of lines of at most 30 columns (a Chinese character is two); FineWeb 0.67."""
    min_ended_lines: float | None = None
    """Smallest share of lines that end as sentences do; FineWeb 0.12."""
    max_line_ends: float | None = None
    """Most line ends per word; FineWeb 0.3."""
    max_list_lines: float | None = None
    """Largest share of lines that begin with a bullet or dash; Gopher 0.9."""
    max_ellipsis_lines: float | None = None
    """Largest share of lines that end with an ellipsis; Gopher 0.3."""
    max_marks: float | None = None
    """Most # or ellipses per word; Gopher 0.1."""
    min_lettered_words: float | None = None
    """Smallest share of words that hold a letter; Gopher 0.8."""
    min_stop_words: int | None = None
    """Fewest different ones of the commonest words (the, of, ...; 的, 是, ...); Gopher 2."""
    min_word_length: float | None = None
    """Shortest average English word, in letters; Gopher 3."""
    max_word_length: float | None = None
    """Longest average English word, in letters; Gopher 10."""
    min_sentences: int | None = None
    """Fewest sentences; C4 5 (3 in the paper's first form)."""
    max_repeated_paragraphs: float | None = None
    """Largest share of characters in paragraphs that occur before in the document; Gopher 0.2."""
    max_repetition: dict[int, float] = field(default_factory=dict)
    """Per n: largest share of a document's words in its commonest n-gram (n up to 4), or in n-grams
    that occur before in it (n from 5); Gopher {2: 0.2, ..., 10: 0.1}."""
    whole_lines: bool = False
    """Take out lines that do not end as sentences do, have fewer than three words, or speak of
    javascript, cookies or terms of use (C4)."""
    placeholders: bool = False
    """Reject pages with "lorem ipsum" or a curly bracket, which is code or a template (C4)."""


@dataclass
class CleanOptions:
    """Rules over your own text (the built-in corpus needs none). The defaults are safe ones: they
    take out what is broken and judge nothing."""

    enabled: bool = True
    """Apply the rules below."""
    unicode: bool = True
    """Compose accents (NFC), take out byte order marks and invisible characters, and unify line
    ends and odd spaces."""
    controls: bool = True
    """Take out control characters and those of private use."""
    halfwidth: bool = True
    """Full-width letters and digits (ＡＢＣ１２３) to ordinary ones; punctuation stays."""
    whitespace: bool = True
    """Take out spaces at line ends and more than one blank line in a row; indents stay."""
    mojibake: bool = False
    """Repair text that was decoded wrongly (`ä¸­æ–‡`), with ftfy."""
    html: bool = False
    """Take out what is left of HTML: tags, comments, entities (not in code)."""
    boilerplate: bool = False
    """Take out lines that are navigation, copyright, sharing and subscription notes."""
    simplify: bool = False
    """Traditional to simplified Chinese, with OpenCC."""
    personal: list[str] = field(default_factory=lambda: ["id"])
    """Mask personal data: email, phone, id (numbers of Chinese identity cards, by check digit)."""
    min_characters: dict[str, int] = field(default_factory=dict)
    """Shortest document, in characters, per language (zh, en, other), e.g. {zh: 50, en: 200}."""
    max_characters: int | None = None
    """Longest document, in characters."""
    max_broken: float | None = 0.01
    """Largest share of replacement characters (�)."""
    max_garbled: float | None = 0.2
    """Largest share of Chinese text that was decoded wrongly: almost no common character in it."""
    max_symbols: float | None = None
    """Largest share of characters that are no letters, digits or usual punctuation, e.g. 0.4."""
    max_digits: float | None = None
    """Largest share of digits, e.g. 0.4."""
    max_repeated_lines: float | None = None
    """Largest share of a document's characters in lines that occur before in it, e.g. 0.5."""
    max_repeated_ngrams: float | None = None
    """Largest share of 10-grams (characters of Chinese, words of English) that occur before in the
    document, e.g. 0.6."""
    max_one_character: float | None = 0.6
    """Largest share of a single character, spaces aside (0.5 or more)."""
    languages: list[str] = field(default_factory=list)
    """Keep these languages only (zh, en, ja, ...; Latin ones are told apart by lingua). Empty:
    any."""
    max_foreign: float = 0.5
    """Largest share of a text that is certainly in another language."""
    min_chinese: float | None = None
    """Smallest share of Chinese characters among all letters, e.g. 0.5."""
    blocklists: list[str] = field(default_factory=list)
    """Files with a word or phrase per line (advertising, adult, ...): texts with them go."""
    max_blocked: int = 0
    """A text may hold so many of those words (each occurrence counts)."""
    web: WebOptions = field(default_factory=WebOptions)
    """Rules for web pages."""
    keep_functions: list[str] = field(default_factory=list)
    """Rules of your own, as "file.py:name": a function from a record's text to True (it stays),
    False, or the words why it goes."""
    edit_functions: list[str] = field(default_factory=list)
    """Edits of your own, as "file.py:name": a function from a text to the better text."""
    classifier: str | None = None
    """A quality classifier of yours (`miao corpus classifier`): a text that it gives a lower score
    than min_score goes."""
    min_score: float = 0.5
    """Smallest score of the classifier, 0 to 1."""
    quality_column: str | None = None
    """Column with a quality score, such as score."""
    min_quality: float = 0.0
    """Smallest score in that column; a record without one goes."""
    max_quality: float | None = None
    """Largest score in that column: bits per byte, say, are suspicious when low and when high."""
    blocked_domains: list[str] = field(default_factory=list)
    """Files with a domain per line (lists such as UT1's): pages from there, and from names below
    them, go."""
    url_column: str = "url"
    """Column with the address of a page."""
    empty_turns: bool = True
    """Reject conversations in which a turn is empty after cleaning."""
    role_order: bool = False
    """Reject conversations that do not alternate: (system,) user, assistant, user, assistant."""
    refusals: bool = False
    """Reject conversations in which the assistant refuses, or says that it is a language model."""


@dataclass
class DedupOptions:
    """Copies, within and across sources. The held-out side is always kept apart from training."""

    exact: bool = True
    """Drop records equal to an earlier one, white space aside."""
    near: bool = False
    """Drop documents that nearly equal another (MinHash over n-grams of characters or words)."""
    near_threshold: float = 0.45
    """Jaccard similarity of n-grams from which two documents are near-duplicates. 0.45 finds copies
    with one character in ten edited, and joins some pages made from one template; 0.7 leaves most
    of those, and finds copies with one character in forty edited or a tenth replaced."""
    near_ngram: int = 3
    """Length of those n-grams: characters of Chinese, words of English."""
    near_min_tokens: int = 30
    """Shorter documents are not compared: too little to tell."""
    paragraphs: bool = False
    """Take out paragraphs (blocks between blank lines) that stand in an earlier document."""
    lines: bool = False
    """Take out lines that stand in an earlier document."""
    sentences: bool = False
    """Take out runs of three sentences that stand in an earlier document (as C4 does)."""
    min_span: int = 30
    """Paragraphs, lines and runs of sentences with fewer characters stay."""
    substrings: int | None = None
    """Take out every run of so many tokens (characters of Chinese, words of English) that stands in
    an earlier document, e.g. 50. Needs some 50 bytes of disk per token while it works."""
    keep: Literal["first", "longest"] = "first"
    """Which near-duplicate stays."""
    prefer: list[str] = field(default_factory=list)
    """Sources whose records stay before others', best first."""
    across_sources: bool = True
    """Compare records of different sources too."""


@dataclass
class ContaminationOptions:
    """Overlap with evaluation sets."""

    paths: list[str] = field(default_factory=list)
    """Evaluation sets: files, folders or globs of any format. Each question is looked for with its
    options, and each long field alone."""
    ngram: int = 3
    """Length of the n-grams compared: characters of Chinese, words of English."""
    min_share: float = 0.5
    """A record is contaminated when it holds this share of a question's n-grams side by side."""
    action: Literal["reject", "report"] = "reject"
    """reject: such records go; report: they are only listed."""


@dataclass
class CategoryOptions:
    """One category of a mix."""

    sources: list[str] = field(default_factory=list)
    """Sources that belong to it (names or patterns such as belle*; default: its name)."""
    language: Literal["any", "zh", "en", "other"] = "any"
    """Only records in this language."""
    count: Quantity | None = None
    """How many records to take."""
    weight: float | None = None
    """Share of the mix by characters, relative to the other categories' weights."""
    max_epochs: float = 4.0
    """A category that is too small is repeated up to so many times, and no more."""
    repeat: int = 1
    """Write each record of it so many times."""
    cap: Quantity | None = None
    """At most this many different records."""


@dataclass
class MixOptions:
    """What goes into the corpus, by category. Empty: everything, once."""

    preset: Literal["none", "chinese"] = "none"
    """chinese: zh and en text 3:1; 460K general, 100K knowledge, 8K math and twice 1K identity
    conversations; 60K preferences. The categories below override it."""
    pretrain: dict[str, CategoryOptions] = field(default_factory=dict)
    """Categories of documents."""
    sft: dict[str, CategoryOptions] = field(default_factory=dict)
    """Categories of conversations."""
    dpo: dict[str, CategoryOptions] = field(default_factory=dict)
    """Categories of preference pairs."""
    total: Quantity | None = None
    """Size of a weighted mix of documents, in characters (default: what the sources allow)."""
    others: bool = False
    """Also take records that belong to no category."""

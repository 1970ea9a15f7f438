"""Edits: pure functions from text to better text. Each returns a text it has nothing to do for as
it is."""

from __future__ import annotations

import html
import re
import unicodedata
from functools import cache
from typing import Any

from miao.errors import MiaoError, install_hint

_INVISIBLE = re.compile("[\ufeff\u200b\u200e\u200f\u2060\u00ad\u202a-\u202e]")
_LINE_ENDS = re.compile("\r\n?|[\u2028\u2029\u0085]")
_ODD_SPACES = re.compile("[\u00a0\u2000-\u200a\u202f\u205f]")
ODD = "\r\u0085\u00a0\u00ad\u2000-\u200b\u200e\u200f\u2028-\u202f\u205f\u2060\ufeff"
_ODD = re.compile(f"[{ODD}]")
COMPOSED = (
    "\u0300-\u200f\u2028-\u202f\u205f-\u20ff\u2126-\u212b\u2329\u232a\u2adc\u302a-\u302f\u3099\u309a"
    "\ua000-\uabff\ud7a4-\udfff\uf900-\uff00\ufff0-\U0001efff\U0002f800-\U0010ffff"
)
"""All that NFC may change or join to another character, and scripts that are rare here."""
CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\ufdd0-\ufdef\ufff0-\ufff8\ufffe\uffff"
_CONTROLS = re.compile(f"[{CONTROLS}]")
PRIVATE = "\ue000-\uf8ff"
_PRIVATE = re.compile(f"[{PRIVATE}]")
_LOST_CHARACTER = re.compile(
    "(?<=[\u3400-\u9fff，。、；：？！「」『』《》（）])[\ue000-\uf8ff]+"
    "|(?<!^)[\ue000-\uf8ff]+(?=[\u3400-\u9fff])",
    re.MULTILINE,
)
_FROM_ONE_BYTE = re.compile("[\u0080-\u024f\u0370-\u05ff]")  # letters of one-byte encodings
FULL_WIDTH = "０-９Ａ-Ｚａ-ｚ"
_FULL_WIDTH = re.compile(f"[{FULL_WIDTH}]")
_TO_HALF_WIDTH = {code: code - 0xFEE0 for span in ("０９", "ＡＺ", "ａｚ")
                  for code in range(ord(span[0]), ord(span[1]) + 1)}  # fmt: skip
_SPACES = (" ", "\t", "\u3000", "\f", "\v")
_SPACES_AT_END = re.compile(f"[{''.join(_SPACES)}]+$", re.MULTILINE)
_SPACED_ENDS = tuple(f"{space}\n" for space in _SPACES)
_BLANK_LINES = re.compile(r"\n{3,}")


def normalise_unicode(text: str) -> str:
    """NFC, no invisible characters, `\\n` as the only line end, ordinary spaces.

    The ideographic space stays: it indents Chinese paragraphs. So do the joiners of emoji and of
    Indic and Persian script.
    """
    if _ODD.search(text):
        text = _LINE_ENDS.sub("\n", text)
        text = _INVISIBLE.sub("", text)
        text = _ODD_SPACES.sub(" ", text)
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def remove_controls(text: str) -> str:
    """No control characters but newline and tab, none of private use, no non-characters.

    One of private use amid Chinese stands for a rare character that a font of its time had: □
    takes its place, as editors mark what is missing. Elsewhere it is an icon of some font.
    """
    if _PRIVATE.search(text):
        text = _LOST_CHARACTER.sub(lambda match: "□" * len(match[0]), text)
        text = _PRIVATE.sub("", text)
    return _CONTROLS.sub("", text)


def narrow_width(text: str) -> str:
    """Full-width letters and digits to ASCII."""
    return text.translate(_TO_HALF_WIDTH) if _FULL_WIDTH.search(text) else text


def tidy_whitespace(text: str) -> str:
    """No spaces at line ends, at most one blank line in a row, no blank borders."""
    if text.endswith(_SPACES) or any(end in text for end in _SPACED_ENDS):
        text = _SPACES_AT_END.sub("", text)
    return (_BLANK_LINES.sub("\n\n", text) if "\n\n\n" in text else text).strip("\n")


def repair_mojibake(text: str) -> str:
    """Undoes a wrong decoding (UTF-8 read as Latin-1 or Windows-1252 and its kin), with ftfy.

    Raises:
        MiaoError: ftfy is not installed.
    """
    ftfy = _library("ftfy", "clean.mojibake")
    if not _FROM_ONE_BYTE.search(text):
        return text
    return ftfy.fix_encoding(text) if ftfy.is_bad(text) else text


_TAG_NAMES = (
    "a|abbr|article|aside|b|big|blockquote|body|br|button|center|cite|dd|del|div|dl|dt|em|"
    "figcaption|figure|font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|ins|label|li|link|"
    "main|meta|nav|noscript|object|ol|p|pre|q|s|section|small|span|strong|strike|sub|sup|table|"
    "tbody|td|tfoot|th|thead|title|tr|tt|u|ul|ref|gallery|nowiki|poem"
)
_HIDDEN = re.compile(
    r"<!--.*?-->|<(script|style|noscript)\b[^<>]*>.*?</\1\s*>", re.DOTALL | re.IGNORECASE
)
_BLOCK_TAG = re.compile(r"</?(?:br|p|div|li|tr|h[1-6]|hr)\b[^<>\n]{0,400}>", re.IGNORECASE)
_TAG = re.compile(rf"</?(?:{_TAG_NAMES})(?:\s[^<>\n]{{0,400}}|\s*/)?>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:nbsp|amp|lt|gt|quot|apos|ldquo|rdquo|lsquo|rsquo|hellip|mdash|ndash|"
                     r"middot|copy|reg|bull|emsp|ensp|times|#\d{1,6}|#x[0-9a-f]{1,5});",
                     re.IGNORECASE)  # fmt: skip
_CODE = re.compile(r"(```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`)", re.DOTALL)
_INDENTED = re.compile(r"^(?: {4}|\t)", re.MULTILINE)


def strip_html(text: str) -> str:
    """Without tags, comments and scripts, and with entities as the characters they mean.

    Code in fences or backticks stays as it is, and so does every indented line.
    """
    if "<" not in text and "&" not in text:
        return text
    parts = _CODE.split(text)
    parts[::2] = ["\n".join(_strip_lines(part)) for part in parts[::2]]
    return "".join(parts)


def _strip_lines(part: str) -> list[str]:
    part = _HIDDEN.sub("", part)
    return [line if _INDENTED.match(line) else _strip_line(line) for line in part.split("\n")]


def _strip_line(line: str) -> str:
    if "<" in line:
        line = _TAG.sub("", _BLOCK_TAG.sub("\n", line)).strip("\n")
    return _ENTITY.sub(lambda match: html.unescape(match[0]).replace("\u00a0", " "), line)


_BOILERPLATE = re.compile(
    r"(?:上一[篇页章]|下一[篇页章]|返回(?:首页|顶部|目录|列表)|回到顶部|(?:点击|扫码|扫一扫|长按|微信扫).{0,16}"
    r"(?:关注|查看|阅读|下载|收藏|识别|二维码|进入).{0,20}|分享到.{0,30}|(?:责任)?编辑[:：].{1,12}|"
    r"(?:本文)?(?:来源|出处|原文链接|原标题|转载自)[:：].{1,40}|(?:未经.{0,12}(?:许可|授权|同意).{0,20}(?:转载|复制).{0,12})|"
    r"著作权归.{1,12}所有.{0,60}|(?:版权所有|著作权所有|Copyright\s*(?:©|\(c\)|\d{4})|©).{0,60}|(?:相关|热门|推荐|更多)(?:阅读|文章|推荐|新闻|链接|标签)[:：]?|"
    r".{0,12}ICP(?:备|证)\s?\d+.{0,12}|.{0,8}公网安备\s?\d+.{0,8}|"
    r"(?:您|你)(?:现在的|当前)位置[:：].{0,40}|(?:阅读|展开)(?:全文|更多)|(?:加入|添加)收藏|设为首页|"
    r"all rights reserved\.?.{0,40}|(?:click|tap) here(?: to .{1,30})?\.?|"
    r"(?:share|tweet|pin|email|print)(?: this)?(?: (?:on|to|via) .{1,20})?|read more\.?|"
    r"(?:previous|next) (?:post|page|article|chapter)|back to (?:top|home)|"
    r"skip to (?:main )?content|"
    r"(?:this (?:site|website) uses cookies|we use cookies).{0,120}|"
    r"subscribe to our newsletter.{0,40}|sign up for our newsletter.{0,40}|"
    r"leave a (?:comment|reply)|"
    r"(?:terms of (?:use|service)|privacy policy)(?:\s*[|·]\s*.{1,40})?|"
    r"\[(?:编辑|edit)\]|(?:编辑|edit) ?\| ?.{0,20})[\s|»«>→←-]*",
    re.IGNORECASE,
)


def remove_boilerplate(text: str) -> str:
    """Without whole lines that are navigation, copyright, sharing and subscription notes; code in
    fences stays."""
    kept, in_code = [], False
    lines = text.split("\n")
    for line in lines:
        in_code ^= line.lstrip().startswith(("```", "~~~"))
        if in_code or not 0 < len(line) <= 140 or not is_boilerplate(line.strip()):
            kept.append(line)
    return text if len(kept) == len(lines) else "\n".join(kept)


def is_boilerplate(line: str) -> bool:
    return _BOILERPLATE.fullmatch(line) is not None


def simplify_chinese(text: str) -> str:
    """Traditional to simplified characters and words, with OpenCC.

    Raises:
        MiaoError: OpenCC is not installed.
    """
    converter, traditional = _opencc()
    return converter.convert(text) if traditional.search(text) else text


@cache
def _opencc() -> tuple[Any, re.Pattern[str]]:
    converter = _library("opencc", "clean.simplify").OpenCC("t2s")
    common = [chr(code) for code in range(0x4E00, 0xA000)]
    changed = [c for c, simple in zip(common, converter.convert("\n".join(common)).split("\n"),
                                      strict=True) if c != simple]  # fmt: skip
    return converter, re.compile(f"[{''.join(changed)}]")


@cache
def _library(name: str, option: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise MiaoError(
            f"--corpus.{option} needs {name}",
            where=f"corpus.{option}",
            fix=f"{install_hint('data')}, or switch the rule off",
        ) from error

"""Every sentence that Miao says to its user, collected from the source; and the table's upkeep.

    python scripts/messages.py          writes what is missing into miao/locale/zh.po, to be
                                        translated there, and takes out what nobody says any more

A message is what a function that speaks is given (SPEAKING), any text of two words or more in the
rooms that speak, and the help of a recipe's options. A text that is no message and stands there
all the same (a pattern, a name) is its own translation in the table.
"""

from __future__ import annotations

import ast
import json
import re
from argparse import SUPPRESS
from collections.abc import Iterator
from pathlib import Path

from miao.language import CATALOGUE, LEAST, PLACE, read_catalogue
from miao.options import make_parser
from miao.recipe import Recipe

PACKAGE = Path(__file__).parent.parent / "miao"
HEAD = '''msgid ""
msgstr ""
"Language: zh_CN\\n"
"Content-Type: text/plain; charset=UTF-8\\n"'''
SPEAKING = {
    "MiaoError", "say", "warn", "headline", "by_product", "ProgressLine", "print_table", "Parser",
    "add_argument", "add_parser", "add_argument_group",
}  # fmt: skip
"""Functions whose every text is a message, one word too."""
HELPS = {"help", "description", "epilog", "title", "what", "fix", "columns"}
"""Their keywords that are; of the functions of argparse nothing else is."""
SILENT = (
    "corpus/seedbed/", "report/", "page/", "serve/", "engine/schemas.py", "model/presets.py",
    "evaluate/judge.py", "evaluate/opencompass.py", "tokenizer/named_templates.py", "gpus.py",
    "evaluate/tasks/generated.py", "recipe/__init__.py", "recipe/corpus.py", "grow/writing.py",
)  # fmt: skip
"""Rooms whose texts are content (a corpus, a page) or for programs (an answer of the server): of
these only what the speaking functions are given is a message."""
ARGPARSE = (
    "usage: ", "options", "positional arguments", "show this help message and exit",
    "show program's version number and exit", "error: ", "argument {1}: {2}",
    "the following arguments are required: {1}", "unrecognized arguments: {1}",
    "expected one argument", "expected at least one argument", "expected {1} arguments",
    "invalid choice: {1} (choose from {2})", "invalid {1} value: {2}",
    "not allowed with argument {1}", "one of the arguments {1} is required",
    "ignored explicit argument {1}", " (type: {1}, default: {2})", " (required, type: {1})",
)  # fmt: skip
"""What argparse and jsonargparse say."""
ENDINGS = {"", "s", "es", "y", "ies", "a", "an"}
"""English endings and articles, which a translation may leave out."""
PROSE = re.compile(r"[A-Za-z]{2,}[,;:)'`]{0,2} +[-'\"(`]?[A-Za-z]")
WORD = re.compile(r"[A-Za-z][a-z]+")
COMMAND = re.compile(r"\s*((miao|pip|torchrun) |--)[^:;,]*|[^ ]*[\\<\[][^ ]*.*|#.*", re.DOTALL)
"""A command to copy, a pattern: nothing to translate."""
CODE = {"annotation", "returns", "format_spec", "slice", "ops", "comparators", "msg"}
"""What of a statement holds names, not messages."""
INTERNAL = {
    "ValueError",
    "TypeError",
    "RuntimeError",
    "AttributeError",
    "compile",
    "define",
    "prog",
}
"""Of calls of these, too."""


def is_ending(node: ast.expr) -> bool:
    """Whether a place holds an English ending alone: `{'s' * (n != 1)}`."""
    values = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
    words = {value for value in values if isinstance(value, str)}
    return isinstance(node, ast.IfExp | ast.BinOp) and bool(words) and words <= ENDINGS


def pieces_of(node: ast.expr) -> list[str | ast.expr]:
    """A text's own words and the expressions between them; `+` and f-strings are opened."""
    match node:
        case ast.BinOp(op=ast.Add()):
            return pieces_of(node.left) + pieces_of(node.right)
        case ast.JoinedStr():
            return [piece for value in node.values for piece in pieces_of(value)]
        case ast.FormattedValue(value=ast.JoinedStr()):
            return pieces_of(node.value)
        case ast.FormattedValue():
            return [node.value]
        case ast.Constant(value=str()):
            return [piece for piece in re.split(r"(\{\w*\})", str(node.value)) if piece]
        case _:
            return [node]


def template(pieces: list[str | ast.expr]) -> str:
    """A text with `{1}`, `{2}` ... where its values stand (those of `.format`, too)."""
    text, places = "", 0
    for piece in pieces:
        if isinstance(piece, str) and not re.fullmatch(r"\{\w*\}", piece):
            text += piece
        elif isinstance(piece, ast.expr) and is_ending(piece):
            text += "{s}"
        else:
            places += 1
            text += f"{{{places}}}"
    return text


def texts(node: ast.AST) -> Iterator[str]:
    """The texts in an expression or statement, each whole; docstrings and names are none."""
    if isinstance(node, ast.expr):
        pieces = pieces_of(node)
        if any(isinstance(piece, str) for piece in pieces):
            yield template(pieces)
            for piece in pieces:
                if isinstance(piece, ast.expr):
                    yield from texts(piece)
            return
    if isinstance(node, ast.Call) and called(node) in INTERNAL:
        return
    if isinstance(node, ast.keyword) and node.arg in INTERNAL:
        return
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            is_docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if isinstance(child, ast.AST) and not is_docstring and field not in CODE:
                yield from texts(child)


def called(call: ast.Call) -> str:
    """The last name of what is called."""
    return str(getattr(call.func, "id", getattr(call.func, "attr", "")))


def is_message(text: str, by_speaker: bool) -> bool:
    """Whether a text is one, of a function that speaks (one word is enough) or of anything else."""
    if COMMAND.fullmatch(text) or re.search("[一-鿿]", text):
        return False
    own = PLACE.sub("", text).strip(" ():,;.")
    if PLACE.search(text) and sum(map(str.isalpha, own)) < LEAST:
        return False
    is_word = WORD.fullmatch(own) or (" " in own and WORD.search(own))
    return bool(PROSE.search(PLACE.sub("xx", text)) or (by_speaker and is_word))


def is_heads(node: ast.AST) -> bool:
    """Whether a statement names the columns of a table: `columns = ["stage", ...]`."""
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "columns"


def said_by(call: ast.Call) -> Iterator[str]:
    """The messages that a speaking function is given."""
    name = called(call)
    if name not in SPEAKING:
        return
    of_argparse = name == "Parser" or name.startswith("add_")
    given = [k.value for k in call.keywords if k.arg in HELPS]
    if not of_argparse or name == "add_argument_group":
        given += call.args[: 2 if name == "print_table" else 1]
    for node in given:
        yield from texts(node)


def collected() -> dict[str, str]:
    """Every message -> the file (below miao/) that says it first."""
    found = dict.fromkeys(ARGPARSE, "argparse")
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        place = path.relative_to(PACKAGE).as_posix()
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        said = [text for call in calls for text in said_by(call) if is_message(text, True)]
        heads = [node.value for node in ast.walk(tree) if is_heads(node)]  # type: ignore[attr-defined]
        said += [text for head in heads for text in texts(head) if is_message(text, True)]
        if not place.startswith(SILENT):
            said += [text for text in texts(tree) if is_message(text, False)]
        found = dict.fromkeys(said, place) | found
    parser = make_parser(Recipe)
    helps = [part.help for part in parser._actions] + [g.title for g in parser._action_groups]
    shown = (" ".join(text.split()) for text in helps if text and text != SUPPRESS)
    return dict.fromkeys(shown, "recipe") | found


def quoted(text: str) -> str:
    """A text as a catalogue has it, a line below the other."""
    lines = text.splitlines(keepends=True) or [""]
    written = [json.dumps(line, ensure_ascii=False) for line in lines]
    return "\n".join(written if len(written) == 1 else ['""', *written])


def main() -> None:
    said, messages = read_catalogue(CATALOGUE), collected()
    blocks = [HEAD]
    for text, place in sorted(messages.items(), key=lambda message: message[1]):
        blocks.append(f"#: {place}\nmsgid {quoted(text)}\nmsgstr {quoted(said.get(text, ''))}")
    CATALOGUE.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    missing, gone = [text for text in messages if not said.get(text)], said.keys() - messages
    print(f"{len(messages)} messages, {len(missing)} without a translation; {len(gone)} gone")


if __name__ == "__main__":
    main()

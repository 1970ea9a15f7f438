"""Options: what wins over what, and what a mistake is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from miao.errors import MiaoError
from miao.options import option_kinds, parse_options, read_yaml


@dataclass
class Inner:
    """A group."""

    size: int = 1
    """Edge length."""
    rate: float = 0.5
    names: list[str] = field(default_factory=lambda: ["a"])
    numbers: list[float] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    path: str | None = None


@dataclass
class Outer:
    """All of them."""

    title: str = "title"
    shape: Literal["round", "square"] = "round"
    parts: int | Literal["auto"] = "auto"
    enabled: bool = True
    amount: int | float | str = "4M"
    speed: Literal["auto", "on", "off"] = "auto"
    inner: Inner = field(default_factory=Inner)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "options.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def parse(*words: str) -> Outer:
    return parse_options(Outer, None, words)


def mistake(*words: str, path: Path | None = None) -> str:
    with pytest.raises(MiaoError) as caught:
        parse_options(Outer, path, words)
    return str(caught.value)


def test_defaults() -> None:
    assert parse() == Outer()


def test_words_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, "title: 从文件\nparts: 3\ninner:\n  size: 7\n  rate: 0.25\n")
    options = parse_options(Outer, path, ["--inner.size", "9", "--shape=square"])
    expected = Outer("从文件", "square", 3, inner=Inner(size=9, rate=0.25))
    assert options == expected
    assert isinstance(options.inner, Inner)


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("", Inner()),
        ("# nothing but a comment\n", Inner()),
        ("inner:\n", Inner()),
        ("inner:\n#  size: 3\n", Inner()),
        ("inner: {names: [x, y]}\n", Inner(names=["x", "y"])),
        ("inner: {names: single}\n", Inner(names=["single"])),
        ("inner: {rate: 1e-3}\n", Inner(rate=0.001)),  # which YAML takes for a text
        ("inner: {weights: {a b: 2}}\n", Inner(weights={"a b": 2.0})),
        ("inner: {path: null}\n", Inner()),
    ],
)
def test_files(tmp_path: Path, text: str, inner: Inner) -> None:
    assert parse_options(Outer, write(tmp_path, text), []) == Outer(inner=inner)


def test_only_true_and_false_are_booleans(tmp_path: Path) -> None:
    for word in ("on", "off"):
        assert parse("--speed", word).speed == word
        assert parse_options(Outer, write(tmp_path, f"speed: {word}"), []).speed == word
    for text, value in (("true", True), ("False", False)):
        assert parse_options(Outer, write(tmp_path, f"enabled: {text}"), []).enabled is value
    path = write(tmp_path, "inner: {weights: {no: 1, truely: 2}}")
    assert parse_options(Outer, path, []).inner.weights == {"no": 1.0, "truely": 2.0}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--inner.names", "x", "y z", "--title", "t"], ["x", "y z"]),
        (["--inner.names", "x"], ["x"]),
        (["--inner.names=x"], ["x"]),
        (["--inner.names", "[x, y]"], ["x", "y"]),
        (["--inner.names=a: b"], ["a: b"]),
        (["--inner.names", "null", "12", "诗 文"], ["null", "12", "诗 文"]),
        (["--inner.names+", "x"], ["a", "x"]),
    ],
)
def test_lists_are_given_as_words(words: list[str], names: list[str]) -> None:
    assert parse(*words).inner.names == names


def test_other_kinds_of_words() -> None:
    assert parse("--inner.numbers", "0.9", "1").inner.numbers == [0.9, 1.0]
    assert parse("--inner.weights.a", "2").inner.weights == {"a": 2.0}
    assert parse("--inner.weights", "{a: 2, b: 3}").inner.weights == {"a": 2.0, "b": 3.0}
    assert parse("--inner.path", "x").inner.path == "x"
    assert parse("--inner.path", "null").inner.path is None
    assert parse("--inner.rate", "-1").inner.rate == -1.0
    assert parse("--enabled", "false").enabled is False
    assert parse("--parts", "4").parts == 4 and parse("--parts", "auto").parts == "auto"
    assert parse("--amount", "5").amount == 5 and parse("--amount", "5M").amount == "5M"
    assert parse("--title", "12").title == "12"


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("titel", "'title'"),
        ("inner.siez", "'inner.size'"),
        ("iner.size", "'inner.size'"),
        ("weihgts", "'inner.weights'"),
        ("inner.names.first", "'inner.names'"),
    ],
)
def test_unknown_keys_have_a_suggestion(tmp_path: Path, key: str, suggestion: str) -> None:
    message = mistake(f"--{key}", "1")
    assert message.startswith(f"the command line: there is no option '{key}'")
    assert f"did you mean {suggestion}?" in message
    if key.count(".") < 2:
        text = ": {".join(key.split(".")) + ": 1" + "}" * key.count(".")
        path = write(tmp_path, text)
        named = key if "iner" not in key else "iner"
        message = mistake(path=path)
        assert message.startswith(f"{path}: there is no option '{named}'")
        assert "did you mean" in message


def test_a_key_like_no_other_is_sent_to_the_help() -> None:
    assert "miao run --help" in mistake("--xyzzy", "1")


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("inner.size", "big", "a whole number"),
        ("inner.size", "1.5", "a whole number"),
        ("inner.rate", "fast", "a number"),
        ("enabled", "maybe", "true or false"),
        ("shape", "roundish", "round or square"),
        ("parts", "some", "a whole number or auto"),
        ("inner.numbers", "[x]", "a number"),
        ("inner.weights", "{a: heavy}", "a number"),
    ],
)
def test_wrong_values_are_named_with_what_is_allowed(
    tmp_path: Path, key: str, value: str, wanted: str
) -> None:
    text = ": {".join(key.split(".")) + f": {value}" + "}" * key.count(".")
    path = write(tmp_path, text)
    shown = value.strip("[]{}").removeprefix("a: ")
    for place, message in (
        ("the command line", mistake(f"--{key}", value)),
        (str(path), mistake(path=path)),
    ):
        assert message.startswith(f"{place}: {key}: must be {wanted}, not '{shown}'")
        assert "typing" not in message and "class" not in message


def test_a_choice_nearly_hit_has_a_suggestion() -> None:
    assert "did you mean 'square'?" in mistake("--shape", "sqare")
    assert "did you mean 'auto'?" in mistake("--parts", "automatic")


def test_a_number_where_a_text_belongs(tmp_path: Path) -> None:
    assert "title: must be a text, not '7'" in mistake(path=write(tmp_path, "title: 7"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["title", "x"], "'title' is not an option"),
        (["--title"], "--title needs a value"),
        (["--title", "--enabled", "true"], "--title needs a value"),
        (["--title", "two", "words"], "--title takes one value, not 2"),
        (["--inner", "5"], "--inner is a group of options\n  -> such as --inner.size VALUE"),
        (["--inner", "{siez: 5}"], "siez"),
    ],
)
def test_words_that_make_no_option(words: list[str], said: str) -> None:
    message = mistake(*words)
    assert message.startswith("the command line: ")
    assert said in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"title: [\n", "options.yaml:2: not valid YAML"),
        (b"title: a\n  b: c\n", "options.yaml:2: not valid YAML"),
        (b"- a\n- b\n", "a mapping of options"),
        (b"just text\n", "a mapping of options"),
        (b"inner: 5\n", "'inner' is a group of options, not 5"),
        (b"inner: [size]\n", "'inner' is a group of options"),
        (b"title: \xff\xfe\n", "options.yaml: not a recipe"),
        (b"3: 4\n", "there is no option '3'"),
    ],
)
def test_files_that_are_no_options(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "options.yaml"
    path.write_bytes(content)
    message = mistake(path=path)
    assert said in message and str(path) in message


def test_missing_files(tmp_path: Path) -> None:
    assert "none.yaml: not a recipe: No such file" in mistake(path=tmp_path / "none.yaml")
    assert "not a recipe" in mistake(path=tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_recipe_that_powershell_wrote(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "mine.yaml").write_text("title: 苗\n", encoding=encoding)
    assert read_yaml(tmp_path / "mine.yaml") == {"title": "苗"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("title: a\ninner: {size: 1}\ninner:\n  rate: 1\n", "yaml:3: 'inner' stands here a second"),
        ("inner: {size: 1, size: 1}\n", "'size' stands here a second time (first in line 1)"),
        ("inner:\n\tsize: 1\n", "indent with spaces, not tabs"),
        ("title： x\n", "the colon in line 1 is the full-width ："),
        ("title: x\ninner：\n  size: 1\n", "the colon in line 2 is the full-width ："),
        ("inner:\n  size： 3\n", "the colon is the full-width ："),
        ("inner: size:3\n", "write a space after the colon"),
        ("title:x\n", "write a space after the colon in line 1"),
        ("title: [\n", "each line is `key: value`"),
        ('inner: {names: "[my_texts/]"}\n', "without the quotes it is a list: [my_texts/]"),
        ("title: 3\n", 'in quotes: "3"'),
        ("inner: {size: 200K}\n", "write 200000"),
        ("inner: {size: big}\n", "Edge length. Default: 1"),
    ],
)
def test_what_is_written_wrongly_has_its_remedy(tmp_path: Path, content: str, said: str) -> None:
    assert said in mistake(path=write(tmp_path, content))


def test_a_recipe_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_bytes("title: 唐诗".encode("gbk"))
    assert "not UTF-8\n  -> save it as UTF-8" in mistake(path=path)


def test_a_key_may_stand_in_many_mappings_and_in_a_merged_one(tmp_path: Path) -> None:
    path = write(tmp_path, "inner: {<<: {size: 2, rate: 0.1}, size: 3}\n")
    assert parse_options(Outer, path, []).inner == Inner(size=3, rate=0.1)


def test_all_wrong_keys_of_a_file_are_told(tmp_path: Path) -> None:
    path = write(tmp_path, "titel: a\ninner: {siez: 1, lr: 2}\nparst: 3\n")
    message = mistake(path=path)
    assert message.startswith(f"{path}: 4 mistakes:\n")
    for wrong, meant in (("titel", "title"), ("inner.siez", "inner.size"), ("parst", "parts")):
        assert f"  - there is no option '{wrong}' -> did you mean '{meant}'?" in message
    assert "'inner.lr'" in message


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("pretrain.lr", "pretrain.learning_rate"),
        ("lr", "pretrain.learning_rate"),
        ("sft.batch_size", "sft.batch_tokens"),
        ("sft.num_epochs", "sft.epochs"),
        ("dpo.lora_rank", "dpo.adapter.rank"),
        ("sft.rank", "sft.adapter.rank"),
        ("sft.r", "sft.adapter.rank"),
        ("pretrain", None),
        ("pretrai.tokens", "pretrain.tokens"),
        ("pretrain.xyz", None),
    ],
)
def test_the_words_of_other_programs(key: str, meant: str | None) -> None:
    from miao.recipe import Recipe

    with pytest.raises(MiaoError) as caught:
        parse_options(Recipe, None, [f"--{key}", "1"])
    assert f"did you mean '{meant}'?" in str(caught.value) or meant is None
    assert meant or "did you mean" not in str(caught.value)


def test_dpo_is_called_sigmoid() -> None:
    from miao.recipe import Recipe

    with pytest.raises(MiaoError, match="did you mean 'sigmoid'"):
        parse_options(Recipe, None, ["--dpo.loss", "dpo"])


def test_option_kinds() -> None:
    kinds = option_kinds(Outer)
    assert kinds["inner"] is dict and kinds["inner.names"] is list
    assert kinds["inner.weights"] is dict and kinds["inner.size"] is object
    assert len(kinds) == 7 + 6

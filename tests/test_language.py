"""Messages and help in Chinese: complete, whole, and found again in what was said."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from miao import language
from miao.errors import MiaoError
from miao.language import CATALOGUE, PLACE, Translator, read_catalogue

ROOT = Path(__file__).parent.parent
CHINESE = read_catalogue(CATALOGUE)
HOW = "run: python scripts/messages.py, then write what is empty in miao/locale/zh.po"


@pytest.fixture(scope="module")
def messages() -> ModuleType:
    sys.path.insert(0, str(ROOT / "scripts"))
    return importlib.import_module("messages")


@pytest.fixture
def in_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "_translator", lambda to: Translator(CHINESE))


def test_every_message_help_and_option_has_a_translation(messages: ModuleType) -> None:
    said = messages.collected()
    assert len(said) > 1500
    assert [text for text in said if not CHINESE.get(text)] == [], HOW
    assert sorted(CHINESE.keys() - said.keys()) == [], f"nobody says these any more; {HOW}"


def test_every_verb_has_the_parser_that_speaks_chinese() -> None:
    for path in (ROOT / "miao").rglob("*.py"):
        assert "argparse.ArgumentParser(" not in path.read_text(encoding="utf-8"), path


def test_translations_have_the_places_and_the_indents_of_the_original() -> None:
    wrong = []
    for english, said in CHINESE.items():
        places = [set(PLACE.findall(text)) - {"s"} for text in (english, said)]
        indents = [len(text) - len(text.lstrip(" \n")) for text in (english, said)]
        if places[0] != places[1] or (indents[0] > 1 and indents[0] != indents[1]):
            wrong.append((english, said))
    assert wrong == []


def test_the_collection_finds_what_it_should(messages: ModuleType) -> None:
    tree = ast.parse(
        'def f(n):\n    """A docstring of words."""\n'
        '    raise MiaoError(f"{n} file{\'s\' * (n > 1)} " + f"of {x:>3}", fix="a remedy")\n'
        '    raise ValueError("not for the user")\n'
        '    say("Yes")\n'
        '    warn(hint if (hint := "look at it") else "no file here")\n'
        '    parser.add_argument("--a long", metavar="not this", help="but this")\n'
    )
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = {text for call in calls for text in messages.said_by(call)}
    wanted = {"{1} file{s} of {2}", "a remedy", "Yes", "look at it", "no file here", "but this"}
    assert wanted <= found and "--a long" not in found
    said = {text for text in messages.texts(tree) if messages.is_message(text, False)}
    assert "not for the user" not in said and "A docstring of words." not in said


def test_a_finished_text_finds_its_sentence_again() -> None:
    chinese = Translator(
        {
            "there is no verb '{1}'": "没有“{1}”这个动词",
            "{1} record{s} of {2} left out": "{2} 条中略去 {1} 条",
            "left out by {1}": "被 {1} 略去",
            "the file is empty": "文件是空的",
            "{1}, and {2}": "{1}，以及 {2}",
        }
    )
    assert chinese("there is no verb 'x'") == "没有“x”这个动词"
    assert chinese("1 record of 7 left out") == "7 条中略去 1 条"
    assert chinese("3 records of 7 left out") == "7 条中略去 3 条"
    assert chinese("left out by the file is empty") == "被 文件是空的 略去", "messages in messages"
    assert chinese("a.txt:3: the file is empty\n  -> left out by me") == (
        "a.txt:3: 文件是空的\n  -> 被 me 略去"
    )
    assert chinese("cats, and dogs") == "cats, and dogs", "too few words of its own to be known"
    assert chinese("Once there was a file") == "Once there was a file"
    assert chinese("Look at it: left out by me") == "Look at it: 被 me 略去"
    assert Translator({"it has {1}": "它有 {1}"})("Look at it: it has legs") == (
        "Look at it: it has legs"
    ), "a model may say such things"


@pytest.mark.parametrize(
    ("said", "locale", "expected"),
    [
        ({"MIAO_LANG": "zh"}, {}, "zh"),
        ({"MIAO_LANG": "en"}, {"LANG": "zh_CN.UTF-8"}, "en"),
        ({}, {"LANG": "zh_CN.UTF-8"}, "zh"),
        ({}, {"LC_ALL": "en_US.UTF-8", "LANG": "zh_CN.UTF-8"}, "en"),
        ({}, {"LANGUAGE": "zh_TW:en", "LANG": "de_DE.UTF-8"}, "zh"),
        ({}, {"LANG": "C"}, "en"),
        ({}, {}, "en"),
    ],
)
def test_the_locale_or_the_variable_decides(
    said: dict[str, str], locale: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MIAO_LANG", "LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (said | locale).items():
        monkeypatch.setenv(name, value)
    assert language.language.__wrapped__() == expected


def test_another_language_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIAO_LANG", "klingon")
    with pytest.raises(MiaoError, match="no messages in 'klingon'"):
        language.language.__wrapped__()


def test_help_and_a_mistake_speak_chinese_without_torch(tmp_path: Path) -> None:
    program = """
import sys
from miao.cli import main
for words in (["--help"], ["run", "--help"], ["eval", "--help"], ["chat", "--nonsense"]):
    try:
        main(words)
    except SystemExit:
        pass
print(main(["run", "seedling", "--sft.epoch", "3"]), "torch" in sys.modules)
"""
    environment = os.environ | {"MIAO_LANG": "zh", "PYTHONIOENCODING": "utf-8", "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, env=environment, cwd=tmp_path
    )
    out, err = done.stdout.decode("utf-8"), done.stderr.decode("utf-8")
    assert "用法：miao" in out and "和训练好的模型聊天" in out and "显示这份说明并退出" in out
    assert "配方的所有阶段" in out and "运行的名字；它的目录是" in out and "默认：42）" in out
    assert "给模型做基准测试" in out
    assert "错误：不认识的参数：--nonsense" in err
    assert "没有选项“sft.epoch”\n  -> 是不是想写“sft.epochs”？" in err
    assert out.splitlines()[-1] == "2 False"


def test_chinese_lines_break_at_the_width_and_before_no_stop(in_chinese: None) -> None:
    lines = language._wrapped("（一二三，四五）六七 seven eight，九", 8)
    assert lines == ["（一二三，", "四五）六", "七 seven", "eight，", "九"]
    assert language.in_language(
        MiaoError("the file is empty", where="a", fix="check the pattern")
    ) == ("a: 文件是空的\n  -> 检查通配符")


def test_a_language_that_is_none_is_one_message() -> None:
    asked = os.environ | {"MIAO_LANG": "fr"}
    words = [sys.executable, "-m", "miao", "recipe", "nosuch"]
    done = subprocess.run(words, capture_output=True, text=True, env=asked)
    assert done.returncode == 2 and "MIAO_LANG" in done.stderr and "Traceback" not in done.stderr

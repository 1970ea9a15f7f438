"""`miao chat`: what is kept, forgotten and shown, at a terminal and in a pipe."""

from __future__ import annotations

import argparse
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from miao import chat as chat_module
from miao.chat import Chat, ServerChat, _harmless, start_chat
from miao.cli import main as miao
from miao.corpus.records import Message
from miao.errors import MiaoError
from miao.model import Decoder, save_model
from miao.serve.answer import Piece
from miao.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def directory(
    make_model: Callable[..., Decoder], tokenizer: Tokenizer, tmp_path_factory: Any
) -> Path:
    path: Path = tmp_path_factory.mktemp("chat") / "sprout"
    save_model(make_model(vocab_size=tokenizer.vocab_size), path)
    tokenizer.save(path)
    return path


@pytest.fixture(scope="module")
def roomy(make_model: Callable[..., Decoder], tokenizer: Tokenizer, tmp_path_factory: Any) -> str:
    """A model with a long context that never ends an answer by itself: one direction, which all
    tokens share, outweighs the others, and the tokens that would end it point the other way."""
    path: Path = tmp_path_factory.mktemp("chat") / "long"
    model = make_model(vocab_size=tokenizer.vocab_size, max_position_embeddings=4096)
    table = model.lm_head.weight.data  # tied: the embedding too
    table[:, 0] = 30.0
    table[list(tokenizer.stop_ids), 0] = -30.0
    save_model(model, path)
    tokenizer.save(path)
    return str(path)


def options_of(**given: Any) -> argparse.Namespace:
    defaults: dict[str, Any] = dict.fromkeys(
        ("directory", "server", "server_model", "api_key", "adapter", "prompt", "system")
    )
    defaults |= {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
    defaults |= {"repetition_penalty": 1.0, "max_new_tokens": 8, "seed": None, "device": "cpu"}
    return argparse.Namespace(**defaults | given)


class Scripted(Chat):
    """Says what it is told to say; remembers what it was asked."""

    def __init__(self, *answers: list[Piece | Exception], **given: Any):
        super().__init__(options_of(**given))
        self.answers, self.asked = list(answers), []

    title = "a script"

    def _answer(self, turns: list[Message]) -> Iterator[Piece]:
        self.asked.append([m.content for m in self._with_system(turns)])
        for piece in self.answers.pop(0):
            if isinstance(piece, Exception):
                raise piece
            self._tokens += 1
            yield piece


def text_of(chat: Chat, question: str) -> str:
    return "".join(piece.content for piece in chat.ask(question))


def test_what_is_kept() -> None:
    chat = Scripted(
        [Piece("hm", ""), Piece("", "one")],
        [Piece("", "two"), MiaoError("gone")],
        [Piece("", "thr"), Piece("", "ee")],
        [Piece("", "four")],
    )
    assert text_of(chat, "a") == "one"
    assert chat.messages == [Message("user", "a"), Message("assistant", "one", "hm")]
    with pytest.raises(MiaoError, match="gone"):
        text_of(chat, "b")
    assert len(chat.messages) == 2, "an answer that broke off is asked for again"
    with closing(chat.ask("c")) as pieces:
        next(pieces)  # and Ctrl-C
    assert [m.content for m in chat.messages] == ["a", "one", "c", "thr"]
    assert text_of(chat, "d") == "four"
    assert chat.asked[-1] == ["a", "one", "c", "thr", "d"]


def test_commands(capsys: pytest.CaptureFixture[str]) -> None:
    chat = Scripted([Piece("", "one")], [Piece("", "two")])
    assert chat.command("/again") is None and chat.command("/undo") is None
    text_of(chat, "a")
    assert chat.command("/again") == "a" and not chat.messages
    text_of(chat, "b")
    chat.command("/undo")
    assert not chat.messages
    chat.command("/system be brief")
    assert (chat.system, chat.messages) == ("be brief", [])
    for line in ("/set temperature 0.3", "/set top_k 4", "/set temperature", "/set top_k x"):
        chat.command(line)
    chat.command("/set top_p 7")
    assert (chat.sampling.temperature, chat.sampling.top_k) == (0.3, 4)
    chat.command("/nonsense")
    said = capsys.readouterr().out
    for part in (
        "no question yet",
        "nothing to take back",
        "taken back: b",
        "with a system prompt",
        "/set NAME VALUE",
        "top_k: x is no whole number",
        "top_p must be from 0 to 1",
        "there is no command /nonsense",
    ):
        assert part in said


def test_the_oldest_turns_are_forgotten_and_that_is_said(directory: Path) -> None:
    chat = start_chat(options_of(directory=str(directory), max_new_tokens=16))
    for number in range(6):
        before = len(chat.messages)
        text_of(chat, f"question {number}")
        if chat.notes[2:]:
            break
    assert "context full: the oldest" in chat.notes[2]
    assert len(chat.messages) <= before and chat.messages[0].role == "user"
    with pytest.raises(MiaoError, match="too many"):
        text_of(chat, "long " * 200)
    text_of(chat, "and now?")
    assert chat.messages[-2].content == "and now?", "it goes on"


class Overfull:
    """A server's model with a short context."""

    url, model, context = "http://nowhere/v1", "m", None

    def __init__(self, most: int):
        self.most, self.asked = most, []

    def stream(
        self, messages: list[dict[str, Any]], **settings: Any
    ) -> Generator[Piece, None, None]:
        self.asked.append(len(messages))
        self.settings = settings
        if len(messages) > self.most:
            raise MiaoError("400: 9 tokens are too many for the context of 8 tokens")
        yield Piece("", "fine")


def test_servers_that_refuse_long_conversations(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Overfull(3)
    monkeypatch.setattr("miao.serve.client.ChatClient", lambda *given: client)
    chat = ServerChat(options_of(server="x"))
    for number in range(3):
        assert text_of(chat, str(number)) == "fine"
    assert client.asked == [1, 3, 5, 3] and "oldest question" in chat.notes[2]
    client.most = 0
    with pytest.raises(MiaoError, match="too many"):
        text_of(chat, "?")
    assert len(chat.messages) == 4


def test_a_server_is_told_what_is_not_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Overfull(3)
    monkeypatch.setattr("miao.serve.client.ChatClient", lambda *given: client)
    text_of(ServerChat(options_of(server="x", min_p=0.1, seed=3)), "a")
    usual = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 8}
    assert client.settings == usual | {"min_p": 0.1, "seed": 3}


def test_an_answer_cannot_command_the_terminal() -> None:
    assert _harmless("a\x1b]0;title\x07\x9b2J\x7f\r\n\t你") == "a␛]0;title␇\ufffd2J␡␍\n\t你"


def test_a_question_through_a_pipe(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Answers and nothing else on the standard output."""
    words = ["chat", str(directory), "--temperature", "0", "--max-new-tokens", "4"]
    assert miao([*words, "-p", "hello"]) == 0
    answer = capsys.readouterr().out
    stdin = io.TextIOWrapper(io.BytesIO("hello\n\n\xff你\n".encode("latin-1", "ignore")))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert miao(words) == 0
    said = capsys.readouterr()
    assert said.out.startswith(answer) and said.out.count("\n") >= 2


def test_thoughts_stand_apart(capsys: pytest.CaptureFixture[str]) -> None:
    chat = Scripted([Piece("hm, ", ""), Piece("yes", ""), Piece("", "42")])
    before = chat_module.console.stderr
    chat_module.console.stderr = True
    try:
        chat_module._print_answer(chat, "?")
    finally:
        chat_module.console.stderr = before
    said = capsys.readouterr()
    assert said.out == "42\n" and said.err.strip() == "hm, yes"


class Terminal:
    """`miao chat` at a terminal of its own."""

    def __init__(self, *words: str, **env: str):
        import pty

        master, slave = pty.openpty()
        environment = os.environ | {"TERM": "xterm", "OMP_NUM_THREADS": "1"} | env
        self.process = subprocess.Popen(
            [sys.executable, "-m", "miao", "chat", *words],
            **{name: slave for name in ("stdin", "stdout", "stderr")},
            env=environment,
            start_new_session=True,
            preexec_fn=_own_terminal,
        )
        os.close(slave)
        os.set_blocking(master, False)
        self.master, self.seen = master, ""
        self._bytes = b""

    def write(self, text: str) -> None:
        os.write(self.master, text.encode())

    def wait_for(self, text: str, seconds: float = 300) -> str:
        """Reads until `text` comes; returns what came up to it."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < end, f"no {text!r} in {self.seen!r}"
            self._read()
        before, _, self.seen = self.seen.partition(text)
        return before

    def wait_for_more(self, seconds: float = 300) -> None:
        """Reads until anything comes that can be seen."""
        end = time.monotonic() + seconds
        while not re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", self.seen).strip():
            assert time.monotonic() < end, "silence"
            self._read()

    def _read(self) -> None:
        try:
            self._bytes += os.read(self.master, 65536)
        except BlockingIOError:
            time.sleep(0.02)
        except OSError:  # the other end is closed
            assert self.process.wait(300) is not None
            time.sleep(0.02)
        self.seen += self._bytes.decode(errors="ignore")
        self._bytes = b""

    def close(self) -> int:
        code = self.process.wait(300)
        os.close(self.master)
        return code


def _own_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_conversation_at_a_terminal(roomy: str) -> None:
    words = ["--temperature", "0", "--max-new-tokens", "6"]
    chat = Terminal(roomy, *words, NO_COLOR="1")
    try:
        chat.wait_for("> ")
        chat.write("你好\x7f吗\r")  # a character taken back
        chat.wait_for("tokens/s")
        chat.wait_for("> ")
        chat.write("/undo\r")
        assert "taken back: 你吗" in chat.wait_for("> ")
        chat.write("\x1b[200~one\ntwo\nthree\x1b[201~\r")  # pasted
        chat.wait_for("tokens/s")
        chat.wait_for("> ")
        chat.write("four\\\r")
        chat.wait_for("\r\n")
        chat.write("five\r")
        chat.wait_for("tokens/s")
        chat.wait_for("> ")
        chat.write("/undo\r")
        assert "taken back: four\r\nfive" in chat.wait_for("> ")
        chat.write("/undo\r")
        assert "taken back: one\r\ntwo\r\nthree" in chat.wait_for("> ")
        chat.write("\x03")
        assert "Ctrl-D or /exit leaves" in chat.wait_for("> ")
        chat.write("\x04")
        assert chat.close() == 0
    finally:
        chat.process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_stopping_an_answer(roomy: str) -> None:
    chat = Terminal(roomy, "--temperature", "1", "--max-new-tokens", "4000")
    try:
        chat.wait_for("> ")
        for _ in range(3):
            chat.write("go on\r")
            chat.wait_for("go on\r\n")
            chat.wait_for_more()  # at the prompt Ctrl-C means something else
            chat.process.send_signal(signal.SIGINT)
            chat.wait_for("tokens/s")
            chat.wait_for("> ")
        chat.write("/exit\r")
        assert chat.close() == 0
    finally:
        chat.process.kill()

"""`miao chat`: looking at a model with your own eyes."""

from __future__ import annotations

import argparse
import io
import select
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from rich.markup import escape
from rich.text import Text

from miao.console import console, say
from miao.corpus.records import Message
from miao.errors import MiaoError
from miao.language import translated
from miao.openai_api import api_key
from miao.rundir import find_model
from miao.serve.answer import AnswerParser, Piece, opens_thought
from miao.tokenizer import StreamDecoder, Tokenizer

HELP = """/help            this
/again           another answer to the last question
/undo            take back the last question and answer
/clear           begin a new conversation
/system TEXT     set the system prompt (and begin anew)
/set NAME VALUE  temperature, top_p, top_k, min_p, repetition_penalty, max_new_tokens
/exit            leave (Ctrl-D does too)
Ctrl-C stops an answer; what was said stays. A pasted text may have several lines; a line that ends
with \\ goes on in the next. A space before a / makes it a question."""
SETTINGS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_new_tokens")
"""Options of the command line, and of `/set`."""
PASTE_PAUSE = 0.02
"""Seconds within which the next line of a pasted text is there."""
PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
PICTURES |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


class Chat:
    """A conversation with a model; forgets its oldest turns when the context is full."""

    def __init__(self, options: argparse.Namespace):
        from miao.engine import SamplingOptions

        chosen = {name: getattr(options, name) for name in (*SETTINGS, "seed")}
        self.sampling = SamplingOptions(**chosen)
        self.system = options.system
        self.messages: list[Message] = []
        self.notes: list[str] = []
        """What is to be said of the last answer: its speed, what was left out."""
        self._tokens = self._forgotten = 0

    @property
    def title(self) -> str:
        """What one talks to."""
        raise NotImplementedError

    def ask(self, question: str) -> Generator[Piece, None, None]:
        """Streams the answer. Both turns are kept, also of an answer that is stopped; not of one
        that breaks off with an error."""
        turns = [*self.messages, Message("user", question)]
        answer, began = Piece(), time.perf_counter()
        self._tokens = self._forgotten = 0
        keeps = False
        try:
            for piece in self._answer(turns):
                answer.reasoning += piece.reasoning
                answer.content += piece.content
                if piece:
                    yield piece
            keeps = True
        except (GeneratorExit, KeyboardInterrupt):
            keeps = bool(answer)
            raise
        finally:
            self._note(time.perf_counter() - began)
            if keeps:
                reply = Message("assistant", answer.content, answer.reasoning or None)
                self.messages = [*turns, reply]

    def _note(self, seconds: float) -> None:
        self.notes = [f"{self._tokens} tokens", f"{self._tokens / max(seconds, 1e-9):.0f} tokens/s"]
        if self._forgotten:
            left_out = f"the oldest {self._forgotten} questions" if self._forgotten > 1 else ""
            left_out = left_out or "the oldest question"
            self.notes.append(f"context full: {left_out} and what followed left out")

    def _answer(self, turns: list[Message]) -> Iterator[Piece]:
        """The next turn as it comes; may take old turns out."""
        raise NotImplementedError

    def _forget(self, turns: list[Message]) -> None:
        """Takes the oldest question and its answer out."""
        del turns[:2]
        self._forgotten += 1

    def _with_system(self, turns: list[Message]) -> list[Message]:
        return [Message("system", self.system), *turns] if self.system else turns

    def take_back(self) -> str | None:
        """Takes the last question and its answer out; returns the question."""
        if not self.messages:
            return None
        question = self.messages[-2].content
        self.messages = self.messages[:-2]
        return question

    def command(self, line: str) -> str | None:
        """Does a /command, which is no `/exit`; returns a question that is to be asked again."""
        name, _, rest = line.partition(" ")
        if name == "/again":
            question = self.take_back()
            if question is None:
                say("there is no question yet")
            return question
        if name == "/undo":
            question = self.take_back()
            say("nothing to take back" if question is None else f"taken back: {question}")
        elif name == "/clear":
            self.messages = []
            say("a new conversation")
        elif name == "/system":
            self.system, self.messages = rest.strip() or None, []
            without = "a new conversation, without a system prompt"
            say("a new conversation, with a system prompt" if self.system else without)
        elif name == "/set":
            self._set(rest.split())
        else:
            say(HELP if name == "/help" else f"there is no command {name}; /help lists them")
        return None

    def _set(self, words: list[str]) -> None:
        if words and (len(words) != 2 or words[0] not in SETTINGS):
            say("/set NAME VALUE, as in: /set temperature 0.3")
        elif words:
            name, value = words
            kind = type(getattr(self.sampling, name))
            try:
                self.sampling = replace(self.sampling, **{name: kind(value)})
            except MiaoError as error:
                say(error.what)
            except ValueError:
                whole = f"{name}: {value} is no whole number"
                say(whole if kind is int else f"{name}: {value} is no number")
        say(", ".join(f"{name} {getattr(self.sampling, name)}" for name in SETTINGS))


class LocalChat(Chat):
    """With a model in this process."""

    def __init__(self, directory: Path, options: argparse.Namespace):
        from miao.device import choose_device
        from miao.engine import Engine, pack
        from miao.model import load_model

        super().__init__(options)
        self.tokenizer = Tokenizer.from_directory(directory)
        model = load_model(directory).to(choose_device(options.device))
        stop_ids = frozenset(self.tokenizer.stop_ids)
        self.engine = Engine(pack(model, consume=True), stop_ids, rows=1, reuse_prefixes=True)
        self._title = f"{options.directory}: context {self.engine.context} tokens"

        self.engine.prepare()

    @property
    def title(self) -> str:
        return self._title

    def _answer(self, turns: list[Message]) -> Iterator[Piece]:
        prompt = self._prompt(turns)
        decoder = StreamDecoder(self.tokenizer)
        parser = AnswerParser(in_thought=opens_thought(self.tokenizer, prompt))
        with closing(self.engine.stream(prompt, self.sampling)) as tokens:
            for token in tokens:
                self._tokens += 1
                yield parser.feed(decoder.feed(token))
        yield parser.feed(decoder.flush())
        yield parser.finish()

    def _prompt(self, turns: list[Message]) -> list[int]:
        room = self.engine.context - min(self.sampling.max_new_tokens, self.engine.context // 2)
        template = self.tokenizer.chat_template
        while True:
            ids = template.encode_prompt(self.tokenizer, self._with_system(turns))
            if len(ids) <= room or len(turns) == 1:
                return ids
            self._forget(turns)


class ServerChat(Chat):
    """With a model behind an OpenAI-compatible address."""

    def __init__(self, options: argparse.Namespace):
        from miao.serve.client import ChatClient

        super().__init__(options)
        key = api_key(options.api_key)
        self.client = ChatClient(options.server, key, options.server_model)

    @property
    def title(self) -> str:
        return f"{self.client.model} at {self.client.url}"

    def _answer(self, turns: list[Message]) -> Iterator[Piece]:
        while True:
            try:
                yield from self._stream(turns)
                return
            except MiaoError as error:
                # Every server says it in its own words.
                if self._tokens or len(turns) == 1 or "context" not in str(error):
                    raise
            self._forget(turns)

    def _stream(self, turns: list[Message]) -> Iterator[Piece]:
        sampling, context = self.sampling, self.client.context
        most = sampling.max_new_tokens
        settings = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": most if context is None else min(most, context // 2),
        }
        # Not every server knows the others.
        for name in ("seed", *SETTINGS):
            value = getattr(sampling, name)
            if name not in (*settings, "max_new_tokens") and value != getattr(type(sampling), name):
                settings[name] = value
        messages = [{"role": m.role, "content": m.content} for m in self._with_system(turns)]
        with closing(self.client.stream(messages, **settings)) as pieces:
            for piece in pieces:
                self._tokens += bool(piece)
                yield piece


def start_chat(options: argparse.Namespace) -> Chat:
    """A conversation with a model here or at a server.

    Raises:
        MiaoError: neither or both were named; or what was named is not there.
    """
    if options.adapter is not None and options.server is None:
        return _chat_with_adapter(options)
    if (options.server is None) == (options.directory is None):
        raise MiaoError(
            "name a model directory or a --server, one of them",
            fix="miao chat runs/NAME, or miao chat --server http://127.0.0.1:8000",
        )
    if options.server is not None:
        return ServerChat(options)
    return LocalChat(find_model(options.directory), options)


def _chat_with_adapter(options: argparse.Namespace) -> Chat:
    """With the adapter merged into the model that was named, or else into its own."""
    from miao.export.adapter import adapter_base, merge_adapter, require_adapter

    adapter = Path(options.adapter)
    require_adapter(adapter)
    base = options.directory or adapter_base(adapter)
    if base is None:
        raise MiaoError(
            "the adapter does not say which model it belongs to",
            where=adapter,
            fix="name it: miao chat MODEL --adapter DIR",
        )
    with tempfile.TemporaryDirectory(prefix="miao-chat-") as merged:
        merge_adapter(find_model(base), adapter, Path(merged))
        options.directory = f"{base} with {adapter}"
        return LocalChat(Path(merged), options)


def chat_command(options: argparse.Namespace) -> None:
    """One answer (`-p`), or a conversation until the user leaves.

    Without a terminal to type at, answers alone go to the standard output.
    """
    interactive = options.prompt is None and sys.stdin.isatty()
    console.stderr, before = not interactive, console.stderr
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # what is no text in its encoding is one bad letter
    try:
        chat = start_chat(options)
        if options.prompt is not None:
            _print_answer(chat, options.prompt)
        elif interactive:
            _converse(chat)
        else:
            for line in sys.stdin:
                if line.strip():
                    _print_answer(chat, line.strip())
    finally:
        console.stderr = before


def _converse(chat: Chat) -> None:
    """Questions and commands from the keyboard."""
    _enable_line_editing()
    say(f"{chat.title}. /help for commands.")
    while True:
        try:
            print()
            line: str | None = _read()
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print(translated("\n(Ctrl-D or /exit leaves)"))
            continue
        assert line is not None
        if line.startswith("/") and "\n" not in line:
            if line.split()[0] in ("/exit", "/quit"):
                return
            line = chat.command(line)
        if line is not None and line.strip():
            _print_answer(chat, line.strip(), interactive=True)


def _read() -> str:
    """What is typed, or pasted: lines that are there already belong to it."""
    line = input("> ")
    while line.endswith("\\") or _has_more():
        line = line.removesuffix("\\") + "\n" + input("  ")
    return line


def _has_more() -> bool:
    """Whether more is pasted. Terminals that mark what is pasted give it in one piece."""
    try:
        return bool(select.select([sys.stdin], [], [], PASTE_PAUSE)[0])
    except (OSError, ValueError):  # Windows
        return False


def _print_answer(chat: Chat, question: str, interactive: bool = False) -> None:
    """The answer as it comes; its thoughts are set apart from it.

    Raises:
        MiaoError: there is none; only where nobody sits at the keyboard.
    """
    screen = sys.stdout.isatty()
    stopped = thinks = False
    try:
        with closing(chat.ask(question)) as pieces:
            for piece in pieces:
                if piece.reasoning:
                    console.print(Text(_harmless(piece.reasoning), style="dim italic"), end="")
                    thinks = True
                if piece.content:
                    if thinks:
                        console.print("\n")
                    thinks = False
                    print(_harmless(piece.content) if screen else piece.content, end="", flush=True)
        print()
    except KeyboardInterrupt:
        if not interactive:
            raise
        print()
        stopped = True
    except MiaoError as error:
        if not interactive:
            raise
        say(str(error))
        return
    if interactive:
        notes = ", ".join(["stopped"] * stopped + chat.notes)
        console.print(f"[dim]({escape(translated(notes))})[/]")
    elif len(chat.notes) > 2:
        say(f"({chat.notes[2]})")


def _harmless(text: str) -> str:
    """What a model says cannot command the terminal: control characters become pictures."""
    return text.translate(PICTURES)


def _enable_line_editing() -> None:
    """Arrow keys and history at the prompt, where the platform has readline."""
    try:
        import readline  # noqa: F401
    except ImportError:
        return

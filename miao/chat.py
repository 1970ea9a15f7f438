"""`miao chat`: looking at a model with your own eyes."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from miao.console import console, say
from miao.corpus.records import Message
from miao.errors import MiaoError
from miao.rundir import find_model
from miao.tokenizer import StreamDecoder, Tokenizer

HELP = """/help            this
/clear           begin a new conversation
/system TEXT     set the system prompt (and begin anew)
/set NAME VALUE  temperature, top_p, top_k, repetition_penalty, max_new_tokens
/undo            take back the last question and answer
/exit            leave (Ctrl-D does too)"""
SETTINGS = ("temperature", "top_p", "top_k", "repetition_penalty", "max_new_tokens")


class Chat:
    """A conversation with a model; forgets its oldest turns when the context is full."""

    def __init__(self, options: argparse.Namespace):
        from miao.engine import SamplingOptions

        self.sampling = SamplingOptions(
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            repetition_penalty=options.repetition_penalty,
            max_new_tokens=options.max_new_tokens,
            seed=options.seed,
        )
        self.system = options.system
        self.messages: list[Message] = []
        self.speed = ""
        self._tokens = 0

    @property
    def title(self) -> str:
        """What one talks to."""
        raise NotImplementedError

    def ask(self, question: str) -> Iterator[str]:
        """Streams the answer, and keeps both turns when it is complete."""
        turns = [*self.messages, Message("user", question)]
        answer, began, self._tokens = "", time.perf_counter(), 0
        for piece in self._answer(turns):
            answer += piece
            if piece:
                yield piece
        seconds = max(time.perf_counter() - began, 1e-9)
        self.speed = f"{self._tokens} tokens, {self._tokens / seconds:.0f} tokens/s"
        self.messages = [*turns, Message("assistant", answer)]

    def _answer(self, turns: list[Message]) -> Iterator[str]:
        """The text of the next turn as it comes; may take old turns out."""
        raise NotImplementedError

    def _with_system(self, turns: list[Message]) -> list[Message]:
        return [Message("system", self.system), *turns] if self.system else turns

    def command(self, line: str) -> bool:
        """Does a /command; False: leave."""
        name, _, rest = line.partition(" ")
        if name in ("/exit", "/quit"):
            return False
        if name == "/clear":
            self.messages = []
        elif name == "/undo":
            self.messages = self.messages[:-2]
        elif name == "/system":
            self.system, self.messages = rest.strip() or None, []
        elif name == "/set":
            self._set(rest.split())
        else:
            say(HELP)
        return True

    def _set(self, words: list[str]) -> None:
        if len(words) == 2 and words[0] in SETTINGS:
            kind = type(getattr(self.sampling, words[0]))
            try:
                self.sampling = replace(self.sampling, **{words[0]: kind(words[1])})
            except (ValueError, MiaoError) as error:
                say(str(error))
        say(", ".join(f"{name} {getattr(self.sampling, name)}" for name in SETTINGS))


class LocalChat(Chat):
    """With a model in this process."""

    def __init__(self, directory: Path, options: argparse.Namespace):
        from miao.device import choose_device
        from miao.engine import Engine
        from miao.model import load_model

        super().__init__(options)
        self.tokenizer = Tokenizer.from_directory(directory)
        self.model = load_model(directory).to(choose_device(options.device))
        stop_ids = frozenset(self.tokenizer.stop_ids)
        self.engine = Engine(self.model, stop_ids, rows=1, reuse_prefixes=True)
        self._title = f"{options.directory}: context {self.engine.context} tokens"

    @property
    def title(self) -> str:
        return self._title

    def _answer(self, turns: list[Message]) -> Iterator[str]:
        decoder = StreamDecoder(self.tokenizer)
        for token in self.engine.stream(self._prompt(turns), self.sampling):
            self._tokens += 1
            yield decoder.feed(token)
        yield decoder.flush()

    def _prompt(self, turns: list[Message]) -> list[int]:
        room = self.engine.context - min(self.sampling.max_new_tokens, self.engine.context // 2)
        template = self.tokenizer.chat_template
        while True:
            ids = template.encode_prompt(self.tokenizer, self._with_system(turns))
            if len(ids) <= room or len(turns) == 1:
                return ids
            del turns[:2]


class ServerChat(Chat):
    """With a model behind an OpenAI-compatible address."""

    def __init__(self, options: argparse.Namespace):
        from miao.serve.client import ChatClient

        super().__init__(options)
        key = options.api_key or os.environ.get("MIAO_API_KEY")
        self.client = ChatClient(options.server, key, options.server_model)

    @property
    def title(self) -> str:
        return f"{self.client.model} at {self.client.url}"

    def _answer(self, turns: list[Message]) -> Iterator[str]:
        sampling = self.sampling
        settings = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
        }
        # Not every server knows these.
        if sampling.seed is not None:
            settings["seed"] = sampling.seed
        if sampling.top_k:
            settings["top_k"] = sampling.top_k
        if sampling.repetition_penalty != 1.0:
            settings["repetition_penalty"] = sampling.repetition_penalty
        messages = [{"role": m.role, "content": m.content} for m in self._with_system(turns)]
        for piece in self.client.stream(messages, **settings):
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
    """One answer (`-p`), or a conversation until the user leaves."""
    chat = start_chat(options)
    if options.prompt is not None:
        for piece in chat.ask(options.prompt):
            print(piece, end="", flush=True)
        print()
        return
    interactive = sys.stdin.isatty()
    if interactive:
        _enable_line_editing()
        say(f"{chat.title}. /help for commands.")
    while True:
        try:
            line = input("\n> " if interactive else "").strip()
        except EOFError:
            return
        if line.startswith("/"):
            if not chat.command(line):
                return
        elif line:
            _answer(chat, line, interactive)


def _answer(chat: Chat, line: str, interactive: bool) -> None:
    try:
        for piece in chat.ask(line):
            print(piece, end="", flush=True)
        print()
        if interactive:
            console.print(f"[dim]({chat.speed})[/]")
    except KeyboardInterrupt:
        print("\n(stopped)")
    except MiaoError as error:
        say(str(error))


def _enable_line_editing() -> None:
    """Arrow keys and history at the prompt, where the platform has readline."""
    try:
        import readline  # noqa: F401
    except ImportError:
        return

"""`miao chat` and `miao tokenizer inspect`: looking at a model with your own eyes."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from miao.console import console, say
from miao.corpus.records import Message
from miao.errors import MiaoError
from miao.hubs import local_directory
from miao.rundir import find_model
from miao.tokenizer import (
    StreamDecoder,
    Tokenizer,
    inspect_conversation,
    inspect_text,
    inspect_vocabulary,
    render_inspection,
    render_vocabulary,
)

HELP = """/help            this
/clear           begin a new conversation
/system TEXT     set the system prompt (and begin anew)
/set NAME VALUE  temperature, top_p, top_k, repetition_penalty, max_new_tokens
/undo            take back the last question and answer
/exit            leave (Ctrl-D does too)"""
SETTINGS = ("temperature", "top_p", "top_k", "repetition_penalty", "max_new_tokens")


class Chat:
    """A conversation with a model; forgets its oldest turns when the context is full."""

    def __init__(self, directory: Path, options: argparse.Namespace):
        from miao.device import choose_device
        from miao.engine import Engine, SamplingOptions
        from miao.model import load_model

        self.tokenizer = Tokenizer.from_directory(directory)
        self.model = load_model(directory).to(choose_device(options.device))
        self.engine = Engine(self.model, frozenset(self.tokenizer.stop_ids), rows=1)
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

    def ask(self, question: str) -> Iterator[str]:
        """Streams the answer, and keeps both turns when it is complete."""
        turns = [*self.messages, Message("user", question)]
        prompt = self._prompt(turns)
        decoder = StreamDecoder(self.tokenizer)
        answer, tokens, began = "", 0, time.perf_counter()
        for token in self.engine.stream(prompt, self.sampling):
            tokens += 1
            piece = decoder.feed(token)
            answer += piece
            if piece:
                yield piece
        rest = decoder.flush()
        if rest:
            yield rest
        seconds = max(time.perf_counter() - began, 1e-9)
        self.speed = f"{tokens} tokens, {tokens / seconds:.0f} tokens/s"
        self.messages = [*turns, Message("assistant", answer + rest)]

    def _prompt(self, turns: list[Message]) -> list[int]:
        system = [Message("system", self.system)] if self.system else []
        room = self.engine.context - min(self.sampling.max_new_tokens, self.engine.context // 2)
        while True:
            ids = self.tokenizer.chat_template.encode_prompt(self.tokenizer, system + turns)
            if len(ids) <= room or len(turns) == 1:
                return ids
            del turns[:2]

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


def chat_command(options: argparse.Namespace) -> None:
    """One answer (`-p`), or a conversation until the user leaves."""
    chat = Chat(find_model(options.directory), options)
    if options.prompt is not None:
        for piece in chat.ask(options.prompt):
            print(piece, end="", flush=True)
        print()
        return
    interactive = sys.stdin.isatty()
    if interactive:
        _enable_line_editing()
        say(f"{options.directory}: context {chat.engine.context} tokens. /help for commands.")
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


def inspect_command(options: argparse.Namespace) -> None:
    """Shows tokens of a text, of the first records of a file, or the vocabulary."""
    directory = local_directory(options.directory)
    if not (directory / "tokenizer.json").exists() and (directory / "tokenizer").is_dir():
        directory = directory / "tokenizer"
    tokenizer = Tokenizer.from_directory(directory)
    if options.text is not None:
        console.print(render_inspection(inspect_text(tokenizer, options.text), ids=options.ids))
    elif options.file:
        _inspect_file(tokenizer, options)
    else:
        console.print(render_vocabulary(inspect_vocabulary(tokenizer)))


def _inspect_file(tokenizer: Tokenizer, options: argparse.Namespace) -> None:
    from miao.corpus.formats import read_records

    try:
        records = list(islice(read_records([options.file], "conversation"), options.count))
        shown = [inspect_conversation(tokenizer, record) for record in records]
    except MiaoError:
        documents = islice(read_records([options.file], "document"), options.count)
        shown = [inspect_text(tokenizer, document.text) for document in documents]
    for inspection in shown:
        console.print(render_inspection(inspection, ids=options.ids))

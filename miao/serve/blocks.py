"""An answer as a row of blocks, as newer protocols have it: thoughts, text, calls of functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from miao.serve.answer import Piece
from miao.serve.generation import Growth
from miao.serve.replies import Event, Spoken

Kind = Literal["reasoning", "text", "call"]


@dataclass
class Block:
    """A stretch of one kind."""

    kind: Kind
    index: int
    text: str = ""
    """What it says; of a call, its arguments."""
    name: str = ""
    id: str = ""
    """Of a call."""
    is_cut: bool = False
    """There was no room for more."""


class BlockReply(Spoken):
    """A turn in blocks, one after the other; an answer of nothing is an empty text. Events are
    made by `opened`, `grown` and `closed`."""

    end = ""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.blocks: list[Block] = []

    def opened(self, block: Block) -> list[Event]:
        """The events of a block that begins."""
        raise NotImplementedError

    def grown(self, block: Block, text: str, growth: Growth) -> list[Event]:
        """The events of a block that has gained a text."""
        raise NotImplementedError

    def closed(self, block: Block) -> list[Event]:
        """The events of a block that ends."""
        raise NotImplementedError

    def chunks(self, growth: Growth) -> list[Event]:
        events: list[Event] = []
        for kind, text, call in _parts(self.gained(growth)):
            if not self.blocks or self.blocks[-1].kind != kind or "id" in call:
                events += self._next(kind, call)
            if text:
                self.blocks[-1].text += text
                events += self.grown(self.blocks[-1], text, growth)
        if growth.is_last:
            events += [] if self.blocks else self._next("text", {})
            self.blocks[-1].is_cut = growth.request.finish == "length"
            events += self.closed(self.blocks[-1])
        return events

    def _next(self, kind: Kind, call: dict[str, Any]) -> list[Event]:
        events = self.closed(self.blocks[-1]) if self.blocks else []
        name = call["function"]["name"] if call else ""
        self.blocks.append(Block(kind, len(self.blocks), "", name, call.get("id", "")))
        return events + self.opened(self.blocks[-1])

    def written(self, event: Event) -> str:
        return f"event: {event['type']}\n{super().written(event)}"


def _parts(piece: Piece) -> Iterator[tuple[Kind, str, dict[str, Any]]]:
    if piece.reasoning:
        yield "reasoning", piece.reasoning, {}
    if piece.content:
        yield "text", piece.content, {}
    for call in piece.calls:
        yield "call", call["function"]["arguments"], call

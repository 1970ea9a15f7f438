"""The text of an answer as it comes: whole characters, ending before a stop text."""

from __future__ import annotations

from miao.tokenizer import StreamDecoder, Tokenizer


class TextStream:
    """Turns tokens into text that may be shown at once; a `Watcher` for the scheduler.

    A stop text may span any number of tokens, and begin or end inside one: what could still become
    one is held back until it is decided. One per answer.

    Args:
        stop: texts that end the answer and are no part of it.
        continues: see `StreamDecoder`.
    """

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...] = (), continues: bool = False):
        self._decoder = StreamDecoder(tokenizer, continues=continues)
        self._stop = stop
        self._pending = ""
        self.stopped_by: str | None = None
        """The stop text that ended the answer."""

    @property
    def is_stopped(self) -> bool:
        return self.stopped_by is not None

    def feed(self, token: int) -> bool:
        """Takes the next token; True when a stop text is complete."""
        if not self.is_stopped:
            self._add(self._decoder.feed(token))
        return self.is_stopped

    def take(self) -> str:
        """The text that is certain by now and was not taken before."""
        held = 0 if self.is_stopped else self._held_back()
        cut = len(self._pending) - held
        taken, self._pending = self._pending[:cut], self._pending[cut:]
        return taken

    def finish(self) -> str:
        """What is left when no token follows; half a character becomes U+FFFD."""
        if not self.is_stopped:
            self._add(self._decoder.flush())
        taken, self._pending = self._pending, ""
        return taken

    def _add(self, text: str) -> None:
        self._pending += text
        places = [(self._pending.find(stop), stop) for stop in self._stop]
        found = [(place, stop) for place, stop in places if place >= 0]
        if found:
            place, self.stopped_by = min(found)
            self._pending = self._pending[:place]

    def _held_back(self) -> int:
        """Length of the longest end of the text that is the beginning of a stop text."""
        longest = 0
        for stop in self._stop:
            for size in range(min(len(stop) - 1, len(self._pending)), longest, -1):
                if self._pending.endswith(stop[:size]):
                    longest = size
                    break
        return longest

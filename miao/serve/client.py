"""A client of this or any OpenAI-compatible server."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from miao.errors import MiaoError
from miao.openai_api import NoAnswer, Unreachable, base_url, opened
from miao.serve.answer import Piece

TIMEOUT = 600.0


class ChatClient:
    """Talks to one model of a server.

    Args:
        url: `http://host:port`, with or without `/v1`.
        model: a name of its list; None: the first.

    Raises:
        MiaoError: there is no such server, or no such model there.
    """

    def __init__(self, url: str, api_key: str | None = None, model: str | None = None):
        self.url = base_url(url)
        self._key = api_key
        with self._open("/models") as response:
            try:
                models = {entry["id"]: entry for entry in json.load(response)["data"]}
            except (ValueError, KeyError, TypeError) as error:
                raise MiaoError("this is no OpenAI-compatible server", where=self.url) from error
        if not models or (model is not None and model not in models):
            raise MiaoError(
                f"the server has no model {model or 'at all'!r}",
                where=self.url,
                fix=f"it has: {', '.join(models)}" if models else None,
            )
        self.model = model or next(iter(models))
        self.context: int | None = models[self.model].get("max_model_len")
        """Longest prompt plus answer, in tokens, where the server says it."""

    def stream(
        self, messages: Sequence[dict[str, Any]], **options: Any
    ) -> Generator[Piece, None, None]:
        """The answer as it comes.

        Raises:
            MiaoError: the server refuses, breaks off, or cannot be reached.
        """
        body = {"model": self.model, "messages": list(messages), "stream": True, **options}
        with self._open("/chat/completions", body) as response:
            for line in response:
                data = line.strip().removeprefix(b"data: ")
                if data == b"[DONE]":
                    return
                if not line.startswith(b"data: "):
                    continue
                chunk = json.loads(data)
                if "error" in chunk:
                    raise MiaoError(str(chunk["error"].get("message")), where=self.url)
                for choice in chunk.get("choices", []):
                    delta = choice.get("delta") or {}
                    thought = delta.get("reasoning_content") or delta.get("reasoning")
                    yield Piece(thought or "", delta.get("content") or "")
        raise MiaoError("the server broke off", where=self.url)

    @contextmanager
    def _open(self, path: str, body: dict[str, Any] | None = None) -> Iterator[Any]:
        try:
            with opened(self.url + path, body, self._key, TIMEOUT) as response:
                yield response
        except NoAnswer as error:
            unreachable = "start one with `miao serve MODEL`, or check the address"
            fix = unreachable if isinstance(error, Unreachable) else None
            raise MiaoError(str(error), where=self.url, fix=fix) from error

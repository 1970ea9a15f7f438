"""A client of this or any OpenAI-compatible server; the standard library is enough for it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

from miao.errors import MiaoError

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
        url = url if "://" in url else f"http://{url}"
        self.url = url.rstrip("/").removesuffix("/v1") + "/v1"
        self._key = api_key
        with self._open("/models") as response:
            try:
                names = [entry["id"] for entry in json.load(response)["data"]]
            except (ValueError, KeyError, TypeError) as error:
                raise MiaoError("this is no OpenAI-compatible server", where=self.url) from error
        if not names or (model is not None and model not in names):
            raise MiaoError(
                f"the server has no model {model or 'at all'!r}",
                where=self.url,
                fix=f"it has: {', '.join(names)}" if names else None,
            )
        self.model = model or names[0]

    def stream(self, messages: Sequence[dict[str, Any]], **options: Any) -> Iterator[str]:
        """The answer's text as it comes.

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
                    yield (delta.get("reasoning_content") or "") + (delta.get("content") or "")
        raise MiaoError("the server broke off", where=self.url)

    def _open(self, path: str, body: dict[str, Any] | None = None) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        try:
            return urllib.request.urlopen(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            raise MiaoError(_reason(error), where=self.url) from error
        except (urllib.error.URLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise MiaoError(
                f"the server cannot be reached: {reason}",
                where=self.url,
                fix="start one with `miao serve MODEL`, or check the address",
            ) from error


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return f"{error.code}: {json.load(error)['error']['message']}"
    except (ValueError, KeyError, TypeError):
        return f"the server answers {error.code} {error.reason}"

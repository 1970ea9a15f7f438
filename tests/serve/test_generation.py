"""Answers on their way to the client."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from miao.serve.generation import Generation
from miao.serve.models import Served
from miao.serve.protocol import CompletionBody
from miao.serve.scribe import ids_of
from miao.tokenizer import Tokenizer


@pytest.mark.parametrize("turns", range(6))
def test_a_client_that_hangs_up_as_a_token_comes(turns: int) -> None:
    """In whichever turn of the loop: the answer is given up, not made to its end for nobody."""

    async def hang_up() -> bool:
        request = SimpleNamespace(number=0, error=None, submitted=0.0)
        running = Generation(MagicMock(), MagicMock(), cast(Any, [request]), MagicMock(), 100)

        async def listen() -> None:
            async for _ in running:
                pass

        listening = asyncio.ensure_future(listen())
        for _ in range(3):
            await asyncio.sleep(0)
        event = SimpleNamespace(request=request, token=5, finishes=False)
        running._events.put_nowait((cast(Any, event), "a"))
        for _ in range(turns):
            await asyncio.sleep(0)
        listening.cancel()
        done, _ = await asyncio.wait({listening}, timeout=60)
        return bool(done) and listening.cancelled()

    assert asyncio.run(hang_up())


def test_a_text_prompt_begins_as_the_tokenizer_begins_texts(llama3_tokenizer: Tokenizer) -> None:
    body = CompletionBody(model="m", prompt=["The rain", "今天"])
    begin = llama3_tokenizer.token_to_id("<|begin_of_text|>")
    expected = [[begin, *llama3_tokenizer.encode(text)] for text in ("The rain", "今天")]
    jobs = Served.text_jobs(cast(Any, None), body)
    assert [ids_of(llama3_tokenizer, job) for job in jobs] == expected

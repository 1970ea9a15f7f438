"""Conversations and texts become token ids: in a thread, or by a process of its own.

The process (`python -m miao.serve.scribe DIRECTORY`) is for what may take long or for ever: a chat
template is a program that came with a model, and no thread can be stopped. It reads jobs as lines
of JSON, answers each with a line and the ids behind it, and needs no torch, so that it starts in
half a second.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from array import array
from pathlib import Path
from typing import Any

from miao.errors import MiaoError
from miao.tokenizer import Tokenizer

MEMORY = 4 * 2**30
"""Bytes that the process may take."""
LONGEST = 600
"""Seconds after which a job ends the process, should nobody else do that."""
LONGEST_REFUSAL = 2000
"""Characters."""
ID = "i"
"""The `array` of ids that go to the server."""
Job = dict[str, Any]
"""{"text": ..., "begins": bool}, {"messages": ..., "tools": ..., "thinking": ..., "way": "open",
"close" or "continue"}, or {"ids": ...}, which are."""


def ids_of(tokenizer: Tokenizer, job: Job) -> list[int]:
    """The ids that a job asks for.

    Raises:
        MiaoError: the template refuses the conversation.
    """
    if "ids" in job:
        return list(job["ids"])
    if "text" in job:
        start = tokenizer.document_start if job["begins"] else []
        return [*start, *tokenizer.encode(job["text"])]
    template = tokenizer.chat_template
    conversation = (tokenizer, job["messages"], job["tools"], job["thinking"])
    if job["way"] == "continue":
        return template.encode_continued(*conversation)
    return template.encode_prompt(*conversation, job["way"] == "open")


def main(directory: str) -> None:
    """Answers jobs on the standard streams until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this
    _be_modest()
    tokenizer = Tokenizer.from_directory(Path(directory))
    for line in sys.stdin.buffer:
        if hasattr(signal, "alarm"):
            signal.alarm(LONGEST)
        refusal, ids = None, array(ID)
        try:
            ids = array(ID, ids_of(tokenizer, json.loads(line)))
        except MiaoError as error:
            refusal = str(error)[:LONGEST_REFUSAL]
        except (MemoryError, RecursionError, ArithmeticError, LookupError) as error:
            refusal = f"the chat template failed: {type(error).__name__}"
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        answer = {"refusal": refusal, "count": len(ids)}
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + ids.tobytes())
        sys.stdout.buffer.flush()


def _be_modest() -> None:
    """The engine's threads go first, and memory has an end."""
    if sys.platform == "win32":
        return
    import resource

    os.nice(10)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


if __name__ == "__main__":
    main(sys.argv[1])

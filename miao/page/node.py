"""A page's own engine run by Node.js: what the page says, without a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from miao.errors import MiaoError

TIMEOUT = 600.0
"""Seconds."""


def has_node() -> bool:
    return shutil.which("node") is not None


def run_in_node(page: Path, **requests: Any) -> dict[str, Any]:
    """Answers of the engine in a page.

    Args:
        requests: texts to tokenise; conversations to render and tokenise; prompts (ids) to
            continue greedily by `count` tokens; inspections ({text} or {messages, answer}); logits:
            those behind the prompts are wanted too; samples: {logits, options,
            seen, dice} to draw from; streams: ids to turn into text one by one; plain: by the plain
            JavaScript engine.

    Returns:
        Ids for each, and what `inspect.js` says, under the same names; engine: "wasm" or "js".

    Raises:
        MiaoError: it fails.
    """
    command = ["node", str(Path(__file__).with_name("node.js")), str(page)]
    done = subprocess.run(
        command, input=json.dumps(requests).encode(), capture_output=True, timeout=TIMEOUT
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        reason = next((line for line in said if re.match(r"\w*Error", line)), "no message")
        raise MiaoError(f"the page's engine fails in Node.js: {reason}", where=page)
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers

"""`miao push`: publishes a model on a hub."""

from __future__ import annotations

from collections.abc import Sequence

from miao.hubs import parse_hub_name, push_directory
from miao.language import Parser
from miao.rundir import find_model


def main(words: Sequence[str]) -> int:
    """Runs `miao push MODEL --to HUB:OWNER/NAME`."""
    parser = Parser(
        prog="miao push",
        description="Uploads a model to a hub; needs a token (HF_TOKEN or MODELSCOPE_API_TOKEN).",
    )
    parser.add_argument(
        "model", help="a run directory (runs/NAME), a model directory or a hub name"
    )
    parser.add_argument("--to", required=True, help="hf:owner/name or modelscope:owner/name")
    parser.add_argument("--private", action="store_true", help="create a private repository")
    parser.add_argument("--message", help="the commit message")
    options = parser.parse_args(words)
    name = parse_hub_name(options.to)  # before a model is looked for, which may be a download
    push_directory(
        find_model(options.model), name, private=options.private, message=options.message
    )
    return 0

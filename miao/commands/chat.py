"""`miao chat`: talks to a model, here or at a server."""

from __future__ import annotations

from collections.abc import Sequence

from miao.language import Parser


def main(words: Sequence[str]) -> int:
    """Runs `miao chat MODEL` or `miao chat --server URL`."""
    parser = Parser(
        prog="miao chat",
        description="Talk to a trained model; answers stream as they are made. Inside: /help.",
    )
    parser.add_argument(
        "directory", nargs="?", help="a run directory (runs/NAME) or a model directory"
    )
    parser.add_argument("--server", help="talk to a server at this address instead")
    parser.add_argument("--server-model", help="which of its models (default: its first)")
    parser.add_argument("--api-key", help="its key (default: the variable MIAO_API_KEY)")
    parser.add_argument(
        "--adapter", metavar="DIR", help="with this LoRA adapter (PEFT format); names its own model"
    )
    parser.add_argument("-p", "--prompt", help="ask this once, print the answer, and leave")
    parser.add_argument("--system", help="a system prompt")
    parser.add_argument(
        "--temperature", type=float, default=0.6, help="0: always the likeliest token"
    )
    parser.add_argument("--top-p", type=float, default=0.9, help="nucleus sampling (default 0.9)")
    parser.add_argument("--top-k", type=int, default=0, help="only the k likeliest tokens (0: all)")
    parser.add_argument(
        "--min-p", type=float, default=0.0, help="only tokens of this share of the likeliest's"
    )
    parser.add_argument(
        "--repetition-penalty", type=float, default=1.0, help="above 1: repeat less"
    )
    parser.add_argument("--max-new-tokens", type=int, default=256, help="longest answer")
    parser.add_argument("--seed", type=int, help="makes the answers repeatable")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    options = parser.parse_args(words)
    from miao.chat import chat_command

    chat_command(options)
    return 0

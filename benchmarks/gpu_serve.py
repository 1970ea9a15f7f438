"""Generation on one NVIDIA GPU: Miao with and without CUDA graphs, transformers, and vLLM where it
is installed, on the same random weights.

    python benchmarks/gpu_serve.py --shapes 104m bitbrain-0.6b
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import serve
from common import parser_for, report

ARMS = {
    "transformers bf16": {"engine": "transformers", "weights": "bf16"},
    "miao bf16": {"engine": "miao", "weights": "bf16"},
    "miao bf16, no graphs": {"engine": "miao", "weights": "bf16", "fast": False},
    "vllm bf16": {"engine": "vllm", "weights": "bf16"},
}


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--shapes", nargs="+", default=["26m", "104m"])
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 4, 16, 64])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=4)
    options = parser.parse_args()
    options.llama_packages, options.models = None, None
    options.device, options.clock = "cuda", "wall"
    if options.quick:
        options.shapes, options.streams, options.tokens, options.rounds = ["26m"], [1, 4], 16, 1
    rows = []
    with tempfile.TemporaryDirectory(prefix="miao-bench-") as scratch:
        for shape in options.shapes:
            rows += serve.compare(shape, Path(scratch), options, ARMS, "transformers bf16")
    report("gpu_serve", options, "cuda", serve.COLUMNS, rows)


if __name__ == "__main__":
    main()

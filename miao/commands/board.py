"""`miao board`: runs while they train, in the browser."""

from __future__ import annotations

import argparse
from pathlib import Path

from miao.console import say, warn
from miao.errors import MiaoError, install_hint
from miao.language import Parser
from miao.openai_api import api_key
from miao.serve.listening import BACKLOG, address_of, is_loopback, listen, names_of


def main(words: list[str]) -> int:
    """Runs the command line `miao board ...`; returns when the server has stopped.

    Raises:
        MiaoError: no such directory, a port that is taken.
    """
    options = make_parser().parse_args(words)
    try:
        from miao.serve.board import Runs, create_board
        from miao.serve.running import run_until_stopped
    except ImportError as error:
        raise MiaoError(
            f"the board needs the '{error.name}' package", fix=install_hint("serve")
        ) from error
    directory = Path(options.runs)
    if not directory.is_dir():
        raise MiaoError("there is no such directory", where=directory, fix="miao board runs/")
    key = api_key(options.api_key)
    with listen(options.host, options.port) as listening:
        listening.listen(BACKLOG)
        say(f"{len(Runs(directory).found())} runs of {directory}")
        say(f"  look at them: {address_of(options.host, listening)}/runs      stop: Ctrl-C")
        if key is None and not is_loopback(options.host):
            warn("anybody who can reach this address sees the runs: consider --api-key")
        app = create_board(directory, key, names_of(options.host, options.allow_host))
        run_until_stopped(app, listening, patience=2)
    return 0


def make_parser() -> argparse.ArgumentParser:
    """What `miao board` takes."""
    parser = Parser(
        prog="miao board",
        description="Shows runs while they train: curves, scores, samples, side by side.",
    )
    parser.add_argument("runs", nargs="?", default="runs", help="directory of runs, or one run")
    parser.add_argument("--host", default="127.0.0.1", help="default: this machine only")
    parser.add_argument("--port", type=int, default=8001, help="0: any free one (default 8001)")
    parser.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="also answer to this name, as behind a proxy; repeatable (default: where only this "
        "machine can reach the board, to localhost alone)",
    )
    parser.add_argument(
        "--api-key", help="the page asks for it (default: the variable MIAO_API_KEY)"
    )
    return parser

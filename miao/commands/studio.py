"""`miao studio`: grow, watch, talk to and look inside a model, in the browser."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path

from miao.console import say, warn
from miao.errors import MiaoError, install_hint
from miao.language import Parser
from miao.serve.listening import BACKLOG, address_of, is_loopback, listen, names_of


def main(words: list[str]) -> int:
    """Runs the command line `miao studio ...`; returns when the studio has stopped. What it
    started goes on.

    Raises:
        MiaoError: a directory that cannot be used, a port that is taken.
    """
    options = make_parser().parse_args(words)
    try:
        from miao.serve.running import run_until_stopped
        from miao.studio.app import create_studio
        from miao.studio.place import open_place
    except ImportError as error:
        raise MiaoError(
            f"the studio needs the '{error.name}' package", fix=install_hint("serve")
        ) from error
    texts = tuple(options.texts or [Path("texts")])
    if missing := [path for path in options.texts if not path.is_dir()]:
        raise MiaoError("there is no such directory", where=missing[0])
    place = open_place(options.runs, texts, options.home)
    token = place.token(options.new_token)
    with listen(options.host, options.port) as listening:
        listening.listen(BACKLOG)
        address = f"{address_of(options.host, listening)}/?token={token}"
        say(f"the studio of {options.runs}; texts below {', '.join(map(str, texts))}")
        say(f"  open it: {address}      stop: Ctrl-C (what trains goes on)")
        if not is_loopback(options.host):
            warn("the token travels unencrypted: put a proxy with https before it, or use a tunnel")
        app = create_studio(place, names_of(options.host, options.allow_host), token)
        if options.open:
            webbrowser.open(address)
        run_until_stopped(app, listening, patience=2)
    return 0


def make_parser() -> argparse.ArgumentParser:
    """What `miao studio` takes."""
    parser = Parser(
        prog="miao studio",
        description="Grow a model from your text, watch it learn, talk to every checkpoint of it, "
        "and look inside: all in the browser. Every step shows the command that does the same.",
    )
    parser.add_argument("runs", nargs="?", type=Path, default=Path("runs"), help="where runs go")
    parser.add_argument(
        "--texts",
        metavar="DIR",
        type=Path,
        action="append",
        default=[],
        help="texts below it may be chosen; repeatable, what is dropped goes below the first "
        "(default: texts)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: this machine only")
    parser.add_argument("--port", type=int, default=8002, help="0: any free one (default 8002)")
    parser.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="also answer to this name, as behind a proxy; repeatable",
    )
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    parser.add_argument("--new-token", action="store_true", help="lock out whoever knew the old")
    parser.add_argument(
        "--home",
        metavar="DIR",
        type=Path,
        help="where the studio keeps its token and its list of jobs (default: one for each "
        "directory of runs, below ~/.local/state/miao)",
    )
    return parser

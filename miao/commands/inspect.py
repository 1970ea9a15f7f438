"""`miao inspect`: what goes on inside a model while it reads a text."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miao.console import print_table, say
from miao.errors import MiaoError
from miao.language import Parser
from miao.rundir import RunDir
from miao.tokenizer.inspect import readable

if TYPE_CHECKING:
    from miao.inspect.forward import Without
    from miao.inspect.inspection import Json

SAMPLING = {
    "temperature": (float, "show what is left of the distribution at this temperature"),
    "top-p": (float, "... of the likeliest tokens that together have this share"),
    "top-k": (int, "... of the k likeliest"),
    "min-p": (float, "... of tokens at least this likely, as a share of the likeliest"),
    "repetition-penalty": (float, "... after dividing the scores of what was said before"),
    "presence-penalty": (float, "... after lowering what was said before"),
    "frequency-penalty": (float, "... once for each time"),
}
GUESSES = 3
SHOWN = 10


def main(words: Sequence[str]) -> int:
    """Runs `miao inspect MODEL TEXT` or `miao inspect RUN --row STAGE`."""
    options = make_parser().parse_args(words)
    if (options.text is None) == (options.row is None):
        raise MiaoError("give a text, or --row STAGE", fix='miao inspect MODEL "text"')
    found = _row(options) if options.row else _inspection(options)
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
    elif options.row:
        _show_row(found)
    else:
        _show(found, options)
    return 0


def make_parser() -> argparse.ArgumentParser:
    """What `miao inspect` takes."""
    parser = Parser(
        prog="miao inspect",
        description="Shows what goes on inside a model: how surprising every token of a text is, "
        "what else was likely, what each layer would guess, what changes without a part of it.",
        epilog='for example: miao inspect runs/seedling "四川的省会是成都" --place 5 --top-p 0.9',
    )
    parser.add_argument(
        "model", help="runs/NAME, a model directory, a hub name, or a checkpoint's directory"
    )
    parser.add_argument("text", nargs="?", help="the text to look at")
    parser.add_argument(
        "--answer",
        metavar="TEXT",
        help="take the text as a user's message and look at this answer to it",
    )
    parser.add_argument(
        "--against", metavar="MODEL", help="where another model of the same tokens differs (KL)"
    )
    parser.add_argument(
        "--without",
        metavar="PART",
        action="append",
        default=[],
        help="switch off layer:2, head:2.1 (layer.head) or token:5, all counted from 1, and show "
        "what changes; repeatable",
    )
    parser.add_argument(
        "--place", type=int, help="show all about the guess of this token (0: what comes next)"
    )
    parser.add_argument(
        "--row",
        metavar="STAGE[:N]",
        help="show row N (from 0) that a stage of the run trains on instead",
    )
    parser.add_argument("--heldout", action="store_true", help="with --row: of held-out text")
    parser.add_argument(
        "--json", action="store_true", help="all of it, in the form of POST /v1/inspect"
    )
    for name, (kind, text) in SAMPLING.items():
        parser.add_argument(f"--{name}", type=kind, help=text)
    return parser


def _inspection(options: argparse.Namespace) -> Json:
    from miao.inspect.inspection import Show, inspect, most_tokens
    from miao.inspect.models import load
    from miao.inspect.text import ids_of, require_same_tokens

    model, tokenizer = load(options.model)
    against = None
    if options.against:
        against, theirs = load(options.against)
        require_same_tokens(tokenizer, theirs, Path(options.against))
    show = Show(attention=options.json)
    most = most_tokens(model, show)
    if options.answer is None:
        ids, prompt = ids_of(tokenizer, options.text)
    else:
        asked = [{"role": "user", "content": options.text}]
        ids, prompt = ids_of(tokenizer, messages=asked, answer=options.answer, most=most)
    if options.place is not None or _sampling(options):
        show = Show(whole=_place(options, min(len(ids), most)) - 1, attention=options.json)
    return inspect(model, tokenizer, ids, prompt, show, against, _without(options.without))


def _place(options: argparse.Namespace, tokens: int) -> int:
    """The token whose guess is shown, counted from 0; one past the last: what comes next."""
    place = options.place or tokens + 1
    if not 2 <= place <= tokens + 1:
        raise MiaoError(
            f"there is no guess of token {place}: they are 2 to {tokens}, and 0 for what comes "
            "next",
            where="--place",
        )
    return place - 1


def _without(parts: Sequence[str]) -> Without | None:
    """`layer:2`, `head:2.1`, `token:5`, counted from 1."""
    from miao.inspect.forward import Without

    found: dict[str, list[Any]] = {"layer": [], "head": [], "token": []}
    for part in parts:
        kind, _, number = part.partition(":")
        numbers = number.split(".")
        if kind not in found or len(numbers) != 1 + (kind == "head"):
            numbers = [""]
        if not all(each.isdecimal() and int(each) > 0 for each in numbers):
            raise MiaoError(
                f"--without {part} is no part of a model",
                fix="layer:2, head:2.1 (of layer 2 the first) or token:5; they count from 1",
            )
        places = tuple(int(each) - 1 for each in numbers)
        found[kind].append(places if kind == "head" else places[0])
    if not parts:
        return None
    return Without(tuple(found["token"]), tuple(found["layer"]), tuple(found["head"]))


def _sampling(options: argparse.Namespace) -> dict[str, Any]:
    names = [name.replace("-", "_") for name in SAMPLING]
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _row(options: argparse.Namespace) -> Json:
    from miao.inspect.models import load, recipe_of
    from miao.inspect.rows import packed_row

    run = RunDir(Path(options.model))
    stage, _, number = options.row.partition(":")
    if number and not number.isdecimal():
        raise MiaoError(f"--row {options.row}: {number} is no number of a row", fix="sft:0")
    model = load(run.path)[0] if run.last_model() else None
    split: Any = "heldout" if options.heldout else "train"
    return packed_row(run, recipe_of(run), stage, int(number or 0), split, model=model)


def _bits(logprob: float) -> str:
    return f"{-logprob / math.log(2):.1f}"


def _guess(guess: dict[str, Any]) -> str:
    return f"{_piece(guess)} {math.exp(guess['logprob']):.0%}"


def _piece(token: dict[str, Any]) -> str:
    return readable(bytes(token["bytes"])) or "∅"


def _show(found: Json, options: argparse.Namespace) -> None:
    other = found["other"]
    columns = ["#", "token", "expected", "id", "bits", "rank"]
    columns += ["KL", "bits then"] if other else []
    rows = []
    for number, token in enumerate([*found["tokens"], None]):
        guess = found["places"][number - 1] if number else None
        following = guess and guess["next"]
        row = [str(number + 1) if token else "", _piece(token) if token else "(next)"]
        row.append("  ".join(map(_guess, guess["likeliest"][:GUESSES])) if guess else "")
        row.append(str(token["id"]) if token else "")
        row += [_bits(following["logprob"]), str(following["rank"])] if following else ["", ""]
        if other:
            then = other["places"][number - 1]["next"] if number else None
            row.append(f"{other['kl'][number - 1]:.3f}" if number else "")
            row.append(_bits(then["logprob"]) if then else "")
        rows.append(row)
    print_table("how surprising every token was, and what was expected", columns, rows, 3)
    if found["cut"]:
        say(f"The text is longer: these are its first {len(found['tokens'])} tokens.")
    known = [place["next"]["logprob"] for place in found["places"] if place["next"]]
    if known:
        say(f"{-sum(known) / len(known):.3f} nats per token")
    if found["whole"]:
        _show_place(found, options)


def _show_place(found: Json, options: argparse.Namespace) -> None:
    at = found["whole"]["place"]
    place = found["places"][at]
    texts = {guess["id"]: guess for guess in place["likeliest"]}
    left: dict[int, float] = {}
    if sampling := _sampling(options):
        left = _left(found, sampling)
    rows = [
        [
            _piece(guess),
            f"{math.exp(guess['logprob']):.2%}",
            *([f"{left.get(id, 0):.2%}"] if sampling else []),
        ]
        for id, guess in texts.items()
    ]
    columns = ["token", "probability", *(["is drawn"] if sampling else [])]
    what = "what comes next" if place["next"] is None else f"token {at + 2}"
    print_table(f"{what}: the likeliest", columns, rows)
    if sampling:
        say(f"{len(left):,} of {len(found['whole']['logprobs']):,} tokens can be drawn")
    rows = []
    for number, layer in enumerate(place["layers"], 1):
        experts = "  ".join(f"{n + 1} ({weight:.2f})" for n, weight in layer["experts"] or [])
        rows.append([str(number), "  ".join(map(_guess, layer["likeliest"])), experts])
        rows[-1].append(f"{layer['size']:.3g}")
    print_table("the guess after each layer", ["layer", "guess", "experts", "stream"], rows, 3)


def _left(found: Json, sampling: dict[str, Any]) -> dict[int, float]:
    """Probability of each token that can be drawn."""
    import torch

    from miao.engine.sampling import Draw, SamplingOptions, distribution

    chosen = SamplingOptions(**{"temperature": 1.0} | sampling)
    logprobs_v = torch.tensor(found["whole"]["logprobs"], dtype=torch.float32)
    ids = [token["id"] for token in found["tokens"][: found["whole"]["place"] + 1]]
    draw = Draw(chosen, ids, len(logprobs_v), logprobs_v.device)
    for id in ids[found["prompt"] :]:
        draw.note(id)
    left, shares = distribution(logprobs_v, draw)
    return dict(zip(left.tolist(), shares.tolist(), strict=True))


def _show_row(found: Json) -> None:
    rows = []
    for number, document in enumerate(found["documents"], 1):
        slots = [slot for slot in found["slots"] if slot["document"] == number]
        known = [slot["logprob"] for slot in slots if slot["logprob"] is not None]
        text = "".join(map(_piece, slots[:SHOWN])) + ("…" if len(slots) > SHOWN else "")
        learned = sum(slot["learned"] for slot in slots)
        loss = f"{-sum(known) / len(known):.3f}" if known else ""
        rows.append([document["source"], text, f"{len(slots)}", f"{learned}", loss])
    print_table(
        f"row {found['row']} of {found['stage']}, {found['split']}",
        ["source", "begins", "tokens", "learned", "loss"],
        rows,
        2,
    )
    padding = sum(slot["document"] == 0 for slot in found["slots"])
    say(f"{len(found['slots'])} slots, {padding} of them padding. Every token of it: --json")

"""The studio's application: its rooms, behind one door."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI

from miao import __version__
from miao.serve.board import add_board
from miao.serve.guard import Gate, Guard
from miao.serve.invalid import add_error_handlers
from miao.serve.pages import WEB, add_pages
from miao.studio.data import add_data
from miao.studio.door import Door
from miao.studio.grow import add_grow
from miao.studio.inside import add_inside
from miao.studio.jobs import Jobs
from miao.studio.place import Place
from miao.studio.talk import add_talk

OWN_WEB = Path(__file__).parent / "web"
STREAMED = frozenset({"/studio/upload"})


@dataclass(frozen=True)
class Room:
    """A page and what it asks.

    Args:
        path: where the page stands. page: its file in `web/`, of the studio or of the server.
        word: key of what links to it say (`serve/web/words.js`).
        add: adds the routes that the page asks, below a path of its own.
        part: name of a script and a style of the studio's that a server's page gets here.
    """

    path: str
    page: str
    word: str
    add: Callable[[FastAPI, Place], None]
    part: str | None = None


def _add_watch(app: FastAPI, place: Place) -> None:
    add_board(app, place.runs)


ROOMS = (
    Room("/", "grow.html", "grow", add_grow),
    Room("/runs", "board.html", "watch", _add_watch),
    Room("/chat", "chat.html", "talk", add_talk, "talk"),
    Room("/inside", "inside.html", "inside", add_inside),
    Room("/data", "data.html", "data", add_data),
)
"""In the order of the links."""


def create_studio(
    place: Place, hosts: frozenset[str] | None = None, token: str | None = None
) -> FastAPI:
    """The application over a place.

    Args:
        hosts: names by which it may be called (`Gate`). token: default: the place's.
    """
    app = FastAPI(title="Miao", version=__version__, openapi_url=None)
    app.state.jobs = Jobs(place)  # one queue, whichever room adds to it
    for room in ROOMS:
        room.add(app, place)
    pages = {room.path: room.page for room in ROOMS}
    parts = {room.path: room.part for room in ROOMS if room.part}
    add_pages(app, pages, {room.path: room.word for room in ROOMS}, (WEB, OWN_WEB), parts)
    add_error_handlers(app)
    app.add_middleware(Door, token=token or place.token())
    app.add_middleware(Guard, gate=Gate(hosts=hosts, streamed=STREAMED))
    return app

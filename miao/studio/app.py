"""The studio's application: its rooms, behind one door."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fastapi import FastAPI

from miao import __version__
from miao.serve.board import add_board
from miao.serve.guard import Gate, Guard
from miao.serve.invalid import add_error_handlers
from miao.serve.pages import BOARD_PAGE, CHAT_PAGE, WEB, Page, add_pages
from miao.studio.data import add_data
from miao.studio.door import Door
from miao.studio.grow import add_grow
from miao.studio.inside import Reader, add_inside
from miao.studio.jobs import Jobs
from miao.studio.place import Place
from miao.studio.talk import add_talk

OWN_WEB = Path(__file__).parent / "web"
FOLDERS = (WEB, OWN_WEB, Path(__file__).parents[1] / "page")
"""The glass box is the offline page's."""
STREAMED = frozenset({"/studio/upload"})
INSIDE_STYLES = ("style", "studio", "glass", "inside")


@dataclass(frozen=True)
class Room:
    """A page, and (`add`) the routes that it asks, below a path of its own."""

    path: str
    page: Page
    add: Callable[[FastAPI, Place], None]


def _add_watch(app: FastAPI, place: Place) -> None:
    add_board(app, place.runs)


_BOARD, _CHAT = BOARD_PAGE["/runs"], CHAT_PAGE["/"]
ROOMS = (
    Room("/", Page("grow.html", "grow", ("grow",), ("style", "studio")), add_grow),
    Room("/runs", replace(_BOARD, word="watch"), _add_watch),
    Room(
        "/chat",
        replace(_CHAT, word="talk", scripts=("chat", "talk"), styles=("temml", "style", "talk")),
        add_talk,
    ),
    Room("/inside", Page("inside.html", "inside", ("inside",), INSIDE_STYLES), add_inside),
    Room("/data", Page("data.html", "data", ("data",), INSIDE_STYLES), add_data),
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
    app.state.reader = Reader(place)
    for room in ROOMS:
        room.add(app, place)
    add_pages(app, {room.path: room.page for room in ROOMS}, FOLDERS)
    add_error_handlers(app)
    app.add_middleware(Door, token=token or place.token())
    app.add_middleware(Guard, gate=Gate(hosts=hosts, streamed=STREAMED))
    return app

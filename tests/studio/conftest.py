"""A studio over empty directories."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from miao.serve.listening import LOCAL_NAMES
from miao.studio.app import create_studio
from miao.studio.place import Place, open_place

TOKEN = "the-token-of-this-test"
HERE = "http://127.0.0.1:8002"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "texts").mkdir()
    return open_place(tmp_path / "runs", (tmp_path / "texts",), tmp_path / "home")


@pytest.fixture
def enter(place: Place) -> Callable[..., TestClient]:
    """A client of the studio; `known`: it has come by the first address."""

    def client(known: bool = True, **options: Any) -> TestClient:
        app = create_studio(place, LOCAL_NAMES, TOKEN)
        one = TestClient(app, base_url=HERE, **options)
        if known:
            assert one.get(f"/?token={TOKEN}").status_code == 200
        return one

    return client

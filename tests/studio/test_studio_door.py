"""Who comes into the studio, and what leaves its directories."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from miao.commands.studio import main
from miao.errors import MiaoError
from miao.serve.problems import Problem
from miao.studio.app import ROOMS
from miao.studio.place import Place, checked_name, home_of
from tests.studio.conftest import HERE, TOKEN

Enter = Callable[..., Any]
PATHS = ("/", "/runs/data", "/web/style.css", "/web/words.js", "/nothing", "/openapi.json")


@pytest.mark.parametrize("path", PATHS)
def test_without_the_token_there_is_nothing_to_see(enter: Enter, path: str) -> None:
    client = enter(known=False)
    for headers in ({}, {"Authorization": "Bearer no"}, {"Cookie": "miao-studio-8002=no"}):
        assert client.get(path, headers=headers).status_code == 401
    assert client.get(f"{path}?token=no").status_code == 401
    page = client.get(path, headers={"Accept": "text/html"})
    assert (
        page.status_code == 401 and "default-src 'none'" in page.headers["content-security-policy"]
    )


def test_the_first_address_leaves_a_cookie_and_no_token_behind(enter: Enter) -> None:
    client = enter(known=False, follow_redirects=False)
    answer = client.get(f"/?token={TOKEN}&run=a")
    assert answer.status_code == 303 and answer.headers["location"] == "/?run=a"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "miao-studio-8002=" in cookie
    assert client.get("/").status_code == 200
    assert client.get("/runs/data").status_code == 200
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert enter(known=False).get("/runs/data", headers=bearer).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_another_web_page_can_neither_read_nor_change(
    enter: Enter, headers: dict[str, str]
) -> None:
    client = enter()
    for method in ("GET", "POST", "DELETE", "PUT"):
        assert client.request(method, "/runs/data", headers=headers, json={}).status_code == 403
    assert client.get("/runs/data", headers={"Origin": HERE}).status_code == 200


def test_every_room_links_to_all_and_loads_only_what_is_there(enter: Enter) -> None:
    client = enter()
    for room in ROOMS:
        page = client.get(room.path)
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert f'href="{room.path}" data-say="{room.page.word}" aria-current=page' in page.text or (
            len(ROOMS) == 1
        )
        assert "<script>" not in page.text and " style=" not in page.text
        loaded = re.findall(r'(?:href|src)="(/web/[^"]+)"', page.text)
        assert [url.rpartition(".")[2] for url in loaded] == ["css", "js"]
        assert all(client.get(url).status_code == 200 for url in loaded)


def test_no_path_leaves_the_roots(place: Place, tmp_path: Path) -> None:
    inside = tmp_path / "texts" / "a.txt"
    inside.write_text("a")
    (tmp_path / "secret").write_text("s")
    (tmp_path / "texts" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "texts" / "up").symlink_to(tmp_path)
    assert place.text(str(inside)) == inside.resolve()
    for outside in ("secret", "texts/link", "texts/up/secret", "texts/../secret", "textsx"):
        with pytest.raises(Problem, match="--texts"):
            place.text(str(tmp_path / outside))
    for odd in ("/etc/passwd", "\0", "a" * 5000, "~/x"):
        with pytest.raises(Problem):
            place.text(odd)


@pytest.mark.parametrize("name", ["..", "a/b", "-rf", "", ".hidden", "a\\b", "a\n", "x" * 81, "a."])
def test_no_name_is_a_path_or_an_option(name: str) -> None:
    with pytest.raises(Problem):
        checked_name(name)
    assert checked_name("小禾-2.1_b") == "小禾-2.1_b"


def test_the_token_is_kept_from_others_and_stays(place: Place) -> None:
    token = place.token()
    assert len(token) > 40 and place.token() == token != place.token(new=True)
    if os.name != "nt":
        assert stat.S_IMODE((place.home / "token").stat().st_mode) == 0o600
    assert not home_of(place.runs).is_relative_to(place.runs)


def test_a_studio_of_no_texts_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MiaoError, match="no such directory"):
        main([str(tmp_path / "runs"), "--texts", str(tmp_path / "none")])


def test_a_studio_at_rest_loads_no_torch() -> None:
    """It waits beside a training, whose memory it must not take."""
    code = "import sys, miao.studio.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

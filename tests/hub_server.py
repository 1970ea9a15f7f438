"""A stand-in for Hugging Face and ModelScope on this machine: as much of both as the clients use.

Repositories live in memory. Every request is noted, tokens can be refused, and a transfer can be
cut in the middle. Large files of the Hugging Face side are served from another host name, as the
real one serves them from a content network.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Files = dict[str, bytes]
LARGE = ".safetensors"


@dataclass
class Repository:
    """Files by revision name; every state is kept under its hash, as a commit."""

    private: bool = False
    gated: bool = False
    revisions: dict[str, Files] = field(default_factory=lambda: {"main": {}, "master": {}})

    def put(self, files: Files, *, tag: str | None = None) -> Repository:
        names = [tag] if tag else ["main", "master"]
        self.revisions |= dict.fromkeys([*names, commit_of(files)], files)
        return self

    @property
    def files(self) -> Files:
        return self.revisions["main"]


def commit_of(files: Files) -> str:
    digest = hashlib.sha1()
    for path in sorted(files):
        digest.update(path.encode() + b"\0" + files[path] + b"\0")
    return digest.hexdigest()


class HubServer:
    """`with HubServer() as hub:` serves at `hub.url` until the block ends."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.tokens = {"hf_writing": ("me", "write"), "hf_reading": ("me", "read")}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.commits: list[dict[str, Any]] = []
        self.cuts: dict[str, list[int]] = {}
        self.down = False
        hub = self

        class Handler(_Handler):
            server_state = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.content_url = f"http://localhost:{self.port}"

    def __enter__(self) -> HubServer:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, name: str, files: Files, **settings: Any) -> Repository:
        self.repositories[name] = Repository(**settings).put(files)
        return self.repositories[name]

    def paths(self, method: str) -> list[str]:
        return [path for verb, path, _ in self.requests if verb == method]


class _Answer(Exception):
    """An HTTP error to answer with."""

    def __init__(self, status: int, code: str = "", message: str = "refused"):
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: HubServer

    def log_message(self, *words: object) -> None:
        pass

    def handle_any(self) -> None:
        hub, parts = self.server_state, urlsplit(self.path)
        path, self.query = unquote(parts.path), parse_qs(parts.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {key.title(): value for key, value in self.headers.items()}
        hub.requests.append((self.command, path, headers))
        try:
            if hub.down:
                raise _Answer(503)
            for pattern, method, answer in ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in method:
                    answer(self, **match.groupdict())
                    return
            raise _Answer(404, "EntryNotFound")
        except _Answer as error:
            self.reply(
                {"error": error.message, "Code": error.status, "Message": error.message},
                error.status,
                {"X-Error-Code": error.code, "X-Error-Message": error.message},
            )

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def reply(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send(
            json.dumps(value).encode(),
            status,
            {"Content-Type": "application/json"} | (headers or {}),
        )

    def send(
        self, content: bytes, status: int, headers: dict[str, str], cut: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content if cut is None else content[:cut])
        if cut is not None:
            self.close_connection = True

    def send_file(self, path: str, content: bytes, headers: dict[str, str] | None = None) -> None:
        """The whole file or the range asked for; cut short when the hub is told to."""
        headers = {"Accept-Ranges": "bytes"} | (headers or {})
        status, start = 200, 0
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start = int(wanted[1])
            end = int(wanted[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            status, content = 206, content[start : end + 1]
        cuts = self.server_state.cuts.get(path, [])
        cut = cuts.pop(0) if cuts and self.command == "GET" else None
        self.send(content, status, headers, cut)

    def user(self, *, must: bool = False) -> tuple[str, str] | None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in self.server_state.tokens:
            raise _Answer(401, message="Invalid credentials in Authorization header")
        if must and not token:
            raise _Answer(401, message="Invalid username or password.")
        return self.server_state.tokens.get(token)

    def repository(self, name: str) -> Repository:
        user, found = self.user(), self.server_state.repositories.get(name)
        if found is None or (found.private and (user is None or user[0] != name.split("/")[0])):
            raise _Answer(404 if user else 401, "RepoNotFound", "Repository not found")
        if found.gated:
            raise _Answer(403, "GatedRepo", "Access to this model is restricted")
        return found

    def files(self, name: str, revision: str) -> Files:
        revisions = self.repository(name).revisions
        if revision not in revisions:
            raise _Answer(404, "RevisionNotFound", "Invalid rev id: " + revision)
        return revisions[revision]

    def writer(self, name: str) -> Repository:
        user = self.user(must=True)
        assert user is not None
        if user != (name.split("/")[0], "write"):
            raise _Answer(403, message="You have no right to write here")
        return self.repository(name)


def whoami(to: _Handler) -> None:
    user = to.user(must=True)
    assert user is not None
    to.reply(
        {"type": "user", "name": user[0], "orgs": [], "auth": {"accessToken": {"role": user[1]}}}
    )


def create(to: _Handler) -> None:
    asked = json.loads(to.body)
    user = to.user(must=True)
    name = f"{asked['organization'] or user[0]}/{asked['name']}"
    if user != (name.split("/")[0], "write"):
        raise _Answer(403, message="You have no right to create a repository here")
    status = 409 if name in to.server_state.repositories else 200
    if status == 200:
        private = asked.get("private") or asked.get("visibility") == "private"
        to.server_state.add(name, {}, private=private)
    to.reply({"url": f"{to.server_state.url}/{name}", "name": name}, status)


def large(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def info(to: _Handler, name: str, revision: str = "main") -> None:
    files = to.files(name, revision)
    siblings = [{"rfilename": path, "size": len(content)} for path, content in files.items()]
    private = to.repository(name).private
    to.reply({"id": name, "sha": commit_of(files), "private": private, "siblings": siblings})


def tree(to: _Handler, name: str, revision: str) -> None:
    entries = []
    for path, content in to.files(name, revision).items():
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content)}
        entry["oid"] = git_oid(content)
        if path.endswith(LARGE):
            entry["lfs"] = {
                "oid": large(content)["sha256"],
                "size": len(content),
                "pointerSize": 130,
            }
        entries.append(entry)
    to.reply(entries)


def resolve(to: _Handler, name: str, revision: str, path: str) -> None:
    files = to.files(name, revision)
    if path not in files:
        raise _Answer(404, "EntryNotFound", "Entry not found")
    content, headers = files[path], {"X-Repo-Commit": commit_of(files)}
    if not path.endswith(LARGE):
        to.send_file(path, content, headers | {"ETag": f'"{git_oid(content)}"'})
        return
    oid = large(content)["sha256"]
    to.server_state.blobs[oid] = content
    headers |= {"X-Linked-ETag": f'"{oid}"', "X-Linked-Size": str(len(content))}
    to.send(b"", 302, headers | {"Location": f"{to.server_state.content_url}/content/{oid}/{path}"})


def content(to: _Handler, oid: str, path: str) -> None:
    to.send_file(path, to.server_state.blobs[oid], {"ETag": f'"{oid}"'})


def preupload(to: _Handler, name: str) -> None:
    to.writer(name)
    files = json.loads(to.body)["files"]
    modes = [
        {
            "path": file["path"],
            "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
            "shouldIgnore": False,
        }
        for file in files
    ]
    to.reply({"files": modes})


def batch(to: _Handler, name: str) -> None:
    """Where to send large files; nothing for those that are here already."""
    to.writer(name)
    objects = []
    for item in json.loads(to.body)["objects"]:
        upload = {"href": f"{to.server_state.url}/blobs/{item['oid']}", "header": {}}
        here = item["oid"] in to.server_state.blobs
        objects.append(item if here else item | {"actions": {"upload": upload}})
    to.reply({"objects": objects, "transfer": "basic", "Data": {"objects": objects}})


def put_blob(to: _Handler, oid: str) -> None:
    assert hashlib.sha256(to.body).hexdigest() == oid
    to.server_state.blobs[oid] = to.body
    to.reply({})


def commit(to: _Handler, name: str) -> None:
    repository, header = to.writer(name), {}
    files = dict(repository.files)
    for line in to.body.decode().splitlines():
        item = json.loads(line)
        value = item["value"]
        if item["key"] == "header":
            header = value
        elif item["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif item["key"] == "lfsFile":
            files[value["path"]] = to.server_state.blobs[value["oid"]]
        elif item["key"] == "deletedFile":
            del files[value["path"]]
    repository.put(files)
    to.server_state.commits.append(header)
    oid = commit_of(files)
    to.reply(
        {
            "success": True,
            "commitOid": oid,
            "commitUrl": f"{to.server_state.url}/{name}/commit/{oid}",
        }
    )


def ms_user(to: _Handler) -> None:
    user = to.user(must=True)
    assert user is not None
    to.reply({"success": True, "data": {"username": user[0]}})


def ms_info(to: _Handler, name: str) -> None:
    visibility = 1 if to.repository(name).private else 5
    data = {"Name": name.split("/")[1], "Path": name.split("/")[0], "Visibility": visibility}
    to.reply({"Code": 200, "Data": data})


def ms_create(to: _Handler) -> None:
    asked = json.loads(to.body)
    name = f"{asked['Path']}/{asked['Name']}"
    if to.user(must=True) != (asked["Path"], "write"):
        raise _Answer(403, message="no permission")
    if name in to.server_state.repositories:
        raise _Answer(400, message="the repository already exists")
    to.server_state.add(name, {}, private=asked["Visibility"] == 1)
    to.reply({"Code": 200, "Data": asked})


def ms_files(to: _Handler, name: str) -> None:
    files = to.files(name, to.query["Revision"][0])
    entries = [
        {
            "Path": path,
            "Type": "blob",
            "Size": len(content),
            "Sha256": hashlib.sha256(content).hexdigest(),
        }
        for path, content in files.items()
    ]
    to.reply({"Code": 200, "Data": {"Files": entries}})


def ms_file(to: _Handler, name: str) -> None:
    path = to.query["FilePath"][0]
    to.send_file(path, to.files(name, to.query["Revision"][0])[path])


def ms_commit(to: _Handler, name: str) -> None:
    repository, asked = to.writer(name), json.loads(to.body)
    files = dict(repository.files)
    for action in asked["actions"]:
        if action["action"] == "delete":
            del files[action["path"]]
        elif action["type"] == "lfs":
            files[action["path"]] = to.server_state.blobs[action["sha256"]]
        else:
            files[action["path"]] = base64.b64decode(action["content"])
    repository.put(files)
    to.server_state.commits.append({"summary": asked["commit_message"]})
    to.reply({"Code": 200, "Success": True, "Data": {"oid": commit_of(files)}})


def nothing(to: _Handler) -> None:
    to.reply({"errors": [], "warnings": [], "Data": {}})


_NAME = r"(?P<name>[\w.-]+/[\w.-]+?)"
ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    (r"/", "HEAD GET", nothing),
    (r"/api/whoami-v2", "GET", whoami),
    (r"/api/repos/create", "POST", create),
    (r"/api/validate-yaml", "POST", nothing),
    (rf"/api/models/{_NAME}", "GET", info),
    (rf"/api/models/{_NAME}/revision/(?P<revision>.+)", "GET", info),
    (rf"/api/models/{_NAME}/tree/(?P<revision>[^/]+)/?", "GET", tree),
    (rf"/api/models/{_NAME}/preupload/main", "POST", preupload),
    (rf"/api/models/{_NAME}/commit/main", "POST", commit),
    (rf"/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "GET HEAD", resolve),
    (rf"/api/datasets/{_NAME}", "GET", info),
    (rf"/api/datasets/{_NAME}/revision/(?P<revision>.+)", "GET", info),
    (rf"/api/datasets/{_NAME}/tree/(?P<revision>[^/]+)/?", "GET", tree),
    (rf"/datasets/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "GET HEAD", resolve),
    (r"/content/(?P<oid>\w+)/(?P<path>.+)", "GET HEAD", content),
    (rf"/{_NAME}\.git/info/lfs/objects/batch", "POST", batch),
    (r"/blobs/(?P<oid>\w+)", "PUT", put_blob),
    (r"/openapi/v1/users/me", "GET", ms_user),
    (rf"/openapi/v1/models/{_NAME}", "GET", ms_info),
    (r"/api/v1/models", "POST", ms_create),
    (rf"/api/v1/models/{_NAME}", "GET", ms_info),
    (rf"/api/v1/models/{_NAME}/repo/files", "GET", ms_files),
    (rf"/api/v1/models/{_NAME}/repo", "GET", ms_file),
    (rf"/openapi/v1/datasets/{_NAME}", "GET", ms_info),
    (rf"/api/v1/datasets/{_NAME}", "GET", ms_info),
    (rf"/api/v1/datasets/{_NAME}/repo/tree", "GET", ms_files),
    (rf"/api/v1/datasets/{_NAME}/repo", "GET", ms_file),
    (r"/api/v1/repos/internalAccelerationInfo", "GET", nothing),
    (rf"/api/v1/repos/models/{_NAME}/info/lfs/objects/batch", "POST", batch),
    (rf"/api/v1/repos/models/{_NAME}/commit/master", "POST", ms_commit),
]

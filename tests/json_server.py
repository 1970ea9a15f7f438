"""A server of JSON by HTTP, which says what a test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Any]
"""A status and content: bytes as they are, None for nothing, anything else as JSON."""
Hear = Callable[[str, Mapping[str, str], Any], Reply]
"""Of a request's path, headers and body (None: a GET)."""


class JsonServer:
    """Answers with what `hear` says, from a thread for each request."""

    def __init__(self, hear: Hear) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _answer(self, body: Any) -> None:
                code, content = hear(self.path, dict(self.headers), body)
                if not isinstance(content, bytes):
                    content = b"" if content is None else json.dumps(content).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

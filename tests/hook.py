"""A receiver of alerts for tests: an HTTP server that answers as it is told, and keeps what it was sent."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Answer = tuple[int, dict[str, str]]


class Hook:
    """Answers the n-th request, from 0 on, as `how(n)` says: with a status and headers; None never answers."""

    def __init__(
        self,
        how: Callable[[int], Answer | None] = lambda number: (200, {}),
        tls: tuple[Path, Path] | None = None,
        port: int = 0,
    ) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self._how, self._over, self._lock = how, threading.Event(), threading.Lock()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook._post(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the interface's)
                """Nobody is to be disturbed."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}/hook/secret-path"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def _post(self, handler: BaseHTTPRequestHandler) -> None:
        data = handler.rfile.read(int(handler.headers["Content-Length"]))
        with self._lock:
            number = len(self.requests)
            self.requests.append((dict(handler.headers), data))
        answer = self._how(number)
        if answer is None:
            self._over.wait()
            handler.close_connection = True
            return
        status, headers = answer
        body = b"" if status == 204 else b"no\nway" * (status >= 400)
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    def letters(self) -> list[dict[str, Any]]:
        """What was sent, as JSON."""
        return [json.loads(data) for _, data in self.requests]

    def close(self) -> None:
        """Listen no more."""
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def free_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])

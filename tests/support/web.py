"""A real web server on loopback, whose pages are functions."""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Page = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked[path] += 1
        self.server.headers.append(dict(self.headers))
        try:
            self.server.pages.get(path, not_found)(self)
        except OSError:
            self.close_connection = True  # nobody waits for the rest

    do_POST = do_GET

    def log_message(self, *arguments: object) -> None:
        pass

    def answer(self, body: bytes, status: int = 200, **headers: str | int) -> None:
        """The headers as they are named, with - for _; a Content-Length that fits unless there is one."""
        self.send_response(status)
        for name, value in ({"Content_Length": len(body)} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def silence(self) -> None:
        """No answer until the server ends."""
        self.server.gone.wait(30)

    def reset(self) -> None:
        """Ends the connection as a broken one, without goodbye."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True


class Web(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: str) -> None:
        super().__init__((address, 0), Handler)
        self.address = address
        self.pages: dict[str, Page] = {}
        self.asked: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self.gone = threading.Event()  # for pages that never end

    def url(self, path: str) -> str:
        return f"http://{self.address}:{self.server_port}{path}"

    def handle_error(self, *arguments: object) -> None:
        pass


def not_found(handler: Handler) -> None:
    handler.answer(b"no such page", 404)


def page(body: bytes, status: int = 200, **headers: str | int) -> Page:
    return lambda handler: handler.answer(body, status, **headers)


@contextmanager
def serving(address: str = "127.0.0.1") -> Iterator[Web]:
    with Web(address) as web:
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield web
        finally:
            web.gone.set()
            web.shutdown()
            thread.join()

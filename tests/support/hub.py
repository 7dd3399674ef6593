"""A small model hub on loopback, for the real client: one repository, `someone/tiny`, in three states."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """As much of the hub's protocol as a download needs, with one repository in three states."""

    daemon_threads = True
    files = {"config.json": b'{"a": 1}', "tokenizer.json": b"{}", "model.onnx": b"never asked for"}  # noqa: RUF012
    failing: int | None = None  # what it answers instead
    asked: list[str]
    got: list[str]  # of these, those whose bytes were sent


class Answers(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        path = self.path.partition("?")[0]
        if self.server.failing:
            self.say(self.server.failing, b"")
        elif "secret" in path:
            self.say(403, b"", X_Error_Code="GatedRepo", X_Error_Message="Access to model is restricted")
        elif "someone/tiny" not in path:
            self.say(401, b"", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        elif "/resolve/" in path:
            body = self.server.files[path.rsplit("/", 1)[1]]
            self.say(200, body, ETag=f'"{len(body)}"', X_Repo_Commit=COMMIT)
        elif "/tree/" in path:
            entries = [{"type": "file", "path": k, "size": len(v), "oid": k} for k, v in self.server.files.items()]
            self.say(200, json.dumps(entries).encode(), Content_Type="application/json")
        else:
            info = {
                "id": "someone/tiny",
                "sha": COMMIT,
                "siblings": [{"rfilename": name} for name in self.server.files],
            }
            self.say(200, json.dumps(info).encode(), Content_Type="application/json")

    do_HEAD = do_GET

    def say(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.server.got.append(self.path.partition("?")[0])
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def hub() -> Iterator[Hub]:
    with Hub(("127.0.0.1", 0), Answers) as server:
        server.asked, server.got = [], []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()

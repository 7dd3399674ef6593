"""A real server that speaks S3 on loopback, and a proxy in front of it on which everything may go wrong.

with s3_server() as server, faulty(server) as proxy, environment(proxy.url):
    proxy.fault = first(3, "busy")
"""

from __future__ import annotations

import http.client
import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import fsspec  # type: ignore[import-untyped]
import pytest
from moto.server import ThreadedMotoServer

from engine import places

SLOW_SECONDS = 0.5
HANGING_SECONDS = 600.0
# What happens to a request (method, path): "busy" (503), "slow", "cut" in the middle of a body, "refused" (403), "gone"
# (connections are closed), "hangs" (no answer comes), or nothing. A cut upload has not arrived; a cut download has, in
# part.
Fault = Callable[[str, str], str | None]
KEY = "a-key-of-tests"


def variables(url: str) -> dict[str, str]:
    """What the environment has to say for a server to be found."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": "a-secret-of-tests",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "no_proxy": "127.0.0.1,localhost",
    }


@contextmanager
def environment(url: str) -> Iterator[None]:
    """The variables, and no connections that others left open."""
    before = {name: os.environ.get(name) for name in variables(url)}
    os.environ.update(variables(url))
    forget_connections()
    try:
        yield
    finally:
        forget_connections()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def forget_connections() -> None:
    """A file system goes on with the server that it found first."""
    places._filesystem.cache_clear()
    for known in (fsspec.get_filesystem_class(name) for name in ("s3", "memory")):
        known.clear_instance_cache()


@dataclass
class Server:
    url: str

    def bucket(self) -> Bucket:
        """A new one, which nobody else knows."""
        bucket = Bucket(self, f"tests-{uuid.uuid4().hex[:12]}")
        bucket.client.create_bucket(Bucket=bucket.name)
        return bucket


@dataclass
class Bucket:
    """Looked at by another client than ours, straight at the server."""

    server: Server
    name: str

    @property
    def uri(self) -> str:
        return f"s3://{self.name}"

    @cached_property
    def client(self) -> Any:
        import boto3  # type: ignore[import-untyped]

        keys = {"aws_access_key_id": KEY, "aws_secret_access_key": "x", "region_name": "us-east-1"}
        return boto3.client("s3", endpoint_url=self.server.url, **keys)

    def keys(self, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [one["Key"] for page in pages for one in page.get("Contents", ())]

    def read(self, key: str) -> bytes:
        data: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return data

    def write(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def remove(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)

    def upload(self, folder: Path, prefix: str) -> None:
        client = self.client
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                key = f"{prefix}/{path.relative_to(folder).as_posix()}"
                client.put_object(Bucket=self.name, Key=key, Body=path.read_bytes())

    def download(self, prefix: str, folder: Path) -> Path:
        for key in self.keys(prefix + "/"):
            target = folder / key.removeprefix(prefix + "/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.read(key))
        return folder


@contextmanager
def s3_server() -> Iterator[Server]:
    """Holds what is written to it in memory, as long as this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTO_ACCOUNT_ID", "123456789012")
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        try:
            host, port = server.get_host_and_port()
            yield Server(f"http://{host}:{port}")
        finally:
            server.stop()


class Proxy(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, server: Server) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        self.behind = server.url.removeprefix("http://")
        self.fault: Fault = lambda method, path: None
        self.asked: Counter[str] = Counter()  # by method
        self.done: Counter[str] = Counter()  # faults
        self.sent = 0  # bytes of bodies to the client
        self.lock = threading.Lock()
        self.ended = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go away."""


@contextmanager
def faulty(server: Server) -> Iterator[Proxy]:
    proxy = Proxy(server)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.ended.set()
        proxy.shutdown()
        proxy.server_close()


def never(method: str, path: str) -> str | None:
    return None


@dataclass
class first:
    """The fault on the first `count` requests that fit."""

    count: int
    what: str
    methods: tuple[str, ...] = ("GET", "PUT", "HEAD", "POST", "DELETE")
    part: str = ""  # of the path
    seen: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def __call__(self, method: str, path: str) -> str | None:
        with self.lock:
            if self.seen >= self.count or method not in self.methods or self.part not in path:
                return None
            self.seen += 1
            return self.what


@dataclass
class every:
    """The fault on each n-th request that fits."""

    nth: int
    what: str
    methods: tuple[str, ...] = ("GET", "PUT", "HEAD", "POST", "DELETE")
    part: str = ""
    seen: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def __call__(self, method: str, path: str) -> str | None:
        with self.lock:
            if method not in self.methods or self.part not in path:
                return None
            self.seen += 1
            return self.what if self.seen % self.nth == 0 else None


def error(code: str) -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}, says the proxy</Message></Error>'.encode()


class _Relay(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.asked[self.command] += 1
        fault = self.server.fault(self.command, unquote(self.path))
        if fault:
            with self.server.lock:
                self.server.done[fault] += 1
        if fault == "gone":
            self.close_connection = True
            return
        length = int(self.headers.get("Content-Length") or 0)
        if fault == "cut" and self.command in ("PUT", "POST"):
            self.rfile.read(length // 2)
            self.close_connection = True
            return
        body = self.rfile.read(length)
        if fault == "hangs":
            self.server.ended.wait(HANGING_SECONDS)
        if fault == "slow":
            time.sleep(SLOW_SECONDS)
        if fault in ("busy", "refused"):
            status, code = (503, "ServiceUnavailable") if fault == "busy" else (403, "AccessDenied")
            self._answer(status, {"Content-Type": "application/xml"}, error(code))
        else:
            self._relay(body, cut=fault == "cut")

    do_PUT = do_HEAD = do_POST = do_DELETE = do_GET

    def _relay(self, body: bytes, cut: bool) -> None:
        connection = http.client.HTTPConnection(self.server.behind, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
        connection.request(self.command, self.path, body, headers)
        response = connection.getresponse()
        data = response.read()
        kept = {n: v for n, v in response.getheaders() if n.lower() not in ("connection", "transfer-encoding")}
        self._answer(response.status, kept, data, cut)
        connection.close()

    def _answer(self, status: int, headers: dict[str, str], data: bytes, cut: bool = False) -> None:
        self.send_response(status)
        if self.command != "HEAD":
            headers = {**headers, "Content-Length": str(len(data))}
        for name, value in headers.items():
            if name.lower() not in ("server", "date"):
                self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        sent = data[: len(data) // 2] if cut else data
        self.wfile.write(sent)
        with self.server.lock:
            self.server.sent += len(sent)
        self.close_connection = self.close_connection or cut

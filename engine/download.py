"""Images at http(s) URLs, fetched once, at ingest: nothing that comes after it needs the net.

What begins as an image is kept in the output folder; all else is an ImageError, of a kind to group by: "http_404" and
so on, "timeout", "unreachable", "too_large", "not_an_image", "forbidden_address", "bad_url".
"""

from __future__ import annotations

import re
import ssl
import time
import zlib
from base64 import b64encode
from collections.abc import Iterator, Set
from contextlib import contextmanager
from functools import cache
from itertools import chain, count
from pathlib import Path
from typing import Any

import httpcore
import httpx

from engine.atomic import aside, is_there
from engine.config import Http
from engine.errors import ImageError
from engine.images import HEAD_BYTES, foreign, format_of
from engine.network import Lines, Network, header, retry_after
from engine.uris import download_of

REDIRECTS = 5
MOVED = {301, 302, 303, 307, 308}
BUSY = 429
PIECE_BYTES = 1 << 16
GZIP = b"\x1f\x8b"


class Passing(ImageError):
    """A fault that may be gone in a moment, and not before `wait` seconds if the host said so."""

    def __init__(self, kind: str, message: str, wait: float = 0) -> None:
        super().__init__(kind, message)
        self.wait = wait


class Downloader:
    """Fetches images into `folder`; may be used by many threads, and ended by one.

    A download has a connection of its own: lists name many hosts, and no cookie or state gets from one to another.
    What is there of the URLs `anew` is fetched all the same, and replaced if there is an image now.
    """

    def __init__(self, folder: Path, http: Http, max_bytes: int, *, anew: Set[str] = frozenset()) -> None:
        self.folder = folder
        self._anew = anew
        self._http = http
        self._max_bytes = max_bytes
        self._lines = Lines()

    def has(self, url: str) -> bool:
        return is_there(download_of(self.folder, url))

    def fetch(self, url: str) -> None:
        """Fetches what is at `url`, if it isn't there yet. Raises ImageError; and OSError if it can't be written."""
        if url not in self._anew and self.has(url):
            return
        deadline = time.monotonic() + self._http.total_seconds
        for attempt in count(1):
            try:
                self._attempt(url, deadline)
                return
            except Passing as fault:
                wait = max(fault.wait, self._http.backoff_seconds * 2 ** (attempt - 1))
                late = time.monotonic() + wait >= deadline
                if attempt >= self._http.attempts or late or self._lines.stopped.wait(wait):
                    raise ImageError(fault.kind, fault.message) from fault

    def stop(self) -> None:
        """Ends what is under way, in a moment: it comes out as unreachable, and so does all that is asked for later."""
        self._lines.cut()

    def _attempt(self, url: str, deadline: float) -> None:
        network = Network(self._lines, deadline, self._http.private_addresses)
        there = parsed(url)
        with _faults(url), httpcore.ConnectionPool(ssl_context=_tls(), network_backend=network) as pool:
            for _ in range(REDIRECTS + 1):
                with pool.stream("GET", _target(there), **self._request(there)) as response:
                    location = header(response, b"location")
                    if response.status not in MOVED or not location:
                        self._store(response, url)
                        return
                    there = parsed(location, there)
        raise ImageError(f"http_{response.status}", f"{url} redirects more than {REDIRECTS} times")

    def _request(self, there: httpx.URL) -> dict[str, Any]:
        headers = {
            "Host": there.netloc.decode("ascii"),
            "User-Agent": self._http.user_agent,
            "Accept": "image/*",
            "Accept-Encoding": "identity",
        }
        if there.userinfo:
            user = f"{there.username}:{there.password}".encode()
            headers["Authorization"] = f"Basic {b64encode(user).decode()}"
        seconds = self._http.timeout_seconds
        return {
            "headers": headers,
            "extensions": {"timeout": {"connect": seconds, "read": seconds, "write": seconds}},
        }

    def _store(self, response: httpcore.Response, url: str) -> None:
        """Writes the image aside, piece by piece, and gives it its name once it is whole."""
        self._check_head(response, url)
        with aside(download_of(self.folder, url)) as file:
            for piece in self._image(response, url):
                file.write(piece)

    def _check_head(self, response: httpcore.Response, url: str) -> None:
        if not 200 <= response.status < 300:
            fault = f"http_{response.status}", f"{url} was answered with status {response.status}"
            if response.status == BUSY or response.status >= 500:
                raise Passing(*fault, wait=retry_after(response))
            raise ImageError(*fault)
        length = header(response, b"content-length")
        if re.fullmatch("[0-9]{1,18}", length) and int(length) > self._max_bytes:
            raise self._too_large(f"has {int(length):,} bytes, more")

    def _image(self, response: httpcore.Response, url: str) -> Iterator[bytes]:
        """The pieces of the image, as soon as the first ones show that it is one, and as long as it isn't too large."""
        held, size, begun = b"", 0, False
        for piece in _decoded(response, url):
            size += len(piece)
            if size > self._max_bytes:
                raise self._too_large("has more bytes")
            if not begun:
                piece = held = held + piece
                if len(held) < HEAD_BYTES:
                    continue
                _check_image(held, url)
                begun = True
            yield piece
        if not begun:
            _check_image(held, url)
            yield held

    def _too_large(self, what: str) -> ImageError:
        return ImageError("too_large", f"{what} than ingest.max_bytes = {self._max_bytes:,}")


def parsed(url: str, base: httpx.URL | None = None) -> httpx.URL:
    """An http(s) URL, also as a redirect names it. Raises ImageError of kind "bad_url"."""
    try:
        there = base.join(url) if base else httpx.URL(url)
        host = there.host  # decoded only now: not every name that begins with xn-- is one
    except (httpx.InvalidURL, ValueError) as error:
        raise ImageError("bad_url", f"{url!r} is no URL: {error}") from error
    if there.scheme not in ("http", "https") or not host:
        redirect = f", to which {base} redirects," if base else ""
        raise ImageError("bad_url", f"{url!r}{redirect} isn't at an http:// or https:// host")
    return there


@cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def _target(there: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=there.raw_scheme, host=there.raw_host, port=there.port, target=there.raw_path)


def _decoded(response: httpcore.Response, url: str) -> Iterator[bytes]:
    """The body, in pieces; unpacked, if it comes as gzip though nobody asked for that. Raises Passing if that is cut
    off."""
    pieces = response.iter_stream()
    first = next(pieces, b"")
    if "gzip" not in header(response, b"content-encoding").lower() or not first.startswith(GZIP):  # it only says so
        yield first
        yield from pieces
        return
    packed = zlib.decompressobj(31)
    for data in chain([first], pieces):
        while data and not packed.eof:
            yield packed.decompress(data, PIECE_BYTES)
            data = packed.unconsumed_tail
    if not packed.eof:
        raise Passing("unreachable", f"{url} came as gzip that ends early")


def _check_image(data: bytes, url: str) -> None:
    if format_of(data[:HEAD_BYTES]) is None:
        raise ImageError("not_an_image", f"{url} {foreign(data) if data else 'came with 0 bytes'}")


@contextmanager
def _faults(url: str) -> Iterator[None]:
    try:
        yield
    except httpcore.TimeoutException as error:
        raise Passing("timeout", f"{url} took too long: {error or type(error).__name__}") from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise Passing("unreachable", f"{url} can't be reached: {error or type(error).__name__}") from error
    except zlib.error as error:
        raise ImageError("not_an_image", f"{url} came as gzip that can't be unpacked: {error}") from error

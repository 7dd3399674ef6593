"""Downloading from a real server, which does what servers do."""

from __future__ import annotations

import gzip
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from refusals import refused
from web import Handler, Web, page, serving

from engine.config import Http
from engine.download import Downloader, parsed
from engine.errors import ImageError
from engine.images import decode
from engine.network import is_public
from engine.reading import read
from engine.uris import download_of


def image_bytes(format_: str = "PNG", size: int = 32) -> bytes:
    file = BytesIO()
    Image.new("RGB", (size, size), "teal").save(file, format_)
    return file.getvalue()


PNG = image_bytes()
HTML = b"<!DOCTYPE html><title>Gone</title>" + b"x" * 1000
MAX = 100_000


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as server:
        yield server


@pytest.fixture
def downloader(tmp_path: Path) -> Callable[..., Downloader]:
    def make(max_bytes: int = MAX, **settings: Any) -> Downloader:
        quick = {"timeout_seconds": 2, "total_seconds": 4, "backoff_seconds": 0.01, "private_addresses": True}
        return Downloader(tmp_path, Http(**(quick | settings)), max_bytes)

    return make


def left(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_an_image_is_fetched_once(web: Web, downloader: Callable[..., Downloader], tmp_path: Path) -> None:
    web.pages["/a.png"] = page(PNG)
    url = web.url("/a.png?size=large#top")
    for _ in range(2):
        downloader().fetch(url)
    assert web.asked == {"/a.png": 1}
    assert read(url, max_bytes=MAX, downloads=tmp_path) == PNG
    assert left(tmp_path) == [download_of(tmp_path, url)]
    asked = web.headers[0]
    assert asked["User-Agent"].startswith("florence-engine") and asked["Accept-Encoding"] == "identity"
    assert not {"Authorization", "Cookie"} & asked.keys()


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
def test_an_image_is_one_by_content(
    web: Web, downloader: Callable[..., Downloader], tmp_path: Path, format_: str
) -> None:
    web.pages["/a"] = page(image_bytes(format_), Content_Type="text/html")
    downloader().fetch(web.url("/a"))
    decode(read(web.url("/a"), max_bytes=MAX, downloads=tmp_path), max_pixels=10**8)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (HTML, ["an HTML page", "JPEG"]),
        (b"{}", ["JSON"]),
        (b"", ["0 bytes"]),
        (b"<svg>", ["SVG"]),
        (gzip.compress(PNG), ["gzip"]),
    ],
)
def test_what_is_no_image_is_not_kept(
    web: Web, downloader: Callable[..., Downloader], tmp_path: Path, body: bytes, words: list[str]
) -> None:
    web.pages["/a.jpg"] = page(body, Content_Type="image/jpeg")
    with refused("not_an_image", web.url("/a.jpg"), *words):
        downloader().fetch(web.url("/a.jpg"))
    assert left(tmp_path) == []


@pytest.mark.parametrize("status", [400, 403, 404, 410, 304])
def test_a_refusal_is_final(web: Web, downloader: Callable[..., Downloader], tmp_path: Path, status: int) -> None:
    web.pages["/a.png"] = page(b"" if status == 304 else PNG, status)
    with refused(f"http_{status}", web.url("/a.png"), str(status)):
        downloader().fetch(web.url("/a.png"))
    assert web.asked["/a.png"] == 1 and left(tmp_path) == []


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_busy_host_is_asked_again(web: Web, downloader: Callable[..., Downloader], status: int) -> None:
    web.pages["/always"] = page(b"", status)
    with refused(f"http_{status}"):
        downloader(attempts=3).fetch(web.url("/always"))
    web.pages["/once"] = lambda to: to.answer(PNG) if web.asked["/once"] > 1 else to.answer(b"", status)
    downloader().fetch(web.url("/once"))
    assert web.asked == {"/always": 3, "/once": 2}


def test_retry_after(web: Web, downloader: Callable[..., Downloader]) -> None:
    """A host is not asked before it wants to be; not at all if there is no time for that."""
    times: list[float] = []

    def busy_until(value: Callable[[], str]) -> Callable[[Handler], None]:
        def answer(to: Handler) -> None:
            times.append(time.monotonic())
            if len(times) == 1:
                to.answer(b"", 503, Retry_After=value())
            else:
                to.answer(PNG)

        return answer

    soon = lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)  # noqa: E731
    for path, value in {"/number": lambda: "1", "/date": soon}.items():
        times.clear()
        web.pages[path] = busy_until(value)
        downloader().fetch(web.url(path))
        assert times[1] - times[0] >= 0.9
    for path, text in {"/late": "3600", "/huge": "9" * 9}.items():
        times.clear()
        web.pages[path] = busy_until(lambda text=text: text)  # type: ignore[misc]
        with refused("http_503"):
            downloader().fetch(web.url(path))
        assert len(times) == 1
    for path, text in {"/nonsense": "soon", "/past": "Mon, 01 Jan 1990 00:00:00 GMT", "/negative": "-5"}.items():
        times.clear()
        web.pages[path] = busy_until(lambda text=text: text)  # type: ignore[misc]
        downloader().fetch(web.url(path))


# Servers that don't end


def drip(head: bytes, with_headers: bool) -> Callable[[Handler], None]:
    def answer(to: Handler) -> None:
        if with_headers:
            to.send_response(200)
            to.end_headers()
        else:
            to.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        to.wfile.write(head)
        while not to.server.gone.wait(0.1):
            to.wfile.write(b"x")

    return answer


@pytest.mark.parametrize("with_headers", [True, False])
def test_a_server_that_drips(
    web: Web, downloader: Callable[..., Downloader], tmp_path: Path, with_headers: bool
) -> None:
    web.pages["/a.png"] = drip(PNG if with_headers else b"", with_headers)
    with refused("timeout", web.url("/a.png")):
        downloader(total_seconds=0.7).fetch(web.url("/a.png"))
    assert left(tmp_path) == [] and web.asked["/a.png"] == 1


def test_a_server_that_says_nothing(web: Web, downloader: Callable[..., Downloader]) -> None:
    web.pages["/a.png"] = Handler.silence
    with refused("timeout"):
        downloader(timeout_seconds=0.2, attempts=2).fetch(web.url("/a.png"))
    assert web.asked["/a.png"] == 2


def test_a_server_that_is_cut_off(web: Web, downloader: Callable[..., Downloader], tmp_path: Path) -> None:
    """As Ctrl-C does it: what waits for a byte, or to ask again, ends at once."""
    web.pages |= {"/silent": Handler.silence, "/drip": drip(PNG, True)}
    web.pages["/busy"] = page(b"", 503, Retry_After=25)
    patient = downloader(timeout_seconds=30, total_seconds=30)
    with ThreadPoolExecutor(3) as pool:
        fetched = [pool.submit(patient.fetch, web.url(path)) for path in ("/silent", "/drip", "/busy")]
        while web.asked.total() < 3:
            time.sleep(0.01)
        patient.stop()
        kinds = [getattr(future.exception(timeout=5), "kind", None) for future in fetched]
    assert kinds == ["unreachable", "unreachable", "http_503"]
    with refused("unreachable"):
        patient.fetch(web.url("/drip"))
    assert left(tmp_path) == []


def test_an_endless_image(web: Web, downloader: Callable[..., Downloader], tmp_path: Path) -> None:
    def endless(to: Handler) -> None:
        to.send_response(200)
        to.end_headers()
        to.wfile.write(PNG)
        while not to.server.gone.is_set():
            to.wfile.write(bytes(10_000))

    web.pages["/a.png"] = endless
    with refused("too_large", f"ingest.max_bytes = {MAX:,}"):
        downloader().fetch(web.url("/a.png"))
    assert left(tmp_path) == []


def test_an_endless_page(web: Web, downloader: Callable[..., Downloader]) -> None:
    web.pages["/a.png"] = drip(HTML, True)
    with refused("not_an_image", "HTML"):
        downloader(total_seconds=30).fetch(web.url("/a.png"))


# Servers that lie


def test_content_length_lies(web: Web, downloader: Callable[..., Downloader], tmp_path: Path) -> None:

    def break_off(to: Handler) -> None:
        to.answer(PNG, Content_Length=len(PNG) + 5)
        to.close_connection = True

    web.pages["/more"] = break_off
    with refused("unreachable"):
        downloader().fetch(web.url("/more"))
    assert web.asked["/more"] == 3 and left(tmp_path) == []
    web.pages["/huge"] = page(PNG, Content_Length=10**12)
    with refused("too_large", "1,000,000,000,000 bytes"):
        downloader().fetch(web.url("/huge"))
    web.pages["/less"] = page(PNG, Content_Length=len(PNG) - 10)
    downloader().fetch(web.url("/less"))  # who counts is right; what is missing is found out when it is decoded
    assert read(web.url("/less"), max_bytes=MAX, downloads=tmp_path) == PNG[:-10]


def test_at_most_max_bytes(web: Web, downloader: Callable[..., Downloader], tmp_path: Path) -> None:
    web.pages["/a.png"] = page(PNG)
    with refused("too_large", f"has {len(PNG):,} bytes"):
        downloader(len(PNG) - 1).fetch(web.url("/a.png"))
    downloader(len(PNG)).fetch(web.url("/a.png"))


def test_gzip_that_nobody_asked_for(web: Web, downloader: Callable[..., Downloader], tmp_path: Path) -> None:
    web.pages["/packed"] = page(gzip.compress(PNG), Content_Encoding="gzip")
    web.pages["/says"] = page(PNG, Content_Encoding="gzip")
    web.pages["/bomb"] = page(gzip.compress(PNG + bytes(50_000_000)), Content_Encoding="gzip")
    web.pages["/broken"] = page(gzip.compress(PNG)[:12] + b"\xff" * 99, Content_Encoding="gzip")
    for path in ("/packed", "/says"):
        downloader().fetch(web.url(path))
        assert read(web.url(path), max_bytes=MAX, downloads=tmp_path) == PNG
    with refused("too_large"):
        downloader().fetch(web.url("/bomb"))
    with refused("not_an_image"):
        downloader().fetch(web.url("/broken"))


@pytest.mark.parametrize("missing", [1, 8, 40])
def test_gzip_that_is_cut_off(web: Web, downloader: Callable[..., Downloader], tmp_path: Path, missing: int) -> None:
    """The head of the image is there, and the Content-Length fits."""
    packed = gzip.compress(image_bytes("BMP") + os.urandom(5000))
    web.pages["/always"] = page(packed[:-missing], Content_Encoding="gzip")
    with refused("unreachable", web.url("/always"), "ends early"):
        downloader(attempts=2).fetch(web.url("/always"))
    assert web.asked["/always"] == 2 and left(tmp_path) == []
    whole = page(packed, Content_Encoding="gzip")
    web.pages["/once"] = lambda to: whole(to) if web.asked["/once"] > 1 else web.pages["/always"](to)
    downloader().fetch(web.url("/once"))
    assert read(web.url("/once"), max_bytes=MAX, downloads=tmp_path) == gzip.decompress(packed)


def test_connections_that_break(web: Web, downloader: Callable[..., Downloader]) -> None:
    def nonsense(to: Handler) -> None:
        to.wfile.write(b"SSH-2.0-OpenSSH\r\n")
        to.close_connection = True

    web.pages |= {"/reset": Handler.reset, "/nonsense": nonsense}
    for path in ("/reset", "/nonsense"):
        with refused("unreachable", web.url(path)):
            downloader().fetch(web.url(path))
        assert web.asked[path] == 3
    web.pages["/once"] = lambda to: to.answer(PNG) if web.asked["/once"] > 1 else to.reset()
    downloader().fetch(web.url("/once"))


def test_nobody_listens(downloader: Callable[..., Downloader]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with refused("unreachable", "refused"):
            downloader().fetch(f"http://127.0.0.1:{unused.getsockname()[1]}/a.png")


def test_no_tls_behind_https(web: Web, downloader: Callable[..., Downloader]) -> None:
    with refused("unreachable", "SSL"):
        downloader(attempts=1).fetch(web.url("/a.png").replace("http:", "https:"))


# Redirects


def to_(location: str, status: int = 302) -> Callable[[Handler], None]:
    return page(b"", status, Location=location)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(web: Web, downloader: Callable[..., Downloader], tmp_path: Path, status: int) -> None:
    web.pages |= {"/a": to_("sub/b?c", status), "/sub/b": to_(web.url("/d e"), status), "/d%20e": page(PNG)}
    downloader().fetch(web.url("/a"))
    assert left(tmp_path) == [download_of(tmp_path, web.url("/a"))]


def test_redirects_that_lead_nowhere(web: Web, downloader: Callable[..., Downloader]) -> None:
    web.pages |= {"/loop": to_("/loop"), "/nameless": page(b"", 302)}
    with refused("http_302", "more than 5 times"):
        downloader().fetch(web.url("/loop"))
    assert web.asked["/loop"] == 6
    with refused("http_302", "302"):
        downloader().fetch(web.url("/nameless"))


@pytest.mark.parametrize("url", ["http://xn--a/1.jpg", "http://xn--\u00e9.example/"])
def test_names_that_idna_does_not_know(web: Web, downloader: Callable[..., Downloader], url: str) -> None:
    with refused("bad_url"):
        downloader().fetch(url)
    web.pages["/a"] = to_(url.encode().decode("latin-1"))
    with refused("bad_url"):
        downloader().fetch(web.url("/a"))


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://a/b", "data:image/png;base64,AA"])
def test_redirects_to_other_schemes(web: Web, downloader: Callable[..., Downloader], location: str) -> None:
    web.pages["/a"] = to_(location)
    with refused("bad_url", location[:8], "/a"):
        downloader().fetch(web.url("/a"))


# Addresses

NOT_PUBLIC = [
    *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200", "0.0.0.0"),
    *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "192.0.0.192", "168.63.129.16", "198.18.0.1"),
    *(
        "::1",
        "::",
        "fe80::1",
        "fe80::1%lo",
        "fc00::1",
        "fd00:ec2::254",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "::7f00:1",
    ),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001::1"),
]
PUBLIC = ["93.184.216.34", "8.8.8.8", "2606:2800:220:1::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "0", "127.1", "LOCALHOST."],
)
def test_private_hosts_are_not_asked(web: Web, downloader: Callable[..., Downloader], host: str) -> None:
    web.pages["/a.png"] = page(PNG)
    with pytest.raises(ImageError) as error:
        downloader(private_addresses=False).fetch(f"http://{host}:{web.server_port}/a.png")
    assert error.value.kind in ("forbidden_address", "bad_url", "unreachable")
    assert not web.asked
    if host in ("127.0.0.1", "localhost", "2130706433"):
        assert error.value.kind == "forbidden_address" and "ingest.http.private_addresses" in error.value.message


def resolving(monkeypatch: pytest.MonkeyPatch, **hosts: list[str]) -> list[str]:
    """A resolver that gives hosts their addresses in turn; the hosts that were looked up."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *arguments: Any, **named: Any) -> Any:
        asked.append(host)
        answers = hosts.get(host.partition(".")[0])
        if answers is None:
            return real(host, port, *arguments, **named)
        return real(answers.pop(0) if len(answers) > 1 else answers[0], port, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


def test_a_redirect_to_a_private_address(
    web: Web, downloader: Callable[..., Downloader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first host passes for a public one."""
    monkeypatch.setattr("engine.network.is_public", lambda address: address == "127.0.0.2")
    web.pages["/secret.png"] = page(PNG)
    with serving("127.0.0.2") as outside:
        outside.pages["/a"] = to_(web.url("/secret.png"))
        with refused("forbidden_address", "127.0.0.1"):
            downloader(private_addresses=False).fetch(outside.url("/a"))
        assert outside.asked == {"/a": 1} and not web.asked


def test_a_name_that_changes_its_address(
    web: Web, downloader: Callable[..., Downloader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: public when it is checked, loopback when it would be looked up again."""
    asked = resolving(monkeypatch, rebinding=["127.0.0.3", "127.0.0.1"])
    monkeypatch.setattr("engine.network.is_public", lambda address: address != "127.0.0.1")
    web.pages["/a.png"] = page(PNG)
    with refused("unreachable"):  # nobody listens there
        downloader(private_addresses=False, attempts=1).fetch(f"http://rebinding.example:{web.server_port}/a.png")
    assert asked.count("rebinding.example") == 1 and not web.asked


def test_no_proxy_of_the_environment(
    web: Web, downloader: Callable[..., Downloader], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    web.pages["/a.png"] = page(PNG)
    downloader().fetch(web.url("/a.png"))


# URLs


def test_users_and_passwords(web: Web, downloader: Callable[..., Downloader]) -> None:
    web.pages["/a.png"] = page(PNG)
    downloader().fetch(web.url("/a.png").replace("//", "//ann%40home:pass:w@", 1))
    assert web.headers[0]["Authorization"] == "Basic YW5uQGhvbWU6cGFzczp3"
    assert "@" not in web.headers[0]["Host"]


@pytest.mark.parametrize(
    ("path", "asked"),
    [("/a b.png", "/a%20b.png"), ("/snow☃.png", "/snow%E2%98%83.png"), ("/a%2Fb.png", "/a%2Fb.png"), ("", "/")],
)
def test_odd_paths(web: Web, downloader: Callable[..., Downloader], path: str, asked: str) -> None:
    web.pages[asked] = page(PNG)
    downloader().fetch(web.url(path))
    assert web.asked == {asked: 1}


def test_hosts_that_are_not_ascii(
    web: Web, downloader: Callable[..., Downloader], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = resolving(monkeypatch, **{"xn--bcher-kva": ["127.0.0.1"]})
    web.pages["/a.png"] = page(PNG)
    downloader().fetch(f"http://bücher.example:{web.server_port}/a.png")
    assert "xn--bcher-kva.example" in looked_up
    assert web.headers[0]["Host"] == f"xn--bcher-kva.example:{web.server_port}"


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///a.png",
        "http://[::1/a.png",
        "http://a:port/",
        "http://a\nb/",
        "http://a\0b/",
        "http://" + "a" * 99_999,
    ],
)
def test_what_is_no_url(url: str) -> None:
    with refused("bad_url"):
        parsed(url)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".example", "..", "a..b"])
def test_hosts_that_are_none(downloader: Callable[..., Downloader], host: str) -> None:
    with pytest.raises(ImageError) as error:
        downloader(backoff_seconds=0).fetch(f"http://{host}/a.png")
    assert error.value.kind in ("unreachable", "bad_url")


def test_what_can_not_be_written_is_no_fault_of_the_image(web: Web, tmp_path: Path) -> None:
    (tmp_path / "downloads").write_bytes(b"")
    web.pages["/a.png"] = page(PNG)
    with pytest.raises(OSError):
        Downloader(tmp_path / "downloads", Http(private_addresses=True), MAX).fetch(web.url("/a.png"))

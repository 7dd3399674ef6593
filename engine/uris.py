"""Where an image is: a path, a file:// URI or one on an object store (`engine.places`), with any of them
`<.parquet or .arrow>#<row>` or `<.tar>#<member>`, or a URL."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote_to_bytes

from engine.errors import ConfigError, ImageError
from engine.files import normal
from engine.places import LOCAL, SCHEME, is_remote_uri
from engine.records import Item

ROW = re.compile(r"(.+\.(?:parquet|arrow))#([0-9]+)", re.DOTALL | re.IGNORECASE)
MEMBER = re.compile(r"(.+?\.tar)#(.+)", re.DOTALL | re.IGNORECASE)
URL = re.compile(r"https?://", re.IGNORECASE)
ESCAPED = "/./"  # before the name of a file on a store whose `%` and `#` are escaped; else `normal` leaves none


def uri_of(path: str) -> str:
    """The URI of a file: its absolute path as it is, links not followed; on a store its URI there.

    A file:// URI if the path is not valid UTF-8, or if `reading.read` would take it for a place inside a file; what is
    on a store is then escaped: `s3://bucket/a/./b.tar%23c.png` is the file a/b.tar#c.png.
    """
    if is_remote_uri(path):
        path = normal(path)
        return _escaped(path) if _is_inside(path) else path
    path = os.path.abspath(path)
    try:
        path.encode()
    except UnicodeEncodeError:
        return Path(path).as_uri()
    return Path(path).as_uri() if _is_inside(path) else path


def _is_inside(path: str) -> bool:
    return bool(ROW.fullmatch(path) or MEMBER.fullmatch(path))


def _escaped(path: str) -> str:
    return ESCAPED.join(path.replace("%", "%25").replace("#", "%23").rsplit("/", 1))


def _unescaped(uri: str) -> str:
    """What is not escaped as `_escaped` does it, as a list may have it, stays as it is."""
    path = uri.replace(ESCAPED, "/").replace("%23", "#").replace("%25", "%")
    return path if ESCAPED in uri and uri_of(path) == uri else uri


def is_url(uri: str) -> bool:
    """Whether it is at http(s), and its image among the downloads."""
    return URL.match(uri) is not None


def download_of(downloads: Path, url: str) -> Path:
    """The file that the image at `url` is kept in."""
    name = Item.id_of(url).hex()
    return downloads / name[:2] / name


def path_of(place: str) -> str:
    """The local path of a path or file:// URI, bytes that aren't UTF-8 escaped as Python does in paths; of what is on a
    store its URI there, nothing in it escaped. Raises ImageError for what is anywhere else."""
    if is_remote_uri(place):
        return _unescaped(place)
    if file := LOCAL.fullmatch(place):
        return os.fsdecode(unquote_to_bytes(file[1]))
    if scheme := SCHEME.match(place):
        where = "local files, s3://, gs:// and hf://"
        raise ImageError("unreadable", f"{place}: images are read from {where}, not from {scheme[0]}; download it")
    return place


def resolved(reference: str, folder: str) -> str:
    """The uri of a reference in a list or manifest: a path, relative to `folder` or not, a URI, or a place in one."""
    inside = MEMBER.fullmatch(reference) or ROW.fullmatch(reference)
    place = inside[1] if inside else reference
    if SCHEME.match(place) and not LOCAL.fullmatch(place) and not is_remote_uri(place):
        # From elsewhere; reading it says so. What isn't UTF-8 in it is escaped as in any URI.
        return re.sub("[\udc80-\udcff]", lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", reference)
    path = path_of(place)
    return uri_of(path if is_remote_uri(path) else os.path.join(folder, path)) + (f"#{inside[2]}" if inside else "")


def shown(path: str) -> str:
    """The path as it can be printed: bytes that aren't UTF-8 replaced."""
    return os.fsencode(path).decode(errors="replace")


@contextmanager
def reported(path: str, what: str) -> Iterator[None]:
    """Turns what goes wrong with a file that says which images there are into a ConfigError."""
    try:
        yield
    except FileNotFoundError:
        raise ConfigError(f"no such file: {shown(path)}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{shown(path)} can't be read as a {what}: {error}") from error

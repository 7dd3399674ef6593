"""The images of an export: referred to, linked, copied or inside, upright for readers that know nothing of EXIF."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Literal

import pyarrow as pa
from PIL import Image as Pillow

from engine.apart import Apart
from engine.atomic import write_bytes
from engine.config import Ingest, Run
from engine.errors import ImageError
from engine.files import stamp
from engine.images import HEAD_BYTES, decode, format_of, is_turned
from engine.places import is_local, is_remote_uri
from engine.reading import read
from engine.records import digest16
from engine.uris import MEMBER, ROW, download_of, is_url, path_of

How = Literal["refer", "link", "copy", "inside"]
EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WebP": "webp", "GIF": "gif", "TIFF": "tif", "BMP": "bmp", "AVIF": "avif"}
QUALITY = 95  # of a JPEG that has to be turned, without subsampling of its colours
_kept = threading.local()


@dataclass(frozen=True)
class Wanted:
    """An image of a part to be opened. Ids are in hex."""

    row: int
    item_id: str
    uri: str
    content_id: str


@dataclass(frozen=True)
class Picture:
    """An image of a part: its row, the bytes of its file, and that file's extension. `turned` says that EXIF has it
    another way up, so that it was encoded anew."""

    row: int
    data: bytes
    extension: str
    turned: bool


@dataclass(frozen=True)
class Placed:
    """What an image is called for who reads the export."""

    row: int
    name: str
    turned: bool = False


@dataclass(frozen=True)
class Lost:
    """An image whose bytes are gone, or are others by now, or which can't be opened in time."""

    row: int
    item_id: str
    uri: str
    kind: str
    message: str


@dataclass(frozen=True)
class Images:
    """Where an output's images are read, within which limits, and how they leave."""

    how: How
    ingest: Ingest
    downloads: Path
    run: Run = field(default_factory=Run)

    def pictures(self, table: pa.Table) -> Iterator[Picture | Lost]:
        """The images of a flat table, one after the other."""
        columns = (table[name].to_pylist() for name in ("row", "item_id", "uri", "content_id"))
        wanted = [Wanted(*values) for values in zip(*columns, strict=True)]
        for one, came in zip(wanted, _opener(self).each(wanted), strict=True):
            if isinstance(came, ImageError):
                yield Lost(one.row, one.item_id, one.uri, came.kind, came.message)
            else:
                yield came

    def placed(self, table: pa.Table, to: Path) -> Iterator[Placed | Lost]:
        """Images by a path relative to `to` where they are linked or copied, or else by an absolute one, or a place in
        an archive (`<path>.tar#<member>`)."""
        if self.how == "refer":
            yield from map(self._referred, *(table[name].to_pylist() for name in ("row", "item_id", "uri")))
            return
        names = dict(zip(*(table[name].to_pylist() for name in ("row", "item_id")), strict=True))
        splits, uris = (dict(zip(names, table[name].to_pylist(), strict=True)) for name in ("split", "uri"))
        for picture in self.pictures(table):
            if isinstance(picture, Lost):
                yield picture
                continue
            name = f"images/{splits[picture.row]}/{names[picture.row]}.{picture.extension}"
            place = self._file(uris[picture.row])
            if self.how == "link" and place and not picture.turned and is_local(to) and not is_remote_uri(place):
                (to / name).parent.mkdir(parents=True, exist_ok=True)
                (to / name).unlink(missing_ok=True)
                os.symlink(place, to / name)
            else:
                write_bytes(to / name, picture.data)
            yield Placed(picture.row, name, picture.turned)

    def opened(self, wanted: Wanted) -> Picture:
        """Raises ImageError."""
        data = read(wanted.uri, max_bytes=self.ingest.max_bytes, downloads=self.downloads)
        if digest16(data).hex() != wanted.content_id:
            raise ImageError("changed", f"{wanted.uri} is not the file that was ingested")
        return Picture(wanted.row, *upright(data, self.ingest.max_pixels))

    def _referred(self, row: int, item_id: str, uri: str) -> Placed | Lost:
        if uri.startswith("/") and "#" not in uri:  # as most are
            place = name = uri
        else:
            inside = MEMBER.fullmatch(uri) or ROW.fullmatch(uri)
            name = self._file(uri) or uri
            place = inside[1] if inside else name
        try:
            stamp(path_of(place))
        except (OSError, ImageError) as error:
            said = error.message if isinstance(error, ImageError) else error.strerror
            return Lost(row, item_id, uri, "missing", f"{uri} is gone: {said}")
        try:
            name.encode()
        except UnicodeEncodeError:  # a path that is no text stays the URI that it has
            name = uri
        return Placed(row, name)

    def _file(self, uri: str) -> str | None:
        """The file that holds an image and nothing else; None if it is inside of one."""
        if is_url(uri):
            return str(download_of(self.downloads, uri))
        return None if MEMBER.fullmatch(uri) or ROW.fullmatch(uri) else path_of(uri)


def _opener(images: Images) -> Apart[Wanted, Picture]:
    """Each thread has its own, and keeps it from part to part."""
    if getattr(_kept, "images", None) != images:
        _kept.images, _kept.opener = images, Apart(images.opened, images.run)
    opener: Apart[Wanted, Picture] = _kept.opener
    return opener


def upright(data: bytes, max_pixels: int) -> tuple[bytes, str, bool]:
    """An image's file, its extension, and whether it had to be encoded anew to be upright, or readable. ImageError for
    one that can't be decoded."""
    format_ = format_of(data[:HEAD_BYTES])
    if format_ in EXTENSIONS and not is_turned(data, max_pixels=max_pixels):
        return data, EXTENSIONS[format_], False
    picture, file = Pillow.fromarray(decode(data, max_pixels=max_pixels)), BytesIO()
    if format_ == "JPEG":
        picture.save(file, "JPEG", quality=QUALITY, subsampling=0)
        return file.getvalue(), "jpg", True
    picture.save(file, "PNG")
    return file.getvalue(), "png", True

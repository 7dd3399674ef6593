"""WebDataset: tar archives whose members of one name are one sample. They are read where they lie, never unpacked.

A sample is what stands together and has the same name up to the first dot behind the last slash: `0001.jpg`,
`0001.txt`, `0001.json`. An image in it is an item, with the uri `<path of the .tar>#<member>`.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from typing import Any, BinaryIO

from engine.entry import Entry, Faults, Given, GivenText
from engine.errors import ConfigError, ImageError
from engine.images import HEAD_BYTES, format_of
from engine.records import ALT, ItemError
from engine.uris import reported, shown, uri_of

IMAGES = {"jpg", "jpeg", "png", "webp", "gif", "tif", "tiff", "bmp", "avif", "img", "image"}
TEXTS, LABELS = {"txt", "caption", "text"}, {"cls", "label"}
TEXT_KEYS = ("caption", "alt", "alt_text", "text", "txt")  # in a .json, where there is no text beside it
LICENCE_KEYS = ("licence", "license")
BLOCK = 512  # bytes
LONGEST_HEADER = 1 << 14  # bytes; names have at most 4096
LONGEST = 1 << 20  # bytes of a text, label or .json that are read
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar: its name as uris have it, and where its bytes are."""

    name: str
    start: int
    size: int

    @property
    def key(self) -> str:
        folder, slash, name = self.name.rpartition("/")
        return folder + slash + name.partition(".")[0]

    @property
    def extension(self) -> str:
        return self.name.rpartition("/")[2].partition(".")[2].rpartition(".")[2].lower()


@dataclass
class Archive:
    """The members of a tar, in order. `ends_early` says where it breaks off, if it does; `repeated` are names that came
    before, of which the first counts."""

    path: str
    members: dict[str, Member] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)
    size: int = 0
    ends_early: str | None = None

    def bytes_of(self, member: Member, most: int) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(member.start)
            return file.read(min(member.size, most))

    def is_cut(self, member: Member) -> bool:
        return member.start + member.size > self.size


def entries(path: str, faults: Faults) -> Iterator[Entry]:
    """The images of a tar. A member that the archive ends in, and what would have come behind it, are entries in
    quarantine. Raises ConfigError for what is no tar, or compressed."""
    _check(path)
    archive = _archive(path, os.stat(path).st_mtime_ns)
    name = os.path.basename(path)
    for repeated in archive.repeated:
        faults.add(f"{repeated} in {name}", "repeated_name", "a member of this name came before, which is the one read")
    for key, group in groupby(archive.members.values(), key=lambda member: member.key):
        sample = list(group)
        images = [member for member in sample if _is_image(member, archive)]
        for member in sample:
            if member.extension in TEXTS and member.size > LONGEST:
                message = f"a text of {member.size:,} bytes, more than {LONGEST:,}; it was left out"
                faults.add(f"{member.name} in {name}", "too_large", message)
        if not images:
            faults.add(f"{key} in {name}", "no_image", f"a sample without an image: {_names(sample)}")
        for image in images:
            yield _entry(image, sample, archive)
    if archive.ends_early:
        message = f"{name} breaks off: {archive.ends_early}; what came behind it is lost"
        yield Entry(f"{uri_of(path)}#", error=ItemError("ingest", "truncated", message))


def read_member(path: str, modified: int, name: str, max_bytes: int) -> bytes:
    """The bytes of a member of the tar at `path`, last modified at `modified`. Raises ImageError."""
    with _lock:  # or all threads would read the index that each of them needs
        archive = _archive(path, modified)
    member = archive.members.get(name)
    if member is None:
        raise ImageError("missing", f"{path} has no member {name!r}")
    if member.size > max_bytes:
        raise ImageError("too_large", f"has {member.size:,} bytes, more than ingest.max_bytes = {max_bytes:,}")
    if archive.is_cut(member):
        raise ImageError("truncated", f"{path} ends in the middle of {name}")
    return archive.bytes_of(member, max_bytes)


def _entry(image: Member, sample: list[Member], archive: Archive) -> Entry:
    beside = _json(sample, archive)
    labels = [_text(member, archive).strip() for member in sample if member.extension in LABELS]
    error = None
    if archive.is_cut(image):
        error = ItemError("ingest", "truncated", f"{os.path.basename(archive.path)} ends in the middle of {image.name}")
    licence = next((beside[key] for key in LICENCE_KEYS if isinstance(beside.get(key), str)), None)
    return Entry(
        uri=f"{uri_of(archive.path)}#{image.name}",
        dataset=os.path.basename(archive.path).rpartition(".")[0],
        licence=_storable(licence) if licence else None,
        labels=tuple(filter(None, labels or map(_storable, _strings(beside.get("label", beside.get("labels")))))),
        error=error,
        given=lambda: _given(sample, archive),
    )


def _given(sample: list[Member], archive: Archive) -> list[Given]:
    """The texts beside an image, or else those in its .json."""
    name = os.path.basename(archive.path)
    members = [member for member in sample if member.extension in TEXTS and member.size <= LONGEST]
    texts = [(member.name, _text(member, archive)) for member in members]
    if not texts:
        beside = _json(sample, archive)
        said = next((beside[key] for key in TEXT_KEYS if beside.get(key)), None)
        texts = [(f"{sample[0].key}.json", text) for text in _strings(said)]
    return [GivenText(text, ALT, f"{where} in {name}") for where, text in texts]


def _json(sample: list[Member], archive: Archive) -> dict[str, Any]:
    member = next((member for member in sample if member.extension == "json"), None)
    if member is None or member.size > LONGEST or archive.is_cut(member):
        return {}
    try:
        value = json.loads(archive.bytes_of(member, LONGEST))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(member: Member, archive: Archive) -> str:
    return archive.bytes_of(member, LONGEST).decode("utf-8", errors="replace")


def _strings(value: Any) -> list[str]:
    """The strings in what may be one, a list of them, or anything else; numbers as they are written."""
    values = value if isinstance(value, list) else [value]
    return [str(one) for one in values if isinstance(one, str | int) and not isinstance(one, bool)]


def _storable(text: str) -> str:
    return text.encode(errors="replace").decode()


def _is_image(member: Member, archive: Archive) -> bool:
    if member.extension in IMAGES:
        return True
    if member.extension in TEXTS | LABELS | {"json"}:
        return False
    return format_of(archive.bytes_of(member, HEAD_BYTES)) is not None


def _names(sample: list[Member]) -> str:
    return ", ".join(member.name for member in sample[:5]) + (", ..." if len(sample) > 5 else "")


def _check(path: str) -> None:
    with reported(path, "tar"), open(path, "rb") as file:
        head = file.read(512)
    packed = next((name for magic, name in COMPRESSED.items() if head.startswith(magic)), None)
    if packed:
        raise ConfigError(
            f"{shown(path)} is compressed ({packed}), so no member can be read by itself; unpack it to a .tar"
        )
    if not head:
        raise ConfigError(f"{shown(path)} is empty; expected a tar of images")


@lru_cache(maxsize=4)
def _archive(path: str, modified: int) -> Archive:
    """Where the members are: headers are read one after the other, contents are skipped."""
    archive = Archive(path, size=os.path.getsize(path))
    with open(path, "rb") as file:
        try:
            _index(file, archive)
        except OSError:
            raise
        except Exception as error:  # of a broken header: ReadError, ValueError, IndexError, RecursionError, ...
            archive.ends_early = f"a header is broken ({type(error).__name__}: {error})"
    if archive.ends_early and not archive.members:
        raise ConfigError(f"{shown(path)} can't be read as a tar: {archive.ends_early}")
    return archive


def _index(file: BinaryIO, archive: Archive) -> None:
    tar = tarfile.TarFile(fileobj=_Headers(file), encoding="utf-8", errors="surrogateescape")  # type: ignore[arg-type]
    while (info := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps all that it has seen
        if info.size < 0 or tar.offset <= info.offset:
            archive.ends_early = f"the header at {info.offset:,} bytes is broken"
            return
        # Bytes that aren't UTF-8 are escaped as in any URI.
        name = re.sub("[\udc80-\udcff]", lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", info.name)
        hidden = name.rpartition("/")[2].startswith(".")  # what macOS puts beside each file
        if info.isreg() and not info.issparse() and not hidden:
            if name in archive.members:
                archive.repeated.append(name)
            else:
                archive.members[name] = Member(name, info.offset_data, info.size)
        if tar.offset > archive.size:
            archive.ends_early = f"it ends inside {name}"
            return
    # tarfile takes whatever it can't read for the end; the end is a block of zeros.
    file.seek(tar.offset)
    if file.read(BLOCK) != bytes(BLOCK):
        archive.ends_early = f"there is no header at {tar.offset:,} bytes, and no end of the archive"


class _Headers:
    """What tarfile may read of a file: it would take a header of whatever size it claims to have, and search it in
    quadratic time."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._read(size)

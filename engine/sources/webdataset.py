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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import groupby
from typing import Any, BinaryIO

from engine.entry import Entry, Faults, Given, GivenText
from engine.errors import ConfigError, EngineError, ImageError
from engine.files import opened, piece, stamp
from engine.images import HEAD_BYTES, format_of
from engine.records import ALT, ItemError
from engine.sources import documents
from engine.uris import reported, shown, uri_of

IMAGES = {"jpg", "jpeg", "png", "webp", "gif", "tif", "tiff", "bmp", "avif", "img", "image"}
TEXTS, LABELS = {"txt", "caption", "text"}, {"cls", "label"}
TEXT_KEYS = ("caption", "alt", "alt_text", "text", "txt")  # in a .json, where there is no text beside it
LICENCE_KEYS = ("licence", "license")
ABOUT = ("dataset", "licence", "labels")  # of a document
BLOCK, RECORD = 512, 10_240  # bytes; what tar fills up its files to
LONGEST_HEADER = 1 << 14  # bytes; names have at most 4096
LONGEST = 1 << 20  # bytes of a text or label that are read
LONGEST_JSON = 1 << 26  # of a document, with masks of everything
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
    """The members of a tar, in order. `left_out` are names that don't count, each with a word and a sentence why;
    `ends_early` says where the tar breaks off, if it does."""

    path: str
    members: dict[str, Member] = field(default_factory=dict)
    left_out: list[tuple[str, str, str]] = field(default_factory=list)
    size: int = 0
    ends_early: str | None = None

    def is_cut(self, member: Member) -> bool:
        return member.start + member.size > self.size


def entries(path: str, faults: Faults) -> Iterator[Entry]:
    """The images of a tar. A member that the archive ends in, and what would have come behind it, are entries in
    quarantine. Raises ConfigError for what is no tar, or compressed."""
    _check(path)
    archive = _archive(path, stamp(path)[1])
    name = os.path.basename(path)
    for other, kind, message in archive.left_out:
        faults.add(f"{other} in {name}", kind, message)
    for key, group in groupby(archive.members.values(), key=lambda member: member.key):
        sample = list(group)
        images = [member for member in sample if _is_image(member, archive)]
        if not images:
            faults.add(f"{key} in {name}", "no_image", f"a sample without an image: {_names(sample)}")
            continue
        beside = _Beside(archive, name)
        for member in sample:
            beside.add(member, faults)
        for image in images:
            yield _entry(image, beside, archive)
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
    return _bytes(path, member, max_bytes)


@dataclass
class _Beside:
    """What is beside the images of a sample, and there as a whole; what isn't is a fault."""

    archive: Archive
    name: str
    texts: list[Member] = field(default_factory=list)
    labels: list[Member] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)  # the .json, its keys in lower case
    said: list[str] = field(default_factory=list)  # the texts in it
    document: Member | None = None  # the .json, if it has all that is known

    def add(self, member: Member, faults: Faults) -> None:
        kind = member.extension
        if kind not in TEXTS | LABELS | {"json"}:
            return
        where = f"{member.name} in {self.name}"
        if self.archive.is_cut(member):
            faults.add(where, "truncated", "the archive ends in the middle of it; it was left out")
        elif member.size > (most := LONGEST_JSON if kind == "json" else LONGEST):
            faults.add(where, "too_large", f"has {member.size:,} bytes, more than {most:,}; it was left out")
        elif kind != "json":
            (self.texts if kind in TEXTS else self.labels).append(member)
        elif (about := _object(self.archive.path, member)) is None:
            faults.add(where, "bad_json", "is no JSON object; it was left out")
        elif documents.is_document(about):
            self.document = member
            self.about = {key: about.get(key) for key in ABOUT}
        else:
            self.about = about
            value = next((about[key] for key in TEXT_KEYS if about.get(key)), None)
            self.said = _strings(value)
            if value and not self.said:
                faults.add(where, "bad_text", f"its text is a {type(value).__name__}; it was left out")

    def given(self) -> Callable[[], list[Given]]:
        """Fetches what is in the document, or the texts, or else those in the .json. A million of these are in memory:
        it holds on to no more."""
        if self.document:
            return partial(_documented, self.archive.path, self.document)
        return partial(_given, self.archive.path, tuple(self.texts), () if self.texts else tuple(self.said))


def _given(path: str, texts: Sequence[Member], said: Sequence[str]) -> list[Given]:
    name = os.path.basename(path)
    told = [GivenText(_text(path, member), ALT, f"{member.name} in {name}") for member in texts]
    return [*told, *(GivenText(text, ALT, f"a .json in {name}") for text in said)]


def _documented(path: str, member: Member) -> list[Given]:
    return documents.given_in(_object(path, member) or {}, f"{member.name} in {os.path.basename(path)}")


def _entry(image: Member, beside: _Beside, archive: Archive) -> Entry:
    labels = [_text(archive.path, member).strip() for member in beside.labels]
    labels = labels or [_storable(label) for key in ("label", "labels") for label in _strings(beside.about.get(key))]
    licence = next((beside.about[key] for key in LICENCE_KEYS if isinstance(beside.about.get(key), str)), None)
    error = None
    if archive.is_cut(image):
        error = ItemError("ingest", "truncated", f"{os.path.basename(archive.path)} ends in the middle of {image.name}")
    return Entry(
        uri=f"{uri_of(archive.path)}#{image.name}",
        dataset=_dataset(beside, archive),
        licence=_storable(licence) if licence else None,
        labels=tuple(filter(None, labels)),
        error=error,
        given=beside.given(),
    )


def _dataset(beside: _Beside, archive: Archive) -> str | None:
    if not beside.document:
        return os.path.basename(archive.path).rpartition(".")[0]
    name = beside.about.get("dataset")
    return _storable(name) if isinstance(name, str) else None


def _object(path: str, member: Member) -> dict[str, Any] | None:
    try:
        value = json.loads(_bytes(path, member, LONGEST_JSON))
    except (ValueError, RecursionError):
        return None
    return {key.lower(): value for key, value in value.items()} if isinstance(value, dict) else None


def _bytes(path: str, member: Member, most: int = LONGEST) -> bytes:
    return piece(path, member.start, min(member.size, most))


def _text(path: str, member: Member) -> str:
    return _bytes(path, member).decode("utf-8", errors="replace")


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
    return format_of(_bytes(archive.path, member, HEAD_BYTES)) is not None


def _names(sample: list[Member]) -> str:
    return ", ".join(member.name for member in sample[:5]) + (", ..." if len(sample) > 5 else "")


def _check(path: str) -> None:
    with reported(path, "tar"):
        head = piece(path, 0, 512)
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
    archive = Archive(path, size=stamp(path)[0])
    with opened(path) as file:
        try:
            _index(file, archive)
        except (OSError, EngineError):  # of the disk or the store
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
        _add(info, archive)
        if tar.offset > archive.size:
            archive.ends_early = f"it ends inside {info.name!r}"
            return
    # tarfile takes whatever it can't read for the end; the end is a block of zeros, and nothing but zeros behind it.
    file.seek(tar.offset)
    if file.read(BLOCK) != bytes(BLOCK):
        archive.ends_early = f"there is no header at {tar.offset:,} bytes, and no end of the archive"
    elif file.read(RECORD).strip(b"\0"):
        archive.ends_early = f"more follows behind its end at {tar.offset:,} bytes; join tars by tar --concatenate"


def _add(info: tarfile.TarInfo, archive: Archive) -> None:
    # Bytes that aren't UTF-8 are escaped as in any URI.
    name = re.sub("[\udc80-\udcff]", lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", info.name)
    hidden = name.rpartition("/")[2].startswith(".")  # what macOS puts beside each file
    original = archive.members.get(info.linkname) if info.islnk() else None  # a second name for a file
    if hidden or info.isdir():
        return
    if name in archive.members:
        archive.left_out.append((name, "repeated_name", "a member of this name came before, which is the one read"))
    elif original is not None:
        archive.members[name] = Member(name, original.start, original.size)
    elif info.isreg() and not info.issparse():
        archive.members[name] = Member(name, info.offset_data, info.size)
    else:
        archive.left_out.append((name, "not_a_file", "a link that leads elsewhere, a device or a sparse file"))


class _Headers:
    """What tarfile may read of a file: it would take a header of whatever size it claims to have, and search it in
    quadratic time."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._read(size)

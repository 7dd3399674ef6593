"""Where the values of a JSON object's keys lie in its file: gigabytes are parsed once, in the order that suits.

ijson reads any one of them as it streams, but parses all of the file for each, and takes time quadratic in the depth of
what it passes by. Finding brackets with NumPy is three times as fast, and says how deep they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import ijson
import numpy as np

from engine.files import MOST_BYTES, opened, stamp

CHUNK = 1 << 20
BLOCK_BYTES = 1 << 24  # of a file on a store, which is read from front to back
DEEPEST = 64  # COCO has 5: object, annotations, annotation, segmentation, polygon
ESCAPED = re.compile(rb"\\.", re.DOTALL)
BARE = re.compile(rb"NaN|-?Infinity")
IN_BARE = re.compile(rb"[-A-Za-z]")
LONGEST_BARE = len("-Infinity")
KEY = re.compile(rb'"([^"\\]{1,200})"\s*:\s*\Z')


@dataclass(frozen=True)
class Section:
    """The bytes [start, stop) of the file at `path`: a JSON list or object, still to be parsed."""

    path: str
    start: int
    stop: int

    def items(self) -> Iterator[Any]:
        """The values of the list, one by one. Raises ValueError where it is no list, or no JSON."""
        with opened(self.path, BLOCK_BYTES) as file:
            file.seek(self.start)
            if file.read(1) != b"[":
                raise ValueError("expected a list, not an object")
            yield from self._parsed(file, "item")

    def value(self) -> Any:
        """All of it at once. Raises ValueError where it is no JSON."""
        with opened(self.path, BLOCK_BYTES) as file:
            return next(self._parsed(file, ""))

    def _parsed(self, file: BinaryIO, prefix: str) -> Iterator[Any]:
        file.seek(self.start)
        until = _Until(file, self.stop)
        try:
            for value in ijson.items(until, prefix, use_float=True, buf_size=CHUNK):
                until.taken = 0
                yield value
        except ijson.JSONError as error:
            raise ValueError(f"no valid JSON: {str(error).splitlines()[0]}") from None


@dataclass
class _Strings:
    """Where strings are, chunk by chunk."""

    _in_string: bool = False
    _escaped: bool = False

    def inside(self, chunk: bytes) -> Any:
        """For each byte of the next chunk, which isn't empty, whether it is in a string; its first quote is, too."""
        text = b" " + chunk[1:] if self._escaped else chunk
        if b"\\" in text:
            text = ESCAPED.sub(b"  ", text)
        self._escaped = text.endswith(b"\\")
        quotes = np.frombuffer(text, np.uint8) == ord('"')
        inside = np.logical_xor.accumulate(quotes) ^ self._in_string
        self._in_string = bool(inside[-1])
        return inside


@dataclass
class _Until:
    """A file that ends earlier, with null for what is no JSON but comes out of Python's json: NaN and Infinity. `taken`
    are the bytes read since its reader had a value; ValueError where they are too many."""

    file: BinaryIO
    stop: int
    taken: int = 0
    strings: _Strings = field(default_factory=_Strings)

    def read(self, size: int) -> bytes:
        data = self._raw(size)
        self.taken += len(data)
        if self.taken > MOST_BYTES + CHUNK:  # a value may begin anywhere in a chunk
            raise ValueError(f"a value has more than {MOST_BYTES:,} bytes")
        if not data:
            return data
        for _ in range(LONGEST_BARE):  # or one of them might be cut in two
            data += self._raw(1) if IN_BARE.fullmatch(data[-1:]) else b""
        inside, parts, done = self.strings.inside(data), [], 0
        for bare in BARE.finditer(data) if b"NaN" in data or b"Infinity" in data else ():  # the search is slow
            if not inside[bare.start()]:
                parts += [data[done : bare.start()], b"null"]
                done = bare.end()
        return b"".join([*parts, data[done:]])

    def _raw(self, size: int) -> bytes:
        return self.file.read(min(size, self.stop - self.file.tell()))


def sections(path: str) -> dict[str, Section]:
    """The lists and objects that a JSON object has, by key. Raises ValueError for what is none, or is cut off."""
    with opened(path, BLOCK_BYTES) as file:
        begins = file.read(1000).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
        if begins != b"{":
            raise ValueError("expected a JSON object" + (", not a list" if begins == b"[" else ""))
        file.seek(0)
        bounds = list(_bounds(file))
        found: dict[str, Section] = {}
        for start, stop in zip(bounds[::2], bounds[1::2], strict=True):
            if key := _key(file, start):
                if key in found:
                    raise ValueError(f"the key {key!r} stands twice")
                found[key] = Section(path, start, stop)
    return found


def list_of(path: str) -> Section:
    """The list that a file consists of. Raises ValueError for what is none, or is cut off."""
    with opened(path, BLOCK_BYTES) as file:
        start = 3 if file.read(3) == b"\xef\xbb\xbf" else 0
        file.seek(start)
        beginning = file.read(1000)
        start += len(beginning) - len(beginning.lstrip())
        if beginning.lstrip()[:1] != b"[":
            raise ValueError("expected a JSON list")
        file.seek(0)
        for _ in _bounds(file):
            pass  # which raises where it is nested too deep
    return Section(path, start, stamp(path)[0])


def _key(file: BinaryIO, start: int) -> str | None:
    """The key of the value that begins at `start`."""
    before = max(0, start - 256)
    file.seek(before)
    match = KEY.search(file.read(start - before))
    return match[1].decode(errors="replace") if match else None


def _bounds(file: BinaryIO) -> Iterator[int]:
    """Where the lists and objects directly inside the outermost object begin and end, in turn."""
    depth = 0
    for places, steps in _brackets(file):
        depths = depth + np.cumsum(steps)
        if len(depths) == 0:
            continue
        if depths.max() > DEEPEST or depths.min() < 0:
            raise ValueError("a bracket too many is closed" if depths.min() < 0 else f"nested deeper than {DEEPEST}")
        at = np.flatnonzero(((steps > 0) & (depths == 2)) | ((steps < 0) & (depths == 1)))
        yield from (places[at] + (steps[at] < 0)).tolist()
        depth = int(depths[-1])
    if depth:
        raise ValueError("it is cut off: not all brackets are closed")


def _brackets(file: BinaryIO) -> Iterator[tuple[Any, Any]]:
    """The brackets outside of strings, chunk by chunk: where they are, and +1 where one opens, -1 where one closes."""
    start, strings = 0, _Strings()
    while chunk := file.read(CHUNK):
        folded = np.frombuffer(chunk, np.uint8) | 0x20  # [ and { become {, ] and } become }
        steps = (folded == ord("{")).astype(np.int8) - (folded == ord("}"))
        places = np.flatnonzero((steps != 0) & ~strings.inside(chunk))
        yield start + places, steps[places]
        start += len(chunk)

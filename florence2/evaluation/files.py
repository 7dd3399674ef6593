"""Files that benchmarks are published in: nothing in them is trusted, and what doesn't fit is said with its file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path, PurePosixPath
from reprlib import Repr
from typing import Any, TypeVar

from florence2.errors import Florence2Error

T = TypeVar("T")
Number = int | float
# What is in a pickle may hold itself many times: it is written out only so far.
_short = Repr()
_short.maxlevel, _short.maxstring, _short.maxother = 3, 200, 200
repr_of = _short.repr


@dataclass(frozen=True)
class Photo:
    """An image of a benchmark. file: its name, as the benchmark has it. size: (width, height) that its boxes are in."""

    id: int | str
    file: str
    size: tuple[int, int] | None = None


def photo(id: int | str, file: str, size: tuple[int, int] | None, where: object) -> Photo:
    """Florence2Error, which begins with `where`, for a file outside the images' folder, or a size that no image has."""
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts or "\0" in file or not path.name:
        raise Florence2Error(f"{where}: image {id}: expected a file's name in the images' folder, got {repr_of(file)}")
    if size is not None and not all(0 < side < 2**20 for side in size):
        raise Florence2Error(f"{where}: image {id}: expected a size in pixels above 0, got {size!s:.200}")
    return Photo(id, file, size)


def found(data: Path, names: Sequence[str], what: str) -> Path:
    """The file that `data` is, or the first of these names in the folder that it is; Florence2Error lists them."""
    if data.is_file():
        return data
    for name in names:
        if (data / name).is_file():
            return data / name
    problem = "is a folder without them" if data.is_dir() else "there is no such file or folder"
    raise Florence2Error(f"{data}: expected {what}: {' or '.join(names)}; {problem}")


def read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Florence2Error(f"{path}: expected JSON, got something else or a part of it ({error})") from None
    if not isinstance(data, dict):
        raise Florence2Error(f"{path}: expected a JSON object, got a {type(data).__name__}")
    return data


@dataclass(frozen=True)
class Entry:
    """A dict of a file, whose values are asked for with the type that they are to have; `where` says which it is."""

    values: dict[Any, Any]
    where: str

    def get(self, key: str, kind: type[T]) -> T:
        value = self.values.get(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            expected = "list" if kind is list else kind.__name__
            raise Florence2Error(f"{self.where}: expected {key!r}, {expected}; got {repr_of(value)}")
        return value

    def entries(self, key: str) -> Iterator[Entry]:
        """Those of a list of dicts."""
        for n, value in enumerate(self.get(key, list)):
            if not isinstance(value, dict):
                raise Florence2Error(f"{self.where}: {key}[{n}]: expected an object, got {repr_of(value)}")
            yield Entry(value, f"{self.where}: {key}[{n}]")

    def numbers(self, key: str, count: int | None = None) -> list[float]:
        """`count` finite numbers."""
        values: list[Any] = self.get(key, list)
        if not are_numbers(values) or count not in (None, len(values)):
            raise Florence2Error(
                f"{self.where}: expected {key!r}, {count or 'some'} finite numbers; got {repr_of(values)}"
            )
        return [float(value) for value in values]


def are_numbers(values: object) -> bool:
    """Finite ones; 10**400 is none, as no float is as large."""
    try:
        return isinstance(values, list) and all(
            isinstance(v, int | float) and not isinstance(v, bool) and isfinite(v) for v in values
        )
    except OverflowError:
        return False

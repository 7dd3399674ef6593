"""The rows of .csv and .tsv files that nobody vouches for: whatever is wrong with a line costs that line alone."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import TextIOWrapper
from typing import TextIO

from engine import files
from engine.entry import Faults
from engine.untrusted import LONGEST_TEXT

LONGEST_FIELD = LONGEST_TEXT  # more is a quote that never ends, or no text at all
LONGEST_LINE = 1 << 20
QUOTED = re.compile('"((?:[^"]|"")*)"')
ESCAPED = re.compile("[\udc80-\udcff]")  # as Python escapes bytes that aren't UTF-8


@contextmanager
def opened(path: str) -> Iterator[TextIO]:
    """A table as `rows` reads it."""
    with TextIOWrapper(files.opened(path), encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        yield file


def rows(file: TextIO, tabs: bool, name: str, faults: Faults) -> Iterator[tuple[int, list[str]]]:
    """The rows that aren't empty, each with the number of the line it begins in. `name` is the file's, for `faults`.

    Where commas part them, quotes hold fields together, over several lines too. Where tabs do, a line is a row and
    quotes are characters, as web texts have them: "a cat" says the dog; but around a whole field they are left away.
    """
    lines = _lines(file, name, faults)
    found = _parted_by_tabs(lines, name, faults) if tabs else _parted_by_commas(_Again(lines), name, faults)
    return ((number, row) for number, row in found if any(value.strip() for value in row))


def _lines(file: TextIO, name: str, faults: Faults) -> Iterator[str]:
    """The lines, the endless ones in pieces. Those that aren't UTF-8 are taken for Windows' Western European."""
    told = False
    for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), ""), 1):
        if line.isascii() or not ESCAPED.search(line):
            yield line
            continue
        if not told:
            message = "expected UTF-8; it was read as Windows-1252, and so is every other line that isn't UTF-8"
            faults.add(f"line {number} of {name}", "not_utf8", message)
            told = True
        yield line.encode(errors="surrogateescape").decode("cp1252", errors="replace")


def _parted_by_tabs(lines: Iterable[str], name: str, faults: Faults) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines, 1):
        row = line.rstrip("\r\n").split("\t")
        if max(map(len, row)) > LONGEST_FIELD:
            message = f"a field has more than {LONGEST_FIELD} characters; the row was left out"
            faults.add(f"line {number} of {name}", "bad_row", message)
        else:
            yield number, [_unquoted(value) for value in row]


def _unquoted(value: str) -> str:
    whole = QUOTED.fullmatch(value)
    return whole[1].replace('""', '"') if whole else value


@dataclass
class _Again:
    """Lines of which all but the first one of a row can be read again."""

    lines: Iterator[str]
    row: list[str] = field(default_factory=list)
    number: int = 1  # of the line that the row begins in
    _waiting: deque[str] = field(default_factory=deque)

    def __iter__(self) -> _Again:
        return self

    def __next__(self) -> str:
        line = self._waiting.popleft() if self._waiting else next(self.lines)
        self.row.append(line)
        return line

    def end_row(self, lines: int) -> None:
        """The row has that many lines; those that were read after them come again."""
        self._waiting.extendleft(reversed(self.row[lines:]))
        self.number += lines
        self.row.clear()


def _parted_by_commas(lines: _Again, name: str, faults: Faults) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader(lines, strict=True)
    while True:
        row: list[str] | None
        try:
            row = next(reader)
            count = len(lines.row)
        except StopIteration:
            return
        except csv.Error as error:
            row, count = _alone(lines.row[0]), 1
            if row is None:
                message = f"{error}; a quote that isn't closed? The row was left out, and the lines below it read anew"
                faults.add(f"line {lines.number} of {name}", "bad_row", message)
            reader = csv.reader(lines, strict=True)
        number = lines.number
        lines.end_row(count)
        if row is not None:
            yield number, row


def _alone(line: str) -> list[str] | None:
    """A line with odd quotes as a row, such as `"a" b,c`; None if one of them isn't closed in it."""
    reader = csv.reader([line, ""])
    try:
        row = next(reader)
    except csv.Error:
        return None
    return row if reader.line_num == 1 else None

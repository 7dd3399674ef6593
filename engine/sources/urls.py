"""Lists of URLs with what the web says beside each image: .tsv, .csv and .parquet, as CC3M and LAION have them."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO

from engine import manifest
from engine.entry import Entry, Faults, GivenText
from engine.errors import ConfigError
from engine.records import ALT
from engine.uris import is_url, reported, shown

# Names of columns, in lower case; of several the first one here is taken.
URLS = ("url", "image_url", "uri")
TEXTS = ("caption", "alt", "alt_text", "text")
LICENCES = ("licence", "license")
LONGEST_FIELD = 1 << 17  # characters; more is a quote that never ends, or no text at all
LONGEST_LINE = 1 << 20


@dataclass(frozen=True, slots=True)
class Columns:
    """The places of the columns in a row; None for what a list doesn't have."""

    url: int
    text: int | None
    licence: int | None

    @classmethod
    def named(cls, names: Sequence[str]) -> Columns | None:
        """Those of a header; None if none of them is one of URLs."""
        lower = [name.strip().lower() for name in names]
        url, text, licence = (
            next((lower.index(name) for name in known if name in lower), None) for known in (URLS, TEXTS, LICENCES)
        )
        return None if url is None else cls(url, text, licence)


def entries(path: str, faults: Faults) -> Iterator[Entry]:
    """The rows of a .csv or .tsv list; what can't be used of them goes to `faults`."""
    with reported(path, "list of URLs"), open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        tabs = path.lower().endswith(".tsv")
        first = next(_rows(file, path, tabs, False, faults), (0, []))[1]
        bare = next((n for n, value in enumerate(first) if is_url(value.strip())), None)
        if bare is None:
            columns = Columns.named(first)
            if columns is None:
                raise _no_urls(path, first)
        else:  # CC3M has the caption first, CC12M the URL
            other = next((n for n in range(len(first)) if n != bare), None)
            columns = Columns(bare, other, None)
        file.seek(0)
        rows = _rows(file, path, tabs, tabs and bare is not None, faults)
        if bare is None:
            next(rows, None)
        for line, row in rows:
            yield from _entry(row, columns, f"line {line}", os.path.basename(path), faults)


def parquet_entries(path: str, faults: Faults) -> Iterator[Entry]:
    """The rows of a Parquet file with a column of URLs."""
    names = manifest.names(path)
    columns = Columns.named(names)
    if columns is None:
        raise _no_urls(path, names)
    places = [place for place in (columns.url, columns.text, columns.licence) if place is not None]
    found = Columns.named([names[place] for place in places])
    assert found is not None
    for number, row in enumerate(manifest.text_rows(path, [names[place] for place in places])):
        yield from _entry(row, found, f"row {number}", os.path.basename(path), faults)


def is_list(names: Sequence[str]) -> bool:
    """Whether a Parquet file with these columns is a list of URLs, and not a manifest."""
    return not {"uri", "bytes", "image"} & set(names) and Columns.named(names) is not None


def _entry(row: Sequence[str | None], columns: Columns, place: str, name: str, faults: Faults) -> Iterator[Entry]:
    url, text, licence = (_value(row, at) for at in (columns.url, columns.text, columns.licence))
    if not url or not is_url(url):
        what = f"{url[:200]!r} is no http:// or https:// URL" if url else "no URL"
        faults.add(f"{place} of {shown(name)}", "bad_url", f"{what}; the row was left out")
        return
    given = partial(_given, text, place, name) if text else tuple
    yield Entry(url, licence=licence or None, given=given)


def _given(text: str, place: str, name: str) -> tuple[GivenText]:
    return (GivenText(text, ALT, f"{place} of {shown(name)}"),)


def _value(row: Sequence[str | None], at: int | None) -> str:
    return (row[at] or "").strip() if at is not None and at < len(row) else ""


def _rows(file: IO[str], path: str, tabs: bool, plain: bool, faults: Faults) -> Iterator[tuple[int, list[str]]]:
    """The rows that aren't empty, each with the number of the line it begins in.

    In a `plain` list quotes are quotes, as in CC3M's captions; else they hold fields together.
    """
    csv.field_size_limit(LONGEST_FIELD)
    delimiter = "\t" if tabs else ","
    lines = _lines(file)
    if plain:
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines, delimiter=delimiter)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            where = f"lines {line} to {reader.line_num} of {shown(os.path.basename(path))}"
            faults.add(where, "bad_row", f"{error}; a quote that doesn't end? They were left out")
            continue
        if any(value.strip() for value in row):
            yield line, row


def _lines(file: IO[str]) -> Iterable[str]:
    """The lines, the endless ones in pieces."""
    return iter(lambda: file.readline(LONGEST_LINE), "")


def _no_urls(path: str, names: Sequence[str]) -> ConfigError:
    found = ", ".join(repr(name[:50]) for name in names[:20]) or "none"
    return ConfigError(
        f"{shown(path)} is no list of URLs: expected a column of {', '.join(URLS)} (and optionally one of "
        f"{', '.join(TEXTS)}, and one of {', '.join(LICENCES)}), or URLs in the first row; found the columns {found}"
    )

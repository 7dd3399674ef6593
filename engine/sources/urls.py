"""Lists of URLs with what the web says beside each image: .tsv, .csv and .parquet, as CC3M and LAION have them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from itertools import chain

from engine import manifest
from engine.entry import Entry, Faults, GivenText
from engine.errors import ConfigError
from engine.records import ALT
from engine.sources import tables
from engine.uris import is_url, reported, shown

# Names of columns, in lower case; of several the first one here is taken.
URLS = ("url", "image_url", "uri")
TEXTS = ("caption", "alt", "alt_text", "text")
LICENCES = ("licence", "license")


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
    with reported(path, "list of URLs"), tables.opened(path) as file:
        rows = tables.rows(file, path.lower().endswith(".tsv"), shown(os.path.basename(path)), faults)
        first = next(rows, (1, []))
        columns = _without_header(first[1])
        if columns is None:
            columns = _named(path, first[1])
        else:
            rows = chain([first], rows)
        where = f"line {{}} of {_name(path)}"
        for line, row in rows:
            yield from _entry(row, columns, where, line, faults)


def parquet_entries(path: str, faults: Faults) -> Iterator[Entry]:
    """The rows of a Parquet file for which `is_parquet_list`."""
    names = manifest.names(path)
    wanted = [names[place] for place in astuple(_named(path, names)) if place is not None]
    columns = _named(path, wanted)
    where = f"row {{}} of {_name(path)}"
    for number, row in enumerate(manifest.text_rows(path, wanted)):
        yield from _entry(row, columns, where, number, faults)


def is_parquet_list(path: str) -> bool:
    """Whether a Parquet file has a column of URLs, and isn't a manifest."""
    return not manifest.is_manifest(path) and Columns.named(manifest.names(path)) is not None


def _named(path: str, names: Sequence[str]) -> Columns:
    columns = Columns.named(names)
    if columns is None:
        raise _no_urls(path, names)
    return columns


def _without_header(first: Sequence[str]) -> Columns | None:
    """The columns of a list that begins with a URL, in any of them: CC3M has the text first, CC12M last. The text is
    the one with the most letters in it, of several: others are numbers and ids."""
    url = next((place for place, value in enumerate(first) if is_url(value.strip())), None)
    if url is None:
        return None
    others = [place for place, value in enumerate(first) if not is_url(value.strip())]
    return Columns(url, max(others, key=lambda place: sum(map(str.isalpha, first[place])), default=None), None)


def _entry(row: Sequence[str | None], columns: Columns, where: str, number: int, faults: Faults) -> Iterator[Entry]:
    url, text, licence = (_value(row, at) for at in (columns.url, columns.text, columns.licence))
    if not url or not is_url(url):
        what = f"{url[:200]!r} is no http:// or https:// URL" if url else "no URL"
        faults.add(where.format(number), "bad_url", f"{what}; the row was left out")
        return
    given = partial(_given, text, where, number) if text else tuple
    yield Entry(url, licence=licence or None, given=given)


def _name(path: str) -> str:
    """The name of a list, as a part of a format string."""
    return shown(os.path.basename(path)).replace("{", "{{").replace("}", "}}")


def _given(text: str, where: str, number: int) -> tuple[GivenText]:
    return (GivenText(text, ALT, where.format(number)),)


def _value(row: Sequence[str | None], at: int | None) -> str:
    return (row[at] or "").strip() if at is not None and at < len(row) else ""


def _no_urls(path: str, names: Sequence[str]) -> ConfigError:
    found = ", ".join(repr(name[:50]) for name in names[:20]) or "none"
    return ConfigError(
        f"{shown(path)} is no list of URLs: expected a column of {', '.join(URLS)} (and optionally one of "
        f"{', '.join(TEXTS)}, and one of {', '.join(LICENCES)}), or URLs in the first row; found the columns {found}"
    )

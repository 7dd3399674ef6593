"""What came along with the images of a set, by image, in a database of its own on disk: it may have gigabytes.

It is a temporary file of SQLite's, in the folder that SQLITE_TMPDIR or TMPDIR names, and is gone when nobody uses it.
"""

from __future__ import annotations

import pickle
import sqlite3
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import TypeAlias

from engine.entry import (
    MOST_KEPT,
    Entry,
    Faults,
    Given,
    GivenMask,
    GivenRegion,
    GivenRegionText,
    GivenText,
    GivenTriplet,
)
from engine.errors import RunError
from engine.records import ItemError

Id: TypeAlias = int | str
TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -65536;  -- KiB
CREATE TABLE images (number INTEGER PRIMARY KEY, uri TEXT UNIQUE, scope, name, dataset, licence, kind, message);
CREATE TABLE ids (scope, id, image INTEGER, height, width, PRIMARY KEY (scope, id)) WITHOUT ROWID;
CREATE TABLE labels (scope, id, label);
CREATE TABLE given (number INTEGER PRIMARY KEY, scope, id, key, value);
"""
INDEXES = (
    "CREATE INDEX ids_of ON ids (image)",
    "CREATE INDEX labels_of ON labels (scope, id)",
    "CREATE INDEX given_of ON given (scope, id)",
)
REPEATED = """
SELECT value, number FROM given JOIN (
    SELECT number, row_number() OVER (PARTITION BY scope, key ORDER BY number) AS nth FROM given WHERE key IS NOT NULL
) USING (number) WHERE nth > 1
"""
NO_IMAGE = """
SELECT value, number FROM given WHERE NOT EXISTS (SELECT * FROM ids WHERE ids.scope = given.scope AND ids.id = given.id)
"""
TYPES = (GivenText, GivenRegion, GivenRegionText, GivenMask, GivenTriplet)
FIELDS = [attrgetter(*type_.__slots__) for type_ in TYPES]


class Index:
    """Images, by URI, and what came along with them, by the ids that a list has for images.

    A `scope` is where an id holds: a file has its own. `faults` are those of the lists.
    """

    def __init__(self, arrange: Callable[[list[Given]], Sequence[Given]] = list) -> None:
        self.faults = Faults()
        self.arrange = arrange
        self.connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self.connection.close)
        self.connection.executescript(TABLES)

    def image(
        self,
        scope: int,
        id_: Id,
        uri: str,
        where: str,
        *,
        name: str,
        size: tuple[int, int] | None = None,
        dataset: str | None = None,
        licence: str | None = None,
        error: ItemError | None = None,
    ) -> None:
        """An image under the id and name that its list has for it; `size` (height, width) is of what comes along."""
        there = self.connection.execute("SELECT number, scope, name FROM images WHERE uri = ?", (uri,)).fetchone()
        if there and there[1] == scope and there[2] != name:
            self.faults.add(where, "repeated_image", f"{name} is the same file as {there[2]}; it was left out")
            return
        kind, message = (error.kind, error.message) if error else (None, None)
        image = (uri, scope, name, dataset, licence, kind, message)
        number = there[0] if there else self._insert("images", None, *image).lastrowid
        if not self._insert("ids", scope, id_, number, *(size or (None, None))).rowcount:
            first = self.connection.execute("SELECT image FROM ids WHERE scope = ? AND id = ?", (scope, id_)).fetchone()
            if first != (number,):
                message = f"image id {id_} stands for another image already; {name} comes without anything along"
                self.faults.add(where, "repeated_image_id", message)

    def give(self, rows: Iterable[tuple[int, Id, Id | None, Given]]) -> None:
        """What came along: scope and id of its image, the key that it has in its scope if it has one, and itself."""
        packed = ((*row, _pack(given)) for *row, given in rows)
        self.connection.executemany("INSERT INTO given (scope, id, key, value) VALUES (?, ?, ?, ?)", packed)

    def label(self, rows: Iterable[tuple[int, Id, str]]) -> None:
        self.connection.executemany("INSERT INTO labels VALUES (?, ?, ?)", rows)

    def entries(self, faults: Faults) -> Iterator[Entry]:
        """The images in the order in which they came. `faults` gets those of the lists."""
        faults.counts.update(self.faults.counts)
        faults.first += self.faults.first[: MOST_KEPT - len(faults.first)]
        columns = "number, uri, dataset, licence, kind, message"
        images = self.connection.execute(f"SELECT {columns} FROM images ORDER BY number")
        for number, uri, dataset, licence, kind, message in images:
            error = ItemError("ingest", kind, message) if kind else None
            yield Entry(uri, dataset, licence, self._labels(number), error, partial(self.given, number))

    def given(self, number: int) -> Sequence[Given]:
        """What came along with an image, in the order in which it came."""
        columns = "value, height, width"
        query = f"SELECT {columns} FROM ids JOIN given USING (scope, id) WHERE image = ? ORDER BY given.number"
        return self.arrange([_unpack(*row) for row in self.connection.execute(query, (number,))])

    def _labels(self, number: int) -> tuple[str, ...]:
        query = "SELECT DISTINCT label FROM ids JOIN labels USING (scope, id) WHERE image = ? ORDER BY labels.rowid"
        return tuple(label for (label,) in self.connection.execute(query, (number,)))

    def finish(self) -> None:
        """To be called when all is in it. What has the key of an earlier one is left out."""
        for index in INDEXES:
            self.connection.execute(index)
        repeated = self._faulty(REPEATED, "repeated_id", "its id stands for another one already; it was left out")
        self._faulty(NO_IMAGE, "no_image", "its image isn't listed; it was left out")
        self.connection.executemany("DELETE FROM given WHERE number = ?", repeated)

    def _faulty(self, query: str, kind: str, message: str) -> list[tuple[int]]:
        numbers = []
        for value, number in self.connection.execute(query):
            self.faults.add(_unpack(value).where, kind, message)
            numbers.append((number,))
        return numbers

    def _insert(self, table: str, *row: object) -> sqlite3.Cursor:
        return self.connection.execute(f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(row))})", row)


@contextmanager
def filling(index: Index) -> Iterator[Index]:
    """An index while it is filled. Raises RunError if there is no room for it."""
    try:
        index.connection.execute("BEGIN")  # or each row would be written on its own
        yield index
        index.finish()
        index.connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        raise RunError(
            f"the temporary database of what came along with the images can't be written: {error}. "
            "It needs about as much room as the lists; name a folder that has it with the variable SQLITE_TMPDIR."
        ) from error


def _pack(given: Given) -> bytes:
    """Its fields, without the names of classes: there are millions."""
    number = TYPES.index(type(given))
    return pickle.dumps((number, *FIELDS[number](given)))


def _unpack(value: bytes, height: int | None = None, width: int | None = None) -> Given:
    type_, *fields = pickle.loads(value)
    given: Given = TYPES[type_](*fields)
    if isinstance(given, GivenRegion) and height is not None and width is not None:
        return replace(given, size=(height, width))
    return given

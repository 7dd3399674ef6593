"""The cards of pictures: made in the set's order, as its shards are read, and shown in another one.

Between the two they wait in a file. In memory are a shard and, of each picture, what it is found by.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from markupsafe import Markup

from engine.config import Ingest
from engine.dataset import Dataset
from engine.layout import ShardId
from engine.records import Record
from engine.report.index import Index
from engine.report.pictures import Keep, Picture, picture_of
from engine.report.shapes import data_uri
from engine.report.survey import Survey
from engine.storage import read_shard

A_PAGE = 50  # pictures
ON_ONE_PAGE = 100  # up to as many, all is one file
FIRST = 12  # that the first page shows of more


def page_name(page: int) -> str:
    return f"{page:04d}.html"


def inside(name: str) -> Keep:
    """Pictures are part of the page."""
    return data_uri


@dataclass(frozen=True)
class Beside:
    """Pictures that are files in a folder; pages refer to them from there."""

    folder: Path

    def __call__(self, name: str) -> Keep:
        return partial(self._write, name)

    def _write(self, name: str, data: bytes) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return name


class Cards:
    """HTML by number, in a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._places: dict[int, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def add(self, number: int, card: str) -> None:
        data = card.encode()
        self._places[number] = (self._file.seek(0, os.SEEK_END), len(data))
        self._file.write(data)

    def __getitem__(self, number: int) -> Markup:
        start, length = self._places[number]
        self._file.seek(start)
        return Markup(self._file.read(length).decode())


def make_cards(
    dataset: Dataset,
    found: Survey,
    chosen: Sequence[int],
    ingest: Ingest,
    keep: Callable[[str], Keep],
    render: Callable[[Picture], str],
    cards: Cards,
    threads: Executor,
) -> Index:
    """Fills `cards` with those of the images `chosen`, numbered from 1 in that order. The threads open the images."""
    index = Index(len(chosen))
    wanted: dict[ShardId, dict[int, int]] = defaultdict(dict)  # row -> number
    for number, place in enumerate(chosen, 1):
        wanted[found.places[place].shard][found.places[place].row] = number

    def make(record: Record, number: int) -> Picture:
        name = f"pictures/{(number - 1) // A_PAGE + 1:04d}/{number:06d}.jpg"
        return picture_of(record, number, ingest, dataset.output.downloads, keep(name))

    for shard, rows in sorted(wanted.items()):
        records = read_shard(dataset.output, dataset.round, shard).records(list(rows))
        for picture, record in zip(threads.map(make, records, rows.values()), records, strict=True):
            cards.add(picture.number, render(picture))
            index.add(picture, record, chosen[picture.number - 1])
    return index

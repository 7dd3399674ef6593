"""Images added to a set that was ingested before: those that its manifest has stay where they are."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import eq

from engine.atomic import is_there
from engine.entry import Entry
from engine.ingest.partitions import chunks
from engine.ingest.shards import taken
from engine.layout import Output, ShardId
from engine.records import Item, Record
from engine.schema import given_to_table, items_from_table
from engine.spill import Digests
from engine.storage import read_table

WINDOW = 4096  # images that are compared together: each shard of theirs is read once


@dataclass
class Known:
    """The images of a manifest. Of those that are listed still, `listed` counts all, and `changed` those that came with
    something else along than when they were ingested. Memory does not grow with them: see `engine.spill.Digests`."""

    output: Output
    shards: Sequence[ShardId]
    listed: int = 0
    changed: int = 0
    _numbers: Digests = field(default_factory=Digests)
    _starts: list[int] = field(default_factory=list)  # of the shards

    def __post_init__(self) -> None:
        for shard in self.shards:
            self._starts.append(len(self._numbers))
            for item_id in read_table(self.output.items(shard), ["item_id"]).column("item_id").to_pylist():
                self._numbers.add(item_id, len(self._numbers))

    @property
    def gone(self) -> int:
        return len(self._numbers) - self.listed

    def new(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Those that the manifest has not."""
        for entry in entries:
            if self._place(entry) is None:
                yield entry
            else:
                self.listed += 1

    def compared(self, entries: Iterable[Entry], source: str) -> Iterator[Entry]:
        """The same, and it is counted what changed. `source` signs what came along where nobody else is named."""
        for window in chunks(entries, WINDOW):
            known: dict[ShardId, dict[int, Entry]] = {}
            for entry in window:
                if place := self._place(entry):
                    known.setdefault(place[0], {})[place[1]] = entry
            for shard, rows in known.items():
                self.changed += _changed(self.output, shard, rows, source)
            yield from window

    def _place(self, entry: Entry) -> tuple[ShardId, int] | None:
        """The shard and the row in it that an image has."""
        number = self._numbers.number(Item.id_of(entry.uri))
        if number is None:
            return None
        shard = bisect_right(self._starts, number) - 1
        return self.shards[shard], number - self._starts[shard]


def _changed(output: Output, shard: ShardId, listed: dict[int, Entry], source: str) -> int:
    """How many of the rows of a shard say something else than their entries that are `listed` now."""
    rows, entries = list(listed), list(listed.values())
    items = items_from_table(read_table(output.items(shard)).take(rows))
    now = given_to_table(taken(items, entries, source))
    path = output.given(shard)
    then = read_table(path).take(rows) if is_there(path) else given_to_table([(Record(item), ()) for item in items])
    same = [True] * len(rows) if then.equals(now) else map(eq, then.to_pylist(), now.to_pylist())
    about = ((item.dataset, item.licence, item.labels) for item in items)
    return sum(
        not alike or then != (entry.dataset, entry.licence, tuple(entry.labels))
        for alike, then, entry in zip(same, about, entries, strict=True)
    )

"""What an export format is, and what it gets: a part of the set at a time, and at last what all parts come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pyarrow.compute as pc

from engine.atomic import there
from engine.export.images import How, Images, Lost, Picture
from engine.export.selection import Selection
from engine.flat import Flat
from engine.layout import Output, ShardId
from engine.storage import Tables


@dataclass(frozen=True)
class Setting:
    """What holds for the whole export of `output`. `classes` are the labels of its objects, sorted, if the format needs
    them; `sources` what made what, by source key; `selection` what is chosen of what stands."""

    to: Path
    output: Output
    round: int
    splits: tuple[str, ...]
    classes: tuple[str, ...]
    sources: Mapping[str, Mapping[str, Any]]
    selection: Selection

    @property
    def dataset(self) -> str:
        """What the set is called."""
        return self.output.root.name


@dataclass(frozen=True)
class Part:
    """What of one shard leaves. The images of `flat` have, besides the manifest's columns, `number` (their place in the
    manifest, from 0: unique over the set), `split`, and unless they are inside a `file`: what the image is called for
    who reads the export. `row` is the place in the shard that annotations refer to. What the format has no place for,
    it says by `leave_out`; `counts` are of images, and of what became another than it was.
    """

    setting: Setting
    shard: ShardId
    flat: Flat
    images: Images
    tables: Tables
    lost: list[Lost] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, Counter[tuple[str, int]]] = field(default_factory=dict)

    def leave_out(self, what: str, rows: Iterable[int], reason: str) -> None:
        """Of a table, or of "images", what is not written, by the rows of its images: it is not counted as exported."""
        counts = Counter(rows)
        self.left_out.setdefault(reason, Counter()).update({(what, row): count for row, count in counts.items()})

    def path(self, split: str, suffix: str, folder: str = "") -> Path:
        """The file of this part and a split: `<folder>/<split>/part-00000-shard-00000<suffix>`."""
        name = str(self.shard).replace("/", "-") + suffix
        return self.setting.to / folder / split / name

    def fragment(self, name: str) -> Path:
        """A file that is there for `finish` to read, and gone then."""
        return fragment(self.setting.to, self.shard, name)

    def pictures(self, split: str) -> Iterator[Picture]:
        """The images of a split, their bytes read now. Those that are gone are noted in `lost`: leave out what is of
        their rows."""
        table = self.flat.images
        for picture in self.images.pictures(table.filter(pc.equal(table["split"], split))):
            if isinstance(picture, Lost):
                self.lost.append(picture)
            else:
                self.counts["turned upright"] += picture.turned
                yield picture

    @cached_property
    def splits(self) -> list[str]:
        """Those that have an image in this part, in their order."""
        there = set(self.flat.images["split"].to_pylist())
        return [name for name in self.setting.splits if name in there]


@dataclass(frozen=True)
class Whole:
    """All parts, when they are written. `totals` counts images and annotations by split."""

    setting: Setting
    shards: Sequence[ShardId]
    totals: Mapping[str, Mapping[str, int]]

    def fragments(self, name: str) -> Iterator[Path]:
        """The files that parts left under a name, in the order of the set."""
        paths = [fragment(self.setting.to, shard, name) for shard in self.shards]
        found = there(paths)
        return (path for path in paths if path in found)


class Format(Protocol):
    """A dataclass without parameters. `write` may be called in any process and again for the same part: what it writes
    goes through `engine.atomic.aside`, and depends on the part alone."""

    name: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]  # of engine.export.selection.KINDS, those it has a place for
    by_default: ClassVar[tuple[str, ...]]  # of these, those that leave if nobody says
    how: ClassVar[tuple[How, ...]]  # what may be done with images; the first if nobody says
    needs_classes: ClassVar[bool]  # whether the labels of the whole set must be known before the first part
    by_record: ClassVar[bool]  # whether it makes records of `Part.tables`, which then have the parses, too: 2 ms each

    def write(self, part: Part) -> None: ...

    def finish(self, whole: Whole) -> None: ...


def fragment(to: Path, shard: ShardId, name: str) -> Path:
    return to / ".export" / str(shard) / name

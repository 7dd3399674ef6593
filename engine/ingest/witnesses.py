"""What is known of images whose items were lost: by what was made of them, and by their copies in other shards."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import OutputError
from engine.layout import Output, ShardId
from engine.records import Item, ItemError
from engine.storage import read_content_ids, read_table

COLUMNS = ["error", "perceptual_hash"]
MASKS, BOXES = "masks.list.element.size", "regions.list.element.box"
ROUNDING = 1.0  # px that a box may lie outside of its image


@dataclass(frozen=True)
class Pixels:
    """What annotations say of an image whose content id they don't keep, as older engines made them: sizes of masks,
    and how far boxes reach. Those of round 0 (`hashed`) say what it looked like, too; nothing of a copy, or of one
    without anything to see."""

    sizes: frozenset[tuple[int, int]]
    reach: tuple[float, float]
    hashed: bool

    def fit(self, item: Item) -> bool:
        width, height = item.width or 0, item.height or 0
        inside = self.reach[0] <= width + ROUNDING and self.reach[1] <= height + ROUNDING
        return inside and self.sizes <= {(height, width)}


@dataclass(frozen=True)
class Seen:
    """What annotations, or a copy, say of an image: the error that it had, and its content id; without it, `pixels`."""

    error: ItemError | None
    content_id: bytes | None
    perceptual_hash: bytes | None = None
    pixels: Pixels | None = None


def made_of(output: Output, shard: ShardId) -> Iterator[Path]:
    """Where in all rounds what was made of a shard is, if it is there."""
    for round_ in output.rounds():
        for layer in (round_, round_.merge):
            yield from (layer.annotations(shard), layer.decisions(shard))


def item_ids(path: Path) -> list[bytes] | None:
    """None if it can't be read."""
    try:
        ids: list[bytes] = read_table(path, ["item_id"]).column("item_id").to_pylist()
    except OutputError:
        return None
    return ids


def seen(output: Output, shard: ShardId, ids: Sequence[bytes], without: Collection[Path]) -> list[list[Seen]]:
    """What the annotations of a shard's images say, by row and round; `without` some files."""
    first = output.round(0).annotations(shard)
    paths = (path for path in made_of(output, shard) if path.parent.parent.name == "annotations")
    whole = [path for path in paths if path not in without and item_ids(path) == [*ids]]
    of_rounds = [_seen(path, hashed=path == first) for path in whole]
    return [[of[row] for of in of_rounds] for row in range(len(ids))]


def _seen(path: Path, *, hashed: bool) -> list[Seen]:
    content_ids = read_content_ids(path)
    columns = [*COLUMNS, *((MASKS, BOXES) if content_ids is None else ())]
    rows = read_table(path, columns).to_pylist()
    errors = [ItemError(**row["error"]) if row["error"] else None for row in rows]
    hashes = [row["perceptual_hash"] for row in rows]
    if content_ids is not None:
        return list(map(Seen, errors, content_ids, hashes))
    pixels = [
        Pixels(
            frozenset(tuple(mask["size"]) for mask in row["masks"]),
            (_furthest(row["regions"], 2), _furthest(row["regions"], 3)),
            hashed,
        )
        for row in rows
    ]
    return [Seen(error, None, hash_, of) for error, hash_, of in zip(errors, hashes, pixels, strict=True)]


def _furthest(regions: Sequence[dict[str, list[float]]], side: int) -> float:
    return max((region["box"][side] for region in regions), default=0.0)

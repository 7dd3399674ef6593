"""Which split an image is in: by a hash of its content, so that it stays there when images are added or moved.

Images that look alike are in one split, or what a model is judged by would be what it learned. Their group goes by the
least of its hashes: an image that joins a group of n takes it to another split in one of n + 1 cases at most, wherever
it stands in the set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import pyarrow as pa

from engine.dataset import Dataset
from engine.errors import ConfigError
from engine.records import digest16
from engine.storage import read_table

NAME = re.compile(r"\w{1,60}(\.\w{1,60}){0,3}", re.ASCII)  # names folders and files, and Hugging Face's splits
WHOLE = "train"  # the one split of what is not split


@dataclass(frozen=True)
class Splits:
    """Names and shares, which add up to 1; and of images that look like others the content that is hashed for them."""

    shares: tuple[tuple[str, float], ...] = ((WHOLE, 1.0),)
    groups: Mapping[str, str] = field(default_factory=dict)  # content ids in hex

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.shares)

    def of(self, content_id: str) -> str:
        """The split of an image, by its content id in hex."""
        hashed = digest16(b"split" + bytes.fromhex(self.groups.get(content_id, content_id)))
        place = int.from_bytes(hashed[:8]) / 2**64
        bounds = accumulate(share for _, share in self.shares)
        return next((name for name, bound in zip(self.names, bounds, strict=True) if place < bound), self.names[-1])

    def of_all(self, content_ids: pa.ChunkedArray) -> pa.Array:
        if len(self.shares) == 1:
            return pa.array(self.names * len(content_ids), pa.string())
        return pa.array([self.of(id_) for id_ in content_ids.to_pylist()], pa.string())


def splits_of(dataset: Dataset, shares: Mapping[str, float]) -> Splits:
    """In the order of their names: who writes them in another order gets the same. Raises ConfigError for shares that
    don't add up to 1, and for names that could be no file's."""
    if not shares:
        return Splits()
    told = ", ".join(f"{name}={share:g}" for name, share in shares.items())
    if not all(share > 0 for share in shares.values()) or not abs(sum(shares.values()) - 1) < 1e-6:
        raise ConfigError(f"--split {told}: shares must be above 0 and add up to 1, such as train=0.9,val=0.1")
    if bad := [name for name in shares if not NAME.fullmatch(name)]:
        raise ConfigError(f"--split {told}: {bad[0]!r} is no name for a split: letters, digits, _ and . between them")
    return Splits(tuple(sorted(shares.items())), _groups(dataset) if len(shares) > 1 else {})


def _groups(dataset: Dataset) -> dict[str, str]:
    groups: Sequence[Sequence[bytes]] = dataset.near_duplicates()
    if not groups:
        return {}
    members = {id_ for group in groups for id_ in group}
    contents: dict[bytes, bytes] = {}
    for shard in dataset.output.shards():
        table = read_table(dataset.output.items(shard), ["item_id", "content_id"])
        rows = zip(table["item_id"].to_pylist(), table["content_id"].to_pylist(), strict=True)
        contents.update((id_, content) for id_, content in rows if id_ in members)
    least = {id_: min(contents[other] for other in group) for group in groups for id_ in group}
    return {contents[id_].hex(): content.hex() for id_, content in least.items()}

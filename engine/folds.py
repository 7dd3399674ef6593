"""Which images a model is kept from: folds for cross-fitting, and the held-out ones by which training is judged.

Both go by a hash of the image's id, so that they stay as they are when images are added. Images that look alike go
together, or a model would see in training what it is later asked about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.records import Item, digest16


@dataclass(frozen=True)
class Folds:
    """`count` folds. `leaders` has, for each image of a group of near duplicates, the id of the group's first one."""

    count: int
    leaders: Mapping[bytes, bytes] = field(default_factory=dict)

    def of(self, item: Item) -> int:
        """The fold of an image, 0 to count - 1. A model of that fold was not trained on it."""
        return int.from_bytes(digest16(b"fold" + self._key(item))) % self.count

    def held_out(self, item: Item, share: float) -> bool:
        """Whether the image is among the `share` that no model is trained on, but is judged by."""
        return int.from_bytes(digest16(b"held out" + self._key(item))) < share * 2**128

    def _key(self, item: Item) -> bytes:
        original = item.duplicate_of or item.item_id
        return self.leaders.get(original, original)

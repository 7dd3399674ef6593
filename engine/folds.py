"""Which images a model is kept from: folds for cross-fitting, and the held-out ones by which training is judged.

Both go by a hash of the image's id, so that they stay as they are when images are added. Images that look alike go
together, or a model would see in training what it is later asked about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from engine.records import Item, digest16

ALL = 2**128  # a rank that none has


@dataclass(frozen=True)
class Choice:
    """Which images a round is made of: all those whose rank is below `bound`, and those that are `withheld` from
    training, since rounds are judged by what people say of them."""

    withheld: frozenset[bytes] = frozenset()
    bound: int = ALL

    @property
    def digest(self) -> str:
        """12 hex digits; empty for everything."""
        if self == EVERYTHING:
            return ""
        return digest16(b"".join([self.bound.to_bytes(17), *sorted(self.withheld)])).hex()[:12]


EVERYTHING = Choice()


@dataclass(frozen=True)
class Folds:
    """`count` folds. `leaders` has, for each image of a group of near duplicates, the id of the group's first one.

    What looks like a withheld image is withheld, too.
    """

    count: int
    leaders: Mapping[bytes, bytes] = field(default_factory=dict)
    choice: Choice = EVERYTHING

    def of(self, item: Item) -> int:
        """The fold of an image, 0 to count - 1. A model of that fold was not trained on it."""
        return int.from_bytes(digest16(b"fold" + self._key(item))) % self.count

    def held_out(self, item: Item, share: float) -> bool:
        """Whether the image is among the `share` that no model is trained on, but is judged by."""
        return int.from_bytes(digest16(b"held out" + self._key(item))) < share * ALL

    def is_withheld(self, item: Item) -> bool:
        """Whether no model is trained on the image."""
        return bool(self._withheld) and self._key(item) in self._withheld

    def chosen(self, item: Item) -> bool:
        """Whether the round takes the image."""
        return self.choice.bound >= ALL or self.rank(item) < self.choice.bound or self.is_withheld(item)

    def rank(self, item: Item) -> int:
        """By which images are chosen: a random number in [0, ALL), the same for images that look alike."""
        return int.from_bytes(digest16(b"choice" + self._key(item)))

    @cached_property
    def _withheld(self) -> frozenset[bytes]:
        return frozenset(self.leaders.get(id_, id_) for id_ in self.choice.withheld)

    def _key(self, item: Item) -> bytes:
        original = item.duplicate_of or item.item_id
        return self.leaders.get(original, original)

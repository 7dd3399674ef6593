"""From the words that a model says to the categories that a benchmark counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

PROTOCOL = "labels to categories by name: as it is, then without regard to case, then in the plural"


@dataclass
class ClassMap:
    """Looks labels up, and counts what it was asked for: `unmapped` are the labels that no category has."""

    categories: dict[int, str]
    asked: int = 0
    unmapped: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        from inflect import engine

        plural = engine().plural_noun
        named = {normal(name): key for key, name in reversed(self.categories.items()) if normal(name)}
        caseless = {name.casefold(): key for name, key in named.items()}
        self.exact = named
        self.others = {str(plural(name)): key for name, key in caseless.items()} | caseless

    def key(self, label: str) -> int | None:
        """The category's; None if there is none of this name."""
        self.asked += 1
        said = normal(label)
        key = self.exact.get(said, self.others.get(said.casefold()))
        if key is None:
            self.unmapped[said] += 1
        return key

    @property
    def share_unmapped(self) -> float | None:
        return sum(self.unmapped.values()) / self.asked if self.asked else None


def normal(label: str) -> str:
    return " ".join(label.split())

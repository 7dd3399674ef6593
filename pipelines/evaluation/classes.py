"""The classes that both sides' labels are held against."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.flat import Ints
from engine.said import Said, coded
from engine.vocabulary import Vocabulary


@dataclass(frozen=True)
class Classes:
    """Labels under the words of the vocabulary or, with a `label_map`, of that one's classes. A source's own word is
    asked for first: the other side may have another vocabulary. `listed` are words that the truth's files list as
    classes."""

    vocabulary: Vocabulary
    label_map: Vocabulary | None = None
    listed: Sequence[str] = ()

    def name(self, word: str | None) -> str | None:
        """None for a word that has no class."""
        if word is None:
            return None
        label = self.vocabulary.canonical(word)
        if self.label_map is None:
            return label
        known = next((one for one in (label, word) if self.label_map.knows(one)), None)
        return None if known is None else self.label_map.canonical(known)

    def named(self, said: Said) -> tuple[Ints, Sequence[str | None], Sequence[str | None]]:
        """The code of each region's word, and by code the words and their names."""
        regions = said["regions"]
        codes, words = coded(regions["raw_label"], regions["label"])
        return codes, words, [self.name(word) for word in words]

    def of(self, words: Iterable[str | None]) -> list[str]:
        """All that count: the label map's or, without one, those that are listed, and those of the truth's `words`."""
        if self.label_map is not None:
            return sorted(self.label_map.classes)
        return sorted({name for name in map(self.name, (*words, *self.listed)) if name is not None})

    @property
    def protocol(self) -> str:
        own = "labels by the set's vocabulary, without regard to case"
        return own if self.label_map is None else f"{own}, then to the {len(self.label_map.classes)} classes of the map"

    @property
    def counted(self) -> str:
        """Which are classes of the truth, for the protocol."""
        if self.label_map is not None:
            return "classes of the truth are those of the map"
        if self.listed:
            return (
                f"classes of the truth are the {len(self.listed)} that its files list, and those that occur in it: "
                "what is found of one that is listed and does not occur is wrong"
            )
        return (
            "classes of the truth are those that occur in it, as it lists none: what is found of another one counts "
            "neither as right nor as wrong"
        )

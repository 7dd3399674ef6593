"""What pictures are found by in a page: names, labels, who made and who turned down something, and texts, as JSON.

A browser reads it as data, never as a script. The policy of the page knows one script, by its hash.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from engine.records import Record
from engine.report.pictures import Picture
from engine.untrusted import printable

MOST_CHARACTERS = 8_000_000  # of texts of all pictures
LONGEST = 500  # characters of the texts of a picture
LONGEST_NAME, LONGEST_WORD = 160, 80
MOST_OPTIONS = 500  # that a list has to choose from


@dataclass(frozen=True)
class Option:
    """What pictures can be chosen by, and how many there are."""

    code: int
    name: str
    count: int


@dataclass
class Codes:
    """Words by number, and in how many pictures each is."""

    numbers: dict[str, int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def of(self, words: Iterable[str]) -> list[int]:
        several = dict.fromkeys(words)
        self.counts.update(several.keys())
        return [self.numbers.setdefault(word, len(self.numbers)) for word in several]

    def options(self) -> list[Option]:
        """The most frequent ones."""
        return [Option(self.numbers[word], word, count) for word, count in self.counts.most_common(MOST_OPTIONS)]


@dataclass
class Index:
    """Of `pictures` pictures at most. Each is kept as its JSON: half a kilobyte, a kilobyte at most."""

    pictures: int
    labels: Codes = field(default_factory=Codes)
    sources: Codes = field(default_factory=Codes)
    filters: Codes = field(default_factory=Codes)
    _entries: dict[int, str] = field(default_factory=dict)

    def add(self, picture: Picture, record: Record, place: int) -> None:
        """`place` is where the picture is in the set."""
        stands, dispute = record.standing, picture.dispute
        entry: list[Any] = [
            "/".join(record.item.uri.rsplit("/", 2)[-2:])[-LONGEST_NAME:],  # not what all of them lie in
            place,
            [dispute.named, dispute.close, dispute.overruled],
            len(record.fallen),
            self.labels.of(
                (region.label or region.raw_label or "")[:LONGEST_WORD]
                for region in stands.regions
                if region.kind == "object" and (region.label or region.raw_label)
            ),
            self.sources.of(annotation.source[:LONGEST_WORD] for annotation in record.annotations()),
            self.filters.of(d.by[:LONGEST_WORD] for d in record.decisions if d.action in ("reject", "supersede")),
            self._texts(stands),
            int(picture.thumbnail is not None),
        ]
        self._entries[picture.number] = json.dumps(printed(entry), separators=(",", ":"))

    def _texts(self, stands: Record) -> str:
        """The texts that stand, what is said of regions and what is read in the image, as far as there is room."""
        said = (text for texts in (stands.texts, stands.region_texts) for text in (t.text for t in texts))
        lines = (region.text for region in stands.regions if region.kind == "text" and region.text)
        most = min(LONGEST, MOST_CHARACTERS // max(self.pictures, 1))
        return " ".join("\n".join([*lines, *said])[: 4 * most].split())[:most]

    def json(self, a_page: int) -> str:
        """In the order of the numbers, of which a page has so many; nothing in it ends or begins an element."""
        labels = json.dumps(printed(list(self.labels.numbers)), separators=(",", ":"))
        entries = ",\n".join(self._entries[number] for number in sorted(self._entries))
        whole = f'{{"page":{a_page},"labels":{labels},"pictures":[\n{entries}\n]}}'
        return whole.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def printed(value: Any) -> Any:
    """With the strings in it as they can be shown."""
    if isinstance(value, list):
        return [printed(one) for one in value]
    return printable(value) if isinstance(value, str) else value

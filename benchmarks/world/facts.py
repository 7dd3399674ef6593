"""What a text states, read back from it, whoever wrote it; and how a caption's statements compare with the truth."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields

from benchmarks.world.backgrounds import BACKGROUNDS, OTHER_BACKGROUNDS
from benchmarks.world.captions import COUNTS, Fact, holds, plural, related, tell
from benchmarks.world.picture import Picture
from benchmarks.world.shapes import COLOURS, OUTLINES, TEXTURES
from engine.records import Detail

SHAPES = {form: shape for shape in OUTLINES for form in (shape, plural(shape))}
PLACE = r"(?:at|in) the (?P<place>(?:top|bottom) (?:left|right)|top|bottom|left|right|middle)\b"


def _any(words: object) -> str:
    return "|".join(sorted(map(str, words), key=len, reverse=True))  # type: ignore[call-overload]


THING = re.compile(
    rf"\b(?P<count>an|{_any(COUNTS[1:])})(?: (?P<size>small|large))? (?P<colour>{_any(COLOURS)})"
    rf"(?: (?P<texture>{_any(TEXTURES[1:])}))? (?P<shape>{_any(SHAPES)})\b(?: {PLACE})?",
    re.IGNORECASE,
)
RELATION = re.compile(r" (left of|right of|above|below) ", re.IGNORECASE)
WORD = re.compile(rf'the word "(?P<word>[^"]{{1,100}})"(?: is {PLACE})?', re.IGNORECASE)
BACKGROUND = re.compile(rf"the background is ({_any(BACKGROUNDS + OTHER_BACKGROUNDS)})\b", re.IGNORECASE)


def facts(text: str) -> frozenset[Fact]:
    """What a text in the grammar's words states, as in `captions.Fact`; what isn't in them says nothing.

    Things that are named twice are counted together: "a red star and a red star" are two.
    """
    found, counts = set(_of_words(text)), Counter[str]()
    last_name, last_stop = "", 0
    for match in THING.finditer(text):
        count = 1 if match["count"].lower() == "an" else COUNTS.index(match["count"].lower())
        words = (match["colour"].lower(), (match["texture"] or "").lower(), SHAPES[match["shape"].lower()])
        name = " ".join(filter(None, words))
        counts[name] += count
        if relation := RELATION.fullmatch(text[last_stop : match.start()]):
            found.add(related(relation[1].lower(), last_name, name))
        if match["size"]:
            found.add(("size", name, match["size"].lower()))
        if match["place"]:
            found.add(("at", name, match["place"].lower()))
        last_name, last_stop = name, match.end()
    return frozenset(found | {("thing", str(count), name) for name, count in counts.items()})


def _of_words(text: str) -> Iterator[Fact]:
    for match in WORD.finditer(text):
        yield ("word", match["word"])
        if match["place"]:
            yield ("at", f'"{match["word"]}"', match["place"].lower())
    for match in BACKGROUND.finditer(text):
        yield ("background", match[1].lower())


@dataclass(frozen=True)
class Tally:
    """Facts that captions state, how many of them are right, those that the truth's captions state, how many of them
    were found. They add up over captions."""

    stated: int = 0
    right: int = 0
    wanted: int = 0
    found: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def f1(self) -> float:
        """Of the share of stated facts that are right, and of wanted ones that were found; 0 where there are none."""
        precision, recall = self.right / max(self.stated, 1), self.found / max(self.wanted, 1)
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def score(stated: frozenset[Fact], picture: Picture, detail: Detail) -> Tally:
    """A statement is right if it holds in the picture, also where the grammar's own caption states another."""
    wanted = next((told.facts for told in tell(picture) if told.detail == detail), frozenset())
    return Tally(len(stated), len(stated & holds(picture, detail)), len(wanted), len(stated & wanted))

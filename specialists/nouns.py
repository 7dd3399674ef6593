"""Labels as English nouns: their articles, plurals, and how many of them there are.

What is one thing to a detector is not always one to the language: scissors come in pairs, broccoli is not counted.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import inflect

MANY = 13  # from here on things are "many": nobody counts fourteen cups
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
LONGEST = 40  # characters of a label that is spoken; COCO's longest has 14

CACHED = 10_000  # answers of inflect, which takes 50 us for each
# By a label's last word, people by any. COCO has skis, scissors and broccoli; larger vocabularies have the others.
# fmt: off
PAIRS = {
    "binoculars", "glasses", "goggles", "headphones", "jeans", "leggings", "pants", "pliers", "scissors", "shorts",
    "skis", "sunglasses", "tights", "tongs", "trousers",
}
UNCOUNTED = {
    "bacon", "bread", "broccoli", "clothing", "corn", "cutlery", "fire", "food", "footwear", "fruit", "furniture",
    "garbage", "garlic", "grass", "hair", "jewellery", "jewelry", "lettuce", "luggage", "meat", "milk", "money",
    "paper", "pasta", "produce", "rice", "sand", "seafood", "snow", "sushi", "tableware", "toast", "trash", "water",
    "wood",
}
PEOPLE = {
    "baby", "body", "boy", "child", "children", "face", "girl", "human", "man", "men", "people", "person", "woman",
    "women",
}
# fmt: on
SINGULAR = {"lens", "rhinoceros"}  # which inflect takes for plurals
CAPITALS = {"tv": "TV"}


@dataclass(frozen=True)
class Noun:
    """So many things of a label; `number` is None for more than one can or should count."""

    label: str
    number: int | None

    @property
    def plural(self) -> bool:
        """Whether its verb is plural: "some broccoli is", "some flowers are", "a pair of skis is"."""
        return self._kind == "plural" or (self._kind != "uncounted" and self.number != 1)

    @property
    def human(self) -> bool:
        return not PEOPLE.isdisjoint(self.label.casefold().split())

    def indefinite(self, *adjectives: str) -> str:
        """ "a red cup", "two cups", "many people", "a pair of skis", "some green broccoli"."""
        if self._kind == "pair":
            return f"{self._counted('pair')} of {_joined(*adjectives, self.label)}"
        if self._kind != "countable":
            return _joined("some", *adjectives, _spoken(self.label))
        return self._counted(_joined(*adjectives, _spoken(self.label)), _joined(*adjectives, plural_of(self.label)))

    def again(self) -> str:
        """What to call it in the next sentence: "it", "they"; a person has no other word that was measured."""
        return "they" if self.plural else self.definite() if self.human else "it"

    def definite(self) -> str:
        """ "the cup", "the two cups", "the people", "the pair of skis"."""
        number = counted(self.number) if self.number and 1 < self.number < MANY else ""
        if self._kind == "pair":
            return _joined("the", number, "pairs" if self.plural else "pair", "of", self.label)
        if self._kind != "countable":
            return f"the {_spoken(self.label)}"
        return _joined("the", number, plural_of(self.label) if self.plural else _spoken(self.label))

    def _counted(self, one: str, several: str = "pairs") -> str:
        if self.number == 1:
            return f"{article(one)} {one}"
        return f"{counted(self.number)} {several}"

    @property
    def _kind(self) -> str:
        last = self.label.casefold().split()[-1]
        if last in PAIRS:
            return "pair"
        if last in UNCOUNTED:
            return "uncounted"
        return "plural" if is_plural(self.label) else "countable"


def counted(number: int | None) -> str:
    """The number in a word, from two on; "many" for None and what nobody counts."""
    return NUMBERS[number - 2] if number and number < MANY else "many"


def speakable(label: str | None) -> str | None:
    """The label as it can stand in a sentence; None for one that can't: empty, without letters, very long."""
    words = " ".join(re.sub('["_]', " ", visible(label or "")).split()).strip(" .,;:!?")
    words = re.sub(r"(?i)^(?:(?:a|an|the)(?:\s+|$))+", "", words)  # sentences have articles of their own
    return words if len(words) <= LONGEST and any(c.isalpha() for c in words) else None


def visible(text: str) -> str:
    """Without marks of format (of direction, for one), and with a space for each control character."""
    kinds = ((c, unicodedata.category(c)) for c in text)
    return "".join(" " if kind[0] == "C" else c for c, kind in kinds if kind != "Cf")


@lru_cache(CACHED)
def plural_of(label: str) -> str:
    """What doesn't end in an English word has no English plural and stays as it is."""
    spoken = _spoken(label)
    words = re.search(r"[A-Za-z]([A-Za-z' -]*[A-Za-z])?$", spoken)
    if words is None or is_plural(label):
        return spoken
    if label in CAPITALS:
        return f"{spoken}s"
    return spoken[: words.start()] + str(_inflect().plural_noun(words[0]))


@lru_cache(CACHED)
def is_plural(label: str) -> bool:
    """Whether a label is a plural already. inflect takes "bus" for the plural of "bu"."""
    if label.split()[-1] in PAIRS:
        return True
    if not re.search(r"[a-z]$", label) or label.endswith(("as", "is", "ss", "us")) or label.split()[-1] in SINGULAR:
        return False
    singular = _inflect().singular_noun(label)
    return singular is not False and singular not in ("", label) and _inflect().plural_noun(singular) == label


@lru_cache(CACHED)
def article(phrase: str) -> str:
    return "an" if _inflect().a(phrase).startswith("an ") else "a"


@cache
def _inflect() -> inflect.engine:
    import inflect

    return inflect.engine()


def _spoken(label: str) -> str:
    return CAPITALS.get(label, label)


def _joined(*words: str) -> str:
    return " ".join(word for word in words if word)

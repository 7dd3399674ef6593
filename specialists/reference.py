"""Whether the words around a noun phrase let it refer to things in the image, and to how many.

There is no dog in "no dog", "a room without a dog" and "a statue of a dog"; which car "the other car", "the second car"
and "one of the cars" are, words alone don't tell.
"""

from __future__ import annotations

import re

from engine.records import Phrase

NEGATED = re.compile(
    r"(?:\b(?:no|not|without|nor|never|neither|except|excluding|lacks?|lacking|instead of|free of|rather than)"
    r"|n['\u2019]t)"
    r"(?:\s+(?:any|even|longer))*\s+$"
)
# As the first words of a text they are the image itself: "a photo of a dog".
DEPICTED = re.compile(
    r"\b(?:drawing|painting|sketch|statue|statuette|sculpture|figurine|figure|toy|model|poster|logo|cartoon|illustration"
    r"|portrait|picture|photo|photograph|image|print|mural|reflection|shadow|costume|mask|silhouette|sign|icon)s?"
    r"\s+of\s+$"
)
OPENING = 3  # words before a depiction that begins its text: "a black-and-white photo of"
COMPARED = re.compile(r"\b(?:as|like|resembling)\s+$")
NUMBER = r"(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\d+)"
PART = re.compile(rf"\b(?:{NUMBER}|half|none|some|most|few|each|any|either|neither|part)\s+of\s+$")
PAIR = re.compile(r"\b(?:couple|pair)\s+of\s+$")
DOUBTFUL = re.compile(
    r"\b(?:no|neither|none|another|others?|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth"
    r"|\d+(?:st|nd|rd|th)|last|next)\b"
)
DEFINITE = re.compile(r"(?:the|this|that|these|those|its|his|her|their|my|our|your|both|each|all)\b")


def refers(phrase: Phrase, text: str) -> bool:
    """Whether the phrase speaks of something that is there, and doesn't leave open which it is."""
    before, core = text[: phrase.start].casefold(), text[phrase.start : phrase.stop].casefold()
    depiction = DEPICTED.search(before)
    return not (
        DOUBTFUL.search(core)
        or NEGATED.search(before)
        or COMPARED.search(before)
        or PART.search(before)
        or (depiction and len(before[: depiction.start()].split()) > OPENING)
    )


def is_definite(phrase: Phrase, text: str) -> bool:
    """Whether the phrase may speak of what was spoken of before: "the dog", and not "a dog"."""
    return DEFINITE.match(text[phrase.start : phrase.stop].casefold()) is not None


def count_of(phrase: Phrase, text: str, label: str) -> int | None:
    """How many things of a label it speaks of; None for all that there are. A pair of scissors is one thing."""
    if phrase.count is not None or not PAIR.search(text[: phrase.start].casefold()):
        return phrase.count
    return 1 if label.endswith("s") else 2

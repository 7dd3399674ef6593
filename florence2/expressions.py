"""Referring expressions: words that single out one thing of a scene, by which it can be asked for."""

from __future__ import annotations

import re
from collections import defaultdict

from florence2.processor import BANNED
from florence2.scene import Scene

BLACKLIST = frozenset(("", *re.split(r",\s+", BANNED.strip().casefold())))
ARTICLE = re.compile(r"^(?:an?|the)\s+")


def expressions(scene: Scene) -> list[tuple[str, int]]:
    """Each with the number of its thing: expanded phrases of captions that name one thing, and texts of things.

    Words that another thing bears, too, as its label, its text or a caption's phrase, single nothing out; case and a
    first article don't count.
    """
    bearers: dict[str, set[int]] = defaultdict(set)
    for number, thing in enumerate(scene.things):
        for words in (thing.label or "", *thing.texts):
            bearers[bare(words)].add(number)
    said = []
    for caption in scene.captions:
        for phrase in caption.phrases:
            expression = caption.text[phrase.expression_start : phrase.expression_stop]
            bearers[bare(expression)].update(phrase.things)
            if len(set(phrase.things)) == 1 and not names_nothing(caption.text[phrase.start : phrase.stop]):
                said.append((expression, phrase.things[0]))
    said += [(text, number) for number, thing in enumerate(scene.things) for text in thing.texts]
    found: dict[str, tuple[str, int]] = {}
    for text, number in said:
        if not names_nothing(text) and len(bearers[bare(text)]) == 1:
            found.setdefault(bare(text), (text.strip(), number))
    return list(found.values())


def names_nothing(phrase: str) -> bool:
    """Whether a phrase is empty, or one that Microsoft's post-processor leaves out: "it", "others", "the image".

    Case doesn't count, as it does there: texts begin with "It".
    """
    return phrase.strip().casefold() in BLACKLIST


def bare(text: str) -> str:
    return ARTICLE.sub("", " ".join(text.casefold().split()))

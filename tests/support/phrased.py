"""Samples with texts whose parses are written by hand, so that tests know each phrase to the character."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.protocols import Image, Sample
from engine.records import AnyAnnotation, Detail, Item, Parse, Phrase, Record, Text


def picture(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def phrase(text: str, said: str, expression: str | None = None, count: int | None = None) -> Phrase:
    """At its first place in the text."""
    start, wide = text.index(said), text.index(expression or said)
    return Phrase(
        start=start,
        stop=start + len(said),
        head=said.split()[-1],
        modifiers=tuple(said.split()[1:-1]),
        count=count,
        expression_start=wide,
        expression_stop=wide + len(expression or said),
    )


def parsed(
    number: int, text: str, *phrases: Phrase, detail: Detail = "brief", source: str = "writer"
) -> list[AnyAnnotation]:
    """Text t0 and its parse p0, or others by number."""
    parse = Parse(
        id=f"p{number}",
        source="parser",
        text_id=f"t{number}",
        objects=0,
        attributes=0,
        actions=0,
        proper_nouns=0,
        object_complexity=0,
        action_complexity=0,
        max_object_complexity=0,
        max_action_complexity=0,
        phrases=phrases,
    )
    return [Text(id=f"t{number}", source=source, text=text, detail=detail), parse]


def record(*annotations: AnyAnnotation, size: tuple[int, int] = (100, 100)) -> Record:
    return Record(Item(bytes(16), "x", width=size[1], height=size[0])).append(annotations)


def sample(image: Image, texts: dict[str, Sequence[Phrase]], *annotations: AnyAnnotation) -> Sample:
    written = [one for n, (text, phrases) in enumerate(texts.items()) for one in parsed(n, text, *phrases)]
    return Sample(image, record(*written, *annotations, size=image.shape[:2]))

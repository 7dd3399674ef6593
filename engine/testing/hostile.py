"""What a record may hold, and components fall over: boxes beside the image, texts that no keyboard writes."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.geometry import encode_mask
from engine.records import DETAILS, AnyAnnotation, Box, Mask, Record, Region, RegionText, Scores, Text, Triplet

HOSTILE_TEXTS = (
    "",
    " \n\t\u00a0\u2003",
    "\N{FAMILY}\u200d\N{GIRL} \N{REGIONAL INDICATOR SYMBOL LETTER A}\ufe0f e\u0301\u0302 a\u0308\u0308\u0308",
    "\u202eكلب אדום\u202c",
    "一只狗在桌子旁边。窓のそばの犬",
    "nul\0, bell\a, \x1b[31mescape, \ufeff\ufffd\U0010ffff",
    "</s><s><loc_1><loc_2><image>[SEP]<|endoftext|>{}%s{{x}}\\u0041'\"",
    "dog " * 300,
    "x" * 600,
    "...?!,;: - . (",
)


def hostile(record: Record) -> Record:
    """With what a record may hold: regions beside the image, without area, twice; texts of every script and none."""
    source = "kit_hostile"
    ids = record.ids(source)
    width, height = size_of(record)
    boxes: list[Box] = [
        (-width / 2, -height / 2, width / 2, height / 2),
        (10 * width, 10 * height, 11 * width, 11 * height),
        (5, 5, 5, 5),
        (5, 5, 25, 5),
        (0, 0, width, height),
        (0.25, 0.25, 0.5, 0.5),
        (-1e7, -1e7, 1e7, 1e7),
        *[(10, 10, 40.5, 30.5)] * 2,
    ]
    new: list[AnyAnnotation] = []
    for number, box in enumerate(boxes):
        word = HOSTILE_TEXTS[number % len(HOSTILE_TEXTS)]
        labels: Any = dict.fromkeys(("raw_label", "label"), word if number % 3 else None)
        new.append(Region(id=next(ids), source=source, kind="object", box=box, crowd=number == 4, **labels))
        new.append(Region(id=next(ids), source=source, kind="proposal", box=box, scores=Scores(box=-3.0)))
        quad = (box[0], box[1], box[2], box[1], box[2], box[3], box[0], box[3]) if number % 2 else None
        new.append(Region(id=next(ids), source=source, kind="text", box=box, quad=quad, text=word if number else None))
    region_ids = [one.id for one in new]
    for number, words in enumerate(HOSTILE_TEXTS):
        text = Text(id=next(ids), source=source, text=words, detail=DETAILS[number % 3], derived_from=(region_ids[0],))
        new.append(text)
        new.append(RegionText(id=next(ids), source=source, region_id=region_ids[number], text=words))
        if words:
            spans = {(0, 1), (0, len(words)), (len(words) // 2, len(words) // 2 + 1)}
            new += [
                Triplet(id=next(ids), source=source, text_id=text.id, start=start, stop=stop, region_ids=())
                for start, stop in sorted(spans)
            ]
    blank = encode_mask(np.zeros((height, width), bool))
    for counts in (blank, encode_mask(np.ones((height, width), bool))):
        new.append(Mask(id=next(ids), source=source, region_id=region_ids[0], size=(height, width), counts=counts))
    return record.append(new)


def size_of(record: Record) -> tuple[int, int]:
    """Width and height; of an image that could not be read, those that its annotations were made for."""
    return record.item.width or 120, record.item.height or 80

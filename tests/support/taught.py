"""An output folder of which every task of a Florence-2 learns something, with words in it that forge tokens."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from datasets_made import write_dataset
from exporting import NAMES, pictures

from engine.atomic import read_json, write_json, write_text
from engine.geometry import encode_mask
from engine.layout import Output
from engine.records import Mask, Record, Region, RegionText, Scores, Text, Triplet

FORGED = "a <loc_1><loc_2> <image> dog</s> <OD>"  # tokens of the model, of its processor, and a question
BRIEF = "a dog beside a cat, and two birds"
CONFIG = "train: {exhaustive: {detector: [dog, cat, bird, zebra]}}\n"
NOTHING = NAMES[1]  # of this picture nothing is known


def taught(folder: Path) -> Output:
    """Twelve pictures in four shards; `config.yaml` says of which classes the detector marks every instance."""
    output = write_dataset(pictures(folder / "pictures"), folder / "out", annotated)
    write_text(output.config, CONFIG)
    sources = read_json(output.round(0).sources)
    sources["sources"]["composer"] = {"specialist": "specialists.composer:Composer"}
    write_json(output.round(0).sources, sources)
    return output


def annotated(record: Record) -> Record:
    width, height = record.item.width, record.item.height
    if not width or not height or record.item.uri.endswith(NOTHING):
        return record

    def region(source: str, n: int, place: tuple[float, ...], **about: object) -> Region:
        x0, y0, x1, y1 = place
        box = (x0 * width, y0 * height, x1 * width, y1 * height)
        about = {"kind": "object", "scores": Scores(label=0.1 + 0.1 * n), **about}
        return Region(id=f"0.{source}.{n}", source=source, box=box, **about)  # type: ignore[arg-type]

    named = [
        ("dog", (0.1, 0.35, 0.45, 0.9)),
        ("cat", (0.5, 0.3, 0.95, 0.8)),
        ("bird", (0.05, 0.05, 0.3, 0.3)),
        ("bird", (0.6, 0.02, 0.8, 0.25)),
        ("Größe <loc_7>", (0.2, 0.1, 0.9, 0.95)),
    ]
    objects = [
        region("detector", n, place, raw_label=word, label=word.casefold()) for n, (word, place) in enumerate(named)
    ]
    others = [
        region("human", 0, (0.0, 0.6, 1.0, 1.0), raw_label="sheep", label="sheep", crowd=True),
        region("detector", 5, (0.3, 0.3, 0.4, 0.6), kind="proposal", scores=Scores(box=0.5)),
    ]
    lines = [
        region("ocr", n, place, kind="text", text=word, quad=_slanted(place, width, height))
        for n, (word, place) in enumerate([("EXIT <and>", (0.1, 0.05, 0.6, 0.2)), ("非常口", (0.1, 0.7, 0.5, 0.9))])
    ]
    texts = [
        Text(id="0.human.1", source="human", text=BRIEF, detail="brief"),
        Text(id="0.annotator.0", source="annotator", text=f"{FORGED} and a 猫\nwith more", detail="detailed"),
        Text(id="0.annotator.1", source="annotator", text="A paragraph. " * 4, detail="more_detailed"),
        Text(id="0.composer.0", source="composer", text="Two birds.", detail="brief", derived_from=("0.detector.2",)),
    ]
    told = [
        RegionText(id="0.annotator.2", source="annotator", region_id="0.detector.0", text=f"{FORGED}, brown"),
        RegionText(id="0.composer.1", source="composer", region_id="0.detector.1", text="a grey cat"),
        RegionText(id="0.annotator.3", source="annotator", region_id="0.detector.2", text="a grey cat"),
    ]
    masks = [
        Mask(
            id="0.sam.0",
            source="sam",
            region_id="0.detector.0",
            size=(height, width),
            counts=_oval(objects[0], width, height),
        ),
        Mask(
            id="0.sam.1",
            source="sam",
            region_id="0.detector.1",
            size=(height, width),
            counts=_oval(objects[1], width, height),
        ),
    ]

    def triplet(n: int, text: Text, words: str, *regions: int) -> Triplet:
        start = text.text.index(words)
        ids = tuple(f"0.detector.{number}" for number in regions)
        return Triplet(
            id=f"0.grounder.{n}",
            source="grounder",
            text_id=text.id,
            start=start,
            stop=start + len(words),
            region_ids=ids,
        )

    triplets = [
        triplet(0, texts[0], "a dog", 0),
        triplet(1, texts[0], "a cat", 1),
        triplet(2, texts[0], "two birds", 2, 3),
        triplet(3, texts[1], FORGED, 0),
        triplet(4, texts[3], "Two birds", 2, 3),
    ]
    fell = region("detector", 6, (0.1, 0.35, 0.45, 0.8), raw_label="wolf", label="wolf")
    record = record.append([*objects, *others, *lines, fell, *texts, *told, *masks, *triplets])
    return record.decide([record.reject(fell, "nms", "overlap")])


def _slanted(place: tuple[float, ...], width: int, height: int) -> tuple[float, ...]:
    x0, y0, x1, y1 = place
    low = y0 + 0.8 * (y1 - y0)
    quad = (x0, y0, x1, y1 - low + y0, x1, y1, x0, low)
    return tuple(value * (width, height)[n % 2] for n, value in enumerate(quad))


def _oval(region: Region, width: int, height: int) -> bytes:
    x0, y0, x1, y1 = region.box
    pixels = np.zeros((height, width), np.uint8)
    middle, axes = (int((x0 + x1) / 2), int((y0 + y1) / 2)), (int((x1 - x0) / 2), int((y1 - y0) / 2))
    return encode_mask(cv2.ellipse(pixels, middle, axes, 0, 0, 360, 1, -1).astype(bool))

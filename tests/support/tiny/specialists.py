"""How each installed specialist is checked: with which parameters, and with a tiny checkpoint where it loads one.

A specialist that is declared in pyproject.toml belongs in here, by the name that it has there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from completions import Asked, completing
from memorised import memorised, saved

from engine.vocabulary import ClassEntry, Vocabulary
from florence2 import ask
from tiny import captioners, contrastives, detectors, grounders, qwen, segmenters

Parameters = dict[str, Any]
VOCABULARY = Vocabulary(classes={"disc": ClassEntry(synonyms=("ball",)), "square": ClassEntry(), "sign": ClassEntry()})
EVERYTHING = {"min_score": 0.0, "min_proposal_score": 0.0, "max_objects": 6, "max_proposals": 4}
EVERY_PHRASE = {"min_phrase": 0.0, "min_box": 0.0}
CIRCLE = "<loc_100><loc_100><loc_400><loc_400>"
KNOWN = {
    ask("CAPTION"): "a disc and a square",
    ask("OD"): f"disc{CIRCLE}square<loc_500><loc_500><loc_900><loc_900>",
    ask("CAPTION_TO_PHRASE_GROUNDING", "a disc and a square"): f"a disc{CIRCLE}",
    ask("OCR_WITH_REGION"): "OPEN<loc_10><loc_10><loc_90><loc_10><loc_90><loc_40><loc_10><loc_40>",
}


def florence2(folder: Path) -> Parameters:
    return {"model": saved(folder, memorised(KNOWN, steps=60)), "max_new_tokens": 40, "caption_beams": 1}


@contextmanager
def reader(folder: Path) -> Iterator[Parameters]:
    """By a server, since no model that writes JSON is tiny."""

    def lines(asked: Asked) -> str:
        (image,) = asked.images
        return json.dumps({"lines": [{"text": f"{image.mean():.0f}", "box": [100, 200, 600, 700]}]})

    with completing(folder, lines) as there:
        yield {"server": there.settings, "model": "tiny"}


TABLE: dict[str, Callable[[Path], Parameters | AbstractContextManager[Parameters]]] = {
    "nanodet": lambda folder: {},
    "rapidocr": lambda folder: {},
    "grabcut": lambda folder: {},
    "composer": lambda folder: {},
    "parser": lambda folder: {},
    "grounder": lambda folder: {},
    "florence2": florence2,
    "detr": lambda folder: {"model": detectors.rt_detr_v2(folder), **EVERYTHING},
    "owlv2": lambda folder: {"model": grounders.owlv2(folder), **EVERYTHING},
    "grounding_dino": lambda folder: {"model": grounders.grounding_dino(folder), **EVERY_PHRASE},
    "owlv2_grounder": lambda folder: {"model": grounders.owlv2(folder), **EVERY_PHRASE},
    "sam": lambda folder: {"model": segmenters.sam2(folder), "min_score": 0.0, "max_regions": 4},
    "contrastive": lambda folder: {"model": contrastives.siglip2(folder), "max_regions": 4},
    "captioner": lambda folder: {"model": captioners.blip(folder), "max_regions": 2, "max_new_tokens": 8},
    "annotator": lambda folder: {"model": qwen.qwen2_5_vl(folder), "max_new_tokens": 40},
    "aggregator": lambda folder: {"model": qwen.qwen2(folder), "max_new_tokens": 40},
    "reader": reader,
}


@contextmanager
def tiny(use: str, folder: Path) -> Iterator[Parameters]:
    """The parameters of the specialist called `use`; `folder` is for its checkpoint."""
    made = TABLE[use](folder)
    with nullcontext(made) if isinstance(made, dict) else made as parameters:
        yield {key: str(value) if isinstance(value, Path) else value for key, value in parameters.items()}

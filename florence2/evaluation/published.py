"""What the paper prints of Florence-2-base and -large (arXiv 2311.06242), as fractions; CIDEr from 0 to 10.

Zero-shot: the released "-base" and "-large". Fine-tuned: "-base-ft" and "-large-ft", one model for all tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from florence2.evaluation.result import Numbers

MODELS = ("zero-shot base", "zero-shot large", "fine-tuned base", "fine-tuned large")


@dataclass(frozen=True)
class Published:
    """Figures by model; `of` is what they were measured on."""

    of: str
    figures: Mapping[str, Numbers]

    @property
    def note(self) -> str:
        return f"{', '.join(self.figures)}: published for {self.of} (arXiv 2311.06242), not measured here"


def published(of: str, name: str, *values: float) -> Published:
    return Published(of, {model: {name: value} for model, value in zip(MODELS, values, strict=False)})


CAPTIONS = published("COCO's Karpathy test split, the task CAPTION", "CIDEr-D", 1.330, 1.356, 1.400, 1.433)
DETECTION = published("COCO val2017", "AP", 0.347, 0.375, 0.414, 0.434)
PHRASES = published("Flickr30k's test split; its protocol is not said", "R@1", 0.836, 0.844)
REFERRED_BOXES = published("RefCOCO val", "accuracy@0.5", 0.539, 0.563, 0.926, 0.934)
REFERRED_MASKS = published("RefCOCO val", "mIoU", 0.346, 0.358)

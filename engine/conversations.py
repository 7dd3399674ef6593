"""How annotations are put as questions and answers of a chat about an image, in the words of LLaVA-1.5's training data
where that has some, and how they are told from such a chat again.

A box is "[0.012, 0.250, 0.988, 1.000]": x0, y0, x1, y1 as fractions of the upright image's width and height, to three
decimals. Of the image as it is: who pads it to a square, as LLaVA-1.5's own code does, has to move boxes along.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from engine.records import Box

CAPTIONS = {
    "brief": "Provide a one-sentence caption for the provided image.",
    "detailed": "Describe the following image.",
    "more_detailed": "Provide a detailed description of the given image.",
}
READ = "What is the text in the image?"
READ_REGION = "What does the text in this region say: {}?"
CATEGORY = "What is in this region: {}? Answer the question using a single word or phrase."
DESCRIBE = "Please provide a short description for this region: {}."
FIND = "Please provide the bounding box coordinate of the region this sentence describes: {}."

IMAGE = "<image>"
# What LLaVA's code and its tokenizers read as no text.
TOKEN = re.compile(r"<(?=(?:image|image-placeholder|im_patch|im_start|im_end|video|s|/s|unk|pad)>)")
NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
BOX = re.compile(r"\[" + ",".join([NUMBER] * 4) + r"\]", re.ASCII)
THOUSANDTHS = tuple(f"{number / 1000:.3f}" for number in range(1001))


def harmless(text: str) -> str:
    """The text, with what would be read as a token of the model's broken: "<image>" becomes "< image>"."""
    return TOKEN.sub("< ", text) if "<" in text else text


def boxes_said(boxes: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64]) -> list[str]:
    """[N, 4] in pixels of images of `sizes` [N, 2] (width, height), in words; clipped to the image."""
    places = np.rint(np.clip(boxes / np.tile(sizes, 2), 0, 1) * 1000).astype(np.int64).tolist()
    said = THOUSANDTHS
    return [f"[{said[x0]}, {said[y0]}, {said[x1]}, {said[y1]}]" for x0, y0, x1, y1 in places]


def boxes_in(text: str) -> list[Box] | None:
    """The boxes that an answer consists of; None if it is anything else, or has a number outside of 0 to 1."""
    found: list[Box] = []
    for match in BOX.finditer(text):
        x0, y0, x1, y1 = map(float, match.groups())
        found.append((x0, y0, x1, y1))
    whole = not BOX.sub("", text).strip(" ,;\n") and found
    return found if whole and all(0 <= value <= 1 for box in found for value in box) else None


def input_of(question: str, template: str) -> str | None:
    """What a question of this template asks about; None if it is another one."""
    before, after = template.split("{}")
    if len(question) < len(before) + len(after) or not (question.startswith(before) and question.endswith(after)):
        return None
    return question[len(before) : len(question) - len(after)]

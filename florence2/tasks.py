"""The fifteen tasks: the sentence that asks for each, what it takes and the form of its answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from math import isfinite
from typing import Any

from florence2.errors import PromptError
from florence2.locations import UNKNOWN, Size, quantize, written


class Form(Enum):
    """How an answer is written."""

    TEXT = "text"
    BOXES = "boxes"  # 4 locs, 4 locs, ...
    LABELLED_BOXES = "labelled boxes"  # label, 4 locs or more; label, ...
    LABELLED_QUADS = "labelled quads"  # text, 8 locs; text, ...
    POLYGONS = "polygons"  # x, y, x, y ... <sep> between rings, <poly> ... </poly> around an instance
    BOXES_OR_POLYGONS = "boxes or polygons"  # labelled; polygons where <poly> occurs

    @classmethod
    def of(cls, form: Form | str) -> Form:
        """The form itself, or that of a value ("labelled boxes"). PromptError if there is none."""
        try:
            return cls(form)
        except ValueError:
            values = ", ".join(repr(known.value) for known in cls)
            raise PromptError(f"expected a form, one of {values}; got {form!r}") from None


class Task(StrEnum):
    """What a released model can be asked. Each is its name as a string, without Microsoft's < >; `of` reads both.

    TASKS has the sentence that each stands for and the form of its answer; `ask` makes the prompt of one.
    """

    CAPTION = "CAPTION"
    DETAILED_CAPTION = "DETAILED_CAPTION"
    MORE_DETAILED_CAPTION = "MORE_DETAILED_CAPTION"
    OCR = "OCR"
    OCR_WITH_REGION = "OCR_WITH_REGION"
    OD = "OD"
    DENSE_REGION_CAPTION = "DENSE_REGION_CAPTION"
    REGION_PROPOSAL = "REGION_PROPOSAL"
    CAPTION_TO_PHRASE_GROUNDING = "CAPTION_TO_PHRASE_GROUNDING"
    REFERRING_EXPRESSION_SEGMENTATION = "REFERRING_EXPRESSION_SEGMENTATION"
    REGION_TO_SEGMENTATION = "REGION_TO_SEGMENTATION"
    OPEN_VOCABULARY_DETECTION = "OPEN_VOCABULARY_DETECTION"
    REGION_TO_CATEGORY = "REGION_TO_CATEGORY"
    REGION_TO_DESCRIPTION = "REGION_TO_DESCRIPTION"
    REGION_TO_OCR = "REGION_TO_OCR"

    @classmethod
    def of(cls, name: str) -> Task:
        """The task of a name, as here ("OD") or as Microsoft writes it ("<OD>"). PromptError if there is none."""
        try:
            bare = name[1:-1] if name.startswith("<") and name.endswith(">") else name
            return cls(bare.upper())
        except (AttributeError, TypeError, ValueError):
            raise PromptError(f"expected a task, one of {', '.join(cls)}; got {name!r}") from None

    @property
    def sentence(self) -> str:
        """What the model is asked, with {input} where the input goes."""
        return TASKS[self][0]

    @property
    def form(self) -> Form:
        return TASKS[self][1]

    @property
    def takes_input(self) -> bool:
        return "{input}" in self.sentence

    @property
    def takes_region(self) -> bool:
        """Whether the input is a box."""
        return self.startswith("REGION_TO_")


TASKS: dict[Task, tuple[str, Form]] = {
    Task.CAPTION: ("What does the image describe?", Form.TEXT),
    Task.DETAILED_CAPTION: ("Describe in detail what is shown in the image.", Form.TEXT),
    Task.MORE_DETAILED_CAPTION: ("Describe with a paragraph what is shown in the image.", Form.TEXT),
    Task.OCR: ("What is the text in the image?", Form.TEXT),
    Task.OCR_WITH_REGION: ("What is the text in the image, with regions?", Form.LABELLED_QUADS),
    Task.OD: ("Locate the objects with category name in the image.", Form.LABELLED_BOXES),
    Task.DENSE_REGION_CAPTION: ("Locate the objects in the image, with their descriptions.", Form.LABELLED_BOXES),
    Task.REGION_PROPOSAL: ("Locate the region proposals in the image.", Form.BOXES),
    Task.CAPTION_TO_PHRASE_GROUNDING: ("Locate the phrases in the caption: {input}", Form.LABELLED_BOXES),
    Task.REFERRING_EXPRESSION_SEGMENTATION: ("Locate {input} in the image with mask", Form.POLYGONS),
    Task.REGION_TO_SEGMENTATION: ("What is the polygon mask of region {input}", Form.POLYGONS),
    Task.OPEN_VOCABULARY_DETECTION: ("Locate {input} in the image.", Form.BOXES_OR_POLYGONS),
    Task.REGION_TO_CATEGORY: ("What is the region {input}?", Form.TEXT),
    Task.REGION_TO_DESCRIPTION: ("What does the region {input} describe?", Form.TEXT),
    Task.REGION_TO_OCR: ("What text is in the region {input}?", Form.TEXT),
}
REGION = re.compile(r"(?:<loc_(?:0|[1-9][0-9]{0,2})>){4}")

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels
Input = str | Sequence[str] | Sequence[float]


@dataclass(frozen=True)
class Prompt:
    """What an image is asked: the sentence that the model reads, and how the answer is to be understood.

    Made by `ask` for a task; made by hand for the prompts of a fine-tuned checkpoint (no task then).
    `labels` are the queries of an open-vocabulary detection, for constrained decoding. A form may be given as its value
    ("boxes"), labels as any list of texts, as one text or as None. PromptError for what is neither.
    """

    text: str
    form: Form = Form.TEXT
    task: Task | None = None
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given: object = self.labels or ()
        labels = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Iterable) else (given,)
        if not all(isinstance(label, str) for label in labels):
            raise PromptError(f"expected labels that are texts; got {given!r}")
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "form", Form.of(self.form))


def ask(task: Task | str, input: Input | None = None, size: Size | None = None) -> Prompt:
    """The prompt of a task for an image.

    `input` is a text; for open-vocabulary detection one or several texts, or one with <and> between them; for the
    REGION_TO_ tasks a box (x0, y0, x1, y1) in pixels of the image of `size` (width, height), or its four loc tokens.
    PromptError if the task is unknown, or its input is missing, of another kind, outside the image, or given where none
    belongs.
    """
    task = Task.of(task)
    if not task.takes_input:
        if input is not None:
            raise PromptError(f"{task} takes no input; got {input!r}")
        return Prompt(task.sentence, task.form, task)
    if input is None:
        raise PromptError(f"{task} needs {'a region' if task.takes_region else 'a text'} as input: ({task}, input)")
    if task.takes_region:
        return Prompt(task.sentence.replace("{input}", region(task, input, size)), task.form, task)
    labels = texts(task, input)
    return Prompt(task.sentence.replace("{input}", "<and>".join(labels)), task.form, task, labels)


def texts(task: Task, input: Input) -> tuple[str, ...]:
    given: list[Any]
    if isinstance(input, str):
        given = input.split("<and>") if task is Task.OPEN_VOCABULARY_DETECTION else [input]
    else:
        given = list(input) if isinstance(input, Iterable) else []
    if not given or not all(isinstance(text, str) and text.strip() for text in given):
        raise PromptError(f"{task} needs a text that is not empty; got {input!r}")
    if len(given) > 1 and task is not Task.OPEN_VOCABULARY_DETECTION:
        raise PromptError(f"{task} takes one text; got {len(given)}: ask once for each")
    return tuple(text.strip() for text in given)


def region(task: Task, input: Input, size: Size | None) -> str:
    if isinstance(input, str):
        if not REGION.fullmatch(input):
            raise PromptError(
                f"{task} needs a box, or its four tokens as in <loc_1><loc_2><loc_3><loc_4>; got {input!r}"
            )
        return input
    try:
        box = [float(v) for v in input]
        if not all(map(isfinite, box)):
            raise ValueError
        x0, y0, x1, y1 = box
        if x0 > x1 or y0 > y1:  # as where width and height are given for the other corner
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise PromptError(f"{task} needs a box x0 <= x1, y0 <= y1 (x0, y0, x1, y1 in pixels); got {input!r}") from None
    if size is None:
        raise PromptError(f"{task} needs the image's size (width, height) to turn a box in pixels into tokens")
    tokens = written(quantize(box, size))
    outside = x1 < 0 or y1 < 0 or x0 > size[0] or y0 > size[1]
    if outside and size is not UNKNOWN:
        raise PromptError(f"{task} needs a box in its image of {size[0]} x {size[1]} pixels; got {input!r}, outside it")
    return tokens

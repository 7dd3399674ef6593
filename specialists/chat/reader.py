"""The reader: what stands written in an image, and where, by a model that answers in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat

from engine.geometry import area, clip
from engine.protocols import Image, Reads, Sample
from engine.records import Box, Region
from specialists.chat.prompts import Coordinates, Reading, filled
from specialists.chat.question import Question
from specialists.chat.specialist import ChatSpecialist, Model, Prompt
from specialists.chat.writing import one_line, worded

THOUSANDTHS = 1000.0


def _four(numbers: list[float]) -> list[float]:
    if len(numbers) != 4:
        raise ValueError(f"expected 4 numbers, found {len(numbers)}")
    return numbers


class Line(BaseModel):
    """A line of text; its box is x0, y0, x1, y1 in the coordinates that were asked for."""

    model_config = ConfigDict(extra="forbid")

    text: Annotated[str, AfterValidator(worded)]
    box: Annotated[list[FiniteFloat], AfterValidator(_four)]  # a tuple's schema is not known to all servers


class Lines(BaseModel):
    """What can be read, in reading order."""

    model_config = ConfigDict(extra="forbid")

    lines: list[Line]


@dataclass
class Reader(ChatSpecialist):
    """Regions of kind "text" with what they say, by a hub's image-text-to-text model or one behind a server. No scores.

    Boxes are upright, and as good as the model's sense of place: Qwen3-VL and InternVL write them in thousandths of the
    image's width and height; others, Qwen2.5-VL among them, in pixels of the image that they are sent. That is the
    image itself, or one as small as the server's `image_side` wants it.
    """

    name: str = "reader"
    model: Model = "Qwen/Qwen3-VL-8B-Instruct"
    prompt: Prompt = "read-1"
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000, description="of an answer; a line has some 30")] = 4096
    coordinates: Annotated[Coordinates, Field(description="what the model writes boxes in")] = "thousandths"
    reads: ClassVar[Reads] = "image"
    models: ClassVar[dict[str, str]] = {
        "Qwen/Qwen2.5-VL-7B-Instruct": "Apache-2.0",
        "Qwen/Qwen3-VL-4B-Instruct": "Apache-2.0",
        "Qwen/Qwen3-VL-8B-Instruct": "Apache-2.0",
    }
    _prompts: Reading = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._prompts = self.prompts(Reading)

    def annotate(self, batch: Sequence[Sample]) -> list[list[Region]]:
        answers = self._chat.ask([self._question(sample.image) for sample in batch])
        return [list(self._regions(sample, answer)) for sample, answer in zip(batch, answers, strict=True)]

    def _question(self, image: Image) -> Question:
        width, height = self._sent(image)
        prompt = filled(self._prompts.lines[self.coordinates], width=str(width), height=str(height))
        return Question(prompt, self._prompts.system, image, Lines)

    def _regions(self, sample: Sample, answer: str | BaseModel) -> Iterator[Region]:
        assert isinstance(answer, Lines)
        ids = sample.record.ids(self.name)
        height, width = sample.image.shape[:2]
        for line in answer.lines:
            box = clip(self._in_pixels(line.box, sample.image), width, height)
            if area(box):
                yield Region(id=next(ids), source=self.name, kind="text", box=box, text=one_line(line.text))

    def _in_pixels(self, box: Sequence[float], image: Image) -> Box:
        """Of the upright image."""
        height, width = image.shape[:2]
        whole = (THOUSANDTHS, THOUSANDTHS) if self.coordinates == "thousandths" else self._sent(image)
        across, down = width / whole[0], height / whole[1]
        x0, y0, x1, y1 = box
        return x0 * across, y0 * down, x1 * across, y1 * down

    def _sent(self, image: Image) -> tuple[int, int]:
        """Width and height of what the model is sent."""
        height, width = image.shape[:2]
        scale = min(self.server.image_side / max(width, height), 1.0) if self.server else 1.0
        return max(round(width * scale), 1), max(round(height * scale), 1)

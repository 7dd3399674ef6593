"""The annotator, the paper's large multimodal model: detailed texts of an image, by a model that sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import Field

from engine.protocols import Reads, Sample
from engine.records import Text
from specialists.chat.notes import NOTHING, notes_of
from specialists.chat.prompts import Writing
from specialists.chat.specialist import ChatSpecialist, Model, Prompt
from specialists.chat.writing import Details, Subject, Writer


@dataclass
class Annotator(ChatSpecialist):
    """Texts of the wanted granularities, by a hub's image-text-to-text model or one behind a server. No scores.

    With `hints` the model is told what stands of the image by then, as in the paper: brief texts, things and where they
    are, what can be read. Its texts then derive from all of that: they fall with a region that falls later, and are no
    witness of what they were told.
    """

    name: str = "annotator"
    model: Model = "Qwen/Qwen3-VL-4B-Instruct"
    prompt: Prompt = "describe-1"
    details: Details = ("detailed", "more_detailed")
    hints: Annotated[bool, Field(description="tell the model what is annotated already")] = False
    models: ClassVar[dict[str, str]] = {
        "Qwen/Qwen2.5-VL-3B-Instruct": "Qwen research licence, non-commercial",
        "Qwen/Qwen2.5-VL-7B-Instruct": "Apache-2.0",
        "Qwen/Qwen2.5-VL-32B-Instruct": "Apache-2.0",
        "Qwen/Qwen3-VL-4B-Instruct": "Apache-2.0",
        "Qwen/Qwen3-VL-8B-Instruct": "Apache-2.0",
        "HuggingFaceTB/SmolVLM2-2.2B-Instruct": "Apache-2.0",
    }
    _writer: Writer = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._writer = Writer(self.name, self.prompts(Writing), self.details, together=self.server is not None)

    @property
    def reads(self) -> Reads:
        return "record" if self.hints else "image"

    def annotate(self, batch: Sequence[Sample]) -> list[list[Text]]:
        return self._writer.write(self._chat, [self._subject(sample) for sample in batch])

    def _subject(self, sample: Sample) -> Subject:
        height, width = sample.image.shape[:2]
        notes = notes_of(sample.standing, (width, height)) if self.hints else NOTHING
        return Subject(sample.record, notes, sample.image)

"""The aggregator, the paper's large language model: what the specialists found, put together as detailed texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from engine.protocols import Sample
from engine.records import Text
from specialists.chat.notes import notes_of
from specialists.chat.prompts import Writing
from specialists.chat.specialist import ChatSpecialist, Model, Prompt
from specialists.chat.writing import Details, Subject, Writer


@dataclass
class Aggregator(ChatSpecialist):
    """Texts of the wanted granularities, by a hub's language model or one behind a server; it sees no image. No scores.

    It is told what stands by then: brief texts, things with what was said of them and where they are, and what can be
    read. Its texts derive from all of that, and may name nothing else: the filter `supported` counts what does. Of an
    image of which nothing stands it writes nothing.
    """

    name: str = "aggregator"
    model: Model = "Qwen/Qwen3-VL-4B-Instruct"
    prompt: Prompt = "fuse-1"
    details: Details = ("detailed", "more_detailed")
    models: ClassVar[dict[str, str]] = {
        "Qwen/Qwen2.5-3B-Instruct": "Qwen research licence, non-commercial",
        "Qwen/Qwen2.5-7B-Instruct": "Apache-2.0",
        "Qwen/Qwen2.5-14B-Instruct": "Apache-2.0",
        "Qwen/Qwen3-8B": "Apache-2.0",
        "Qwen/Qwen3-VL-4B-Instruct": "Apache-2.0",
        "HuggingFaceTB/SmolLM2-1.7B-Instruct": "Apache-2.0",
    }
    sees: ClassVar[bool] = False
    _writer: Writer = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._writer = Writer(self.name, self.prompts(Writing), self.details, together=self.server is not None)

    def annotate(self, batch: Sequence[Sample]) -> list[list[Text]]:
        return self._writer.write(self._chat, [self._subject(sample) for sample in batch])

    def _subject(self, sample: Sample) -> Subject:
        height, width = sample.image.shape[:2]
        return Subject(sample.record, notes_of(sample.standing, (width, height)))

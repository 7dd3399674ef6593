"""Texts about images by a language model, with or without sight of them: what is asked, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model

from engine.errors import ConfigError
from engine.protocols import Image
from engine.records import DETAILS, Detail, Record, Text
from specialists.chat.notes import Notes
from specialists.chat.prompts import Writing, filled
from specialists.chat.question import Chat, Question

Details = Annotated[tuple[Detail, ...], Field(min_length=1, description="granularities of the texts that it writes")]


@dataclass(frozen=True)
class Subject:
    """What a text is to be about: an image, if the model is to see it, and notes, where there are any."""

    record: Record
    notes: Notes
    image: Image | None = None


@dataclass(frozen=True)
class Writer:
    """Writes a text of each of the `details`, from the shortest on.

    `together`: all in one answer, as JSON, so that an image is sent and paid for once; else each by itself.
    """

    source: str
    prompts: Writing
    details: tuple[Detail, ...]
    together: bool

    def __post_init__(self) -> None:
        object.__setattr__(self, "details", tuple(detail for detail in DETAILS if detail in self.details))
        if unknown := [detail for detail in self.details if detail not in self.prompts.details]:
            there = ", ".join(self.prompts.details)
            raise ConfigError(f"specialist {self.source}: its prompt has words for {there}, none for {unknown[0]}")

    def write(self, chat: Chat, subjects: Sequence[Subject]) -> list[list[Text]]:
        """The texts of each subject, derived from its notes; none if there is neither an image nor a note."""
        asked = [list(self._questions(subject)) for subject in subjects]
        answers = iter(chat.ask([question for some in asked for question in some]))
        heard = [[next(answers) for _ in some] for some in asked]
        return [list(self._texts(subject, some)) for subject, some in zip(subjects, heard, strict=True)]

    def _questions(self, subject: Subject) -> Iterator[Question]:
        notes, prompts = subject.notes.words, self.prompts
        if subject.image is None and not notes:
            return
        found = filled(prompts.found, notes=notes) if notes else ""
        if self.together and len(self.details) > 1:
            texts = "\n".join(f"- {detail}: {prompts.details[detail]}" for detail in self.details)
            prompt = filled(prompts.together, found=found, texts=texts)
            yield Question(prompt, prompts.system, subject.image, _schema(self.details))
            return
        for detail in self.details:
            prompt = filled(prompts.one, found=found, text=prompts.details[detail])
            yield Question(prompt, prompts.system, subject.image)

    def _texts(self, subject: Subject, answers: Sequence[str | BaseModel]) -> Iterator[Text]:
        said = [text for answer in answers for text in ([answer] if isinstance(answer, str) else dict(answer).values())]
        ids, made_from = subject.record.ids(self.source), subject.notes.ids
        for detail, text in zip(self.details if answers else (), said, strict=True):
            yield Text(id=next(ids), source=self.source, derived_from=made_from, text=one_line(text), detail=detail)


def one_line(text: str) -> str:
    return " ".join(text.split())


def worded(text: str) -> str:
    """Of a schema, which says nothing of lengths itself: servers know different parts of what JSON schemas can say."""
    if not text.strip():
        raise ValueError("expected words, found none")
    return text


@cache
def _schema(details: tuple[Detail, ...]) -> type[BaseModel]:
    """A text for each of the details."""
    fields: dict[str, Any] = dict.fromkeys(details, (Annotated[str, AfterValidator(worded)], ...))
    return create_model("Texts", __config__=ConfigDict(extra="forbid"), **fields)

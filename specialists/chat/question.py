"""What is asked of a language model, and what is wanted back, whether it runs here or behind a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import BaseModel

from engine.protocols import Image


@dataclass(frozen=True)
class Question:
    """A prompt, about an image if there is one. With a `schema` the answer is JSON that fits it, else any text."""

    prompt: str
    system: str = ""
    image: Image | None = None
    schema: type[BaseModel] | None = None


class Unanswered(Exception):
    """A question had no usable answer: a refusal, an empty one, JSON that does not fit. Its image is quarantined."""


class Chat(Protocol):
    """A model that answers."""

    def setup(self) -> None:
        """Loads weights, or looks whether the server is there; in the worker."""

    def ask(self, questions: Sequence[Question]) -> list[str | BaseModel]:
        """An answer each, in order: an instance of the question's `schema`, or stripped text that is not empty. Raises
        Unanswered for one that has none, RunError where asking on makes no sense: budget spent, key refused."""

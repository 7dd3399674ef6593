"""A question as an OpenAI-compatible server is asked it."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

from PIL import Image as Pillow

from engine.protocols import Image
from specialists.chat.answers import instruction
from specialists.chat.question import Question
from specialists.chat.schemas import strict_schema
from specialists.chat.settings import ServerSettings

QUALITY = 90  # of JPEGs
OTHERWISE = 0.7  # lowest temperature for a question that is asked again: at 0, the answer would be the same again
OPENAI = ("api.openai.com", ".openai.azure.com")  # who calls max_tokens by another name than all others


@dataclass(frozen=True)
class Request:
    """`max_tokens` are those of the answer."""

    settings: ServerSettings
    model: str
    max_tokens: int
    question: Question

    @cached_property
    def key(self) -> bytes:
        """A digest of where it is sent and what is sent the first time, which has no key in it."""
        first = [self.settings.url, self.body(0, structured=self.settings.structured != "none")]
        return hashlib.blake2b(json.dumps(first, sort_keys=True).encode(), digest_size=16).digest()

    def body(self, attempt: int, *, structured: bool) -> dict[str, Any]:
        """What is sent; differently if an earlier attempt (0, 1, ...) had an answer of no use."""
        settings, question = self.settings, self.question
        host = urlsplit(settings.url).hostname or ""
        spelt_out = question.schema is not None and (attempt > 0 or not structured)
        body: dict[str, Any] = {
            "model": self.model,
            "messages": self._messages(spelt_out=spelt_out),
            "max_completion_tokens" if host.endswith(OPENAI) else "max_tokens": self.max_tokens,
            "seed": settings.seed + attempt,
        }
        if settings.temperature is not None:
            body["temperature"] = max(settings.temperature, OTHERWISE) if attempt else settings.temperature
        if question.schema is not None and structured:
            schema = {"name": question.schema.__name__, "strict": True, "schema": strict_schema(question.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def _messages(self, *, spelt_out: bool) -> list[dict[str, Any]]:
        question = self.question
        words = question.prompt
        if question.schema is not None and spelt_out:
            words = f"{words}\n\n{instruction(question.schema)}"
        shown = [{"type": "image_url", "image_url": {"url": self._picture}}, {"type": "text", "text": words}]
        system = [{"role": "system", "content": question.system}] if question.system else []
        return [*system, {"role": "user", "content": words if question.image is None else shown}]

    @cached_property
    def _picture(self) -> str:
        return "" if self.question.image is None else data_url(self.question.image, self.settings.image_side)


def data_url(image: Image, side: int) -> str:
    """`image`, [height, width, 3] RGB, as a JPEG in a URL; made smaller if it is longer than `side` pixels."""
    picture, file = Pillow.fromarray(image), BytesIO()
    scale = side / max(picture.size)
    if scale < 1:
        width, height = (max(1, round(length * scale)) for length in picture.size)
        picture = picture.resize((width, height), Pillow.Resampling.LANCZOS)
    picture.save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"

"""A server on loopback that answers as OpenAI's does, with what a function says."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow
from web import Handler, serving

from engine.protocols import Image
from specialists.chat.settings import ServerSettings


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def system(self) -> str:
        return "\n".join(m["content"] for m in self.body["messages"] if m["role"] == "system")

    @property
    def prompt(self) -> str:
        content = self.body["messages"][-1]["content"]
        return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)

    @property
    def images(self) -> list[Image]:
        """Decoded."""
        content = self.body["messages"][-1]["content"]
        urls = [part["image_url"]["url"] for part in content if isinstance(part, dict) and part["type"] == "image_url"]
        return [np.asarray(Pillow.open(BytesIO(base64.b64decode(url.partition(",")[2])))) for url in urls]

    @property
    def fields(self) -> list[str]:
        """The keys of the JSON that is asked for; none if any text will do."""
        form = self.body.get("response_format")
        return list(form["json_schema"]["schema"]["properties"]) if form else []

    @property
    def notes(self) -> str:
        """What stands between the marks."""
        marked = re.findall(r"<notes>\n(.*?)\n</notes>", self.prompt, re.DOTALL)
        return marked[0] if marked else ""


@dataclass
class Completions:
    settings: ServerSettings
    asked: list[Asked] = field(default_factory=list)


@contextmanager
def completing(cache: Path, say: Callable[[Asked], str], **settings: Any) -> Iterator[Completions]:
    """`cache` is the folder of what is paid."""
    with serving() as web:
        chosen = {"url": web.url("/v1"), "cache": str(cache), "backoff_seconds": 0, "attempts": 1} | settings
        there = Completions(ServerSettings(**chosen))

        def answer(handler: Handler) -> None:
            asked = Asked(json.loads(handler.body), dict(handler.headers))
            there.asked.append(asked)
            message = {"role": "assistant", "content": say(asked)}
            choices = [{"index": 0, "finish_reason": "stop", "message": message}]
            usage = {"prompt_tokens": 10, "completion_tokens": 10}
            handler.answer(json.dumps({"choices": choices, "usage": usage}).encode(), Content_Type="application/json")

        web.pages["/v1/chat/completions"] = answer
        yield there

"""What all specialists that ask a language model have in common: which one, where it runs, and by which prompt."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Self, TypeVar

from pydantic import Field

from engine import geometry
from engine.versions import digest_of, digest_of_json
from specialists import distinct, nouns, phrases, scene
from specialists.chat import prompts
from specialists.chat.prompts import Prompts
from specialists.chat.question import Chat
from specialists.chat.settings import ServerSettings
from specialists.hub.specialist import HubSpecialist
from specialists.hub.weights import Weights

Kind = TypeVar("Kind", bound=Prompts)
Model = Annotated[
    str, Field(description="a folder, or a hub's id (owner/name); with a server, what that calls the model")
]
Prompt = Annotated[
    str, Field(description="a prompt that comes along, or a YAML file; with @ and a digest behind it: that very file")
]


@dataclass
class ChatSpecialist(HubSpecialist):
    """The parameters that they share. A subclass says in `sees` whether there will be images in its questions."""

    name: str = "chat"
    model: Model = ""
    prompt: Prompt = ""
    server: Annotated[
        ServerSettings | None, Field(description="an OpenAI-compatible server; none: a hub's model, which runs here")
    ] = None
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000, description="of an answer")] = 512
    sees: ClassVar[bool] = True
    _chat: Chat = field(init=False, repr=False, compare=False)
    _dataset: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        model = self.model
        super().__post_init__()
        if self.server is not None:
            self.model = model  # a name, though there be a folder of that name

    def spending_on(self, dataset: str) -> Self:
        """This one, whose budget is for a dataset: the place of an output folder."""
        again = copy.copy(self)
        again._dataset = dataset
        return again

    def prompts(self, kind: type[Kind]) -> Kind:
        """The prompts that are named; the parameter has their digest from then on."""
        loaded, self.prompt = prompts.load(kind, self.prompt, where=f"specialist {self.name}")
        return loaded

    @property
    def licence(self) -> str:
        return super().licence if self.server is None else "that of the server's model: not known here"

    @property
    def version(self) -> str:
        made_by = super().version if self.server is None else f"{self.server.url} {self.model}"
        told_by = [Path(str(part.__file__)) for part in (distinct, geometry, nouns, phrases, scene)]
        code = digest_of(type(self).__module__, *sorted(Path(__file__).parent.glob("*.py")), *told_by)
        return digest_of_json([made_by, code, self.prompt.rpartition("@")[2]])

    def needs(self) -> Iterator[str]:
        if self.server is None:
            yield from super().needs()
        elif self.server.url.startswith("https:") and not os.environ.get(self.server.key_from):
            yield f"a key for {self.server.url}, if it asks for one, in the environment variable {self.server.key_from}"

    def setup(self) -> None:
        if self.server is None:
            super().setup()
            return
        from specialists.chat.server import Server

        self._chat = Server(self.server, self.model, self.max_new_tokens, scope=f"{self.name} on {self._dataset}")
        self._chat.setup()

    def _load(self, weights: Weights) -> None:
        from specialists.chat.hub import HubChat

        self._chat = HubChat(weights, self.precision, self._batches, self.max_new_tokens, self.sees)
        self._chat.setup()

"""Prompts: YAML files with a version, of which a specialist names one. What comes along is in `prompts/`.

A slot is {name}; it is filled with what stands for it, letter by letter, and what was filled in is not looked at again.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, PositiveInt, StringConstraints, model_validator

from engine import plain_yaml
from engine.errors import ConfigError
from engine.records import Detail
from engine.validation import validated

SHIPPED = Path(__file__).with_name("prompts")
SLOT = re.compile(r"\{([a-z_]+)\}")
PINNED = re.compile(r"(.+)@([0-9a-f]{12})", re.DOTALL)
LONGEST = 100_000  # bytes

Coordinates = Literal["thousandths", "pixels"]
Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Kind = TypeVar("Kind", bound="Prompts")


class Prompts(BaseModel):
    """What every file has. `slots` are those that an entry must have, each once; others have none."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    slots: ClassVar[dict[str, tuple[str, ...]]] = {}

    version: PositiveInt  # raised when the words change
    system: Words

    @model_validator(mode="after")
    def _slots_are_known(self) -> Prompts:
        for entry, text in _texts(self.model_dump()):
            expected = sorted(self.slots.get(entry, ()))
            found = sorted(SLOT.findall(text))
            if found != expected:
                raise ValueError(
                    f"{entry} must have {_listed(expected)} as its slots, each once; it has {_listed(found)}"
                )
        return self


class Writing(Prompts):
    """How texts are asked for: one alone, or several together, each by what `details` says of it. `found` is how what
    is annotated already is put before them; where nothing is, they do without."""

    slots: ClassVar[dict[str, tuple[str, ...]]] = {
        "found": ("notes",),
        "one": ("found", "text"),
        "together": ("found", "texts"),
    }

    details: dict[Detail, Words]
    found: Words
    one: Words
    together: Words


class Reading(Prompts):
    """How lines of text are asked for, by how their boxes are to be written. The size is the image's, in pixels."""

    slots: ClassVar[dict[str, tuple[str, ...]]] = {"lines.pixels": ("width", "height")}

    lines: dict[Coordinates, Words]


def load(kind: type[Kind], named: str, *, where: str) -> tuple[Kind, str]:
    """The prompts of a shipped file, by its name, or of any, by its path; and that name with a digest of the file:
    "describe-1@0123456789ab", by which they can be named, too. Raises ConfigError, also if a file isn't that any more.
    """
    pinned = PINNED.fullmatch(named)
    path = _path(pinned[1] if pinned else named, where)
    try:
        data = path.read_bytes()
        values = plain_yaml.parse(data.decode()) if len(data) <= LONGEST else None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where}: prompt {path} can't be read: {error}") from error
    digest = hashlib.sha256(data).hexdigest()[:12]
    if pinned and pinned[2] != digest:
        raise ConfigError(f"{where}: {path} has other words than {named} had: its digest is {digest} now")
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: prompt {path} must be a mapping of {', '.join(kind.model_fields)}")
    prompts = validated(kind, values, where=f"{where}: prompt {path}")
    return prompts, f"{path.stem if path.parent == SHIPPED else path}@{digest}"


def filled(template: str, **values: str) -> str:
    """A template with its slots filled, and without the empty lines that empty ones leave."""
    text = SLOT.sub(lambda slot: values[slot[1]], template)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _path(named: str, where: str) -> Path:
    if re.fullmatch(r"[\w-]+", named):
        path = SHIPPED / f"{named}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.yaml")))
            raise ConfigError(f"{where}: no prompt is called {named!r}; expected {known}, or the path of a YAML file")
        return path
    return Path(named).expanduser().absolute()  # workers run in another folder


def _texts(values: dict[str, Any]) -> list[tuple[str, str]]:
    """Each text with the name of its entry, "system" or "details.brief"."""
    found = []
    for entry, value in values.items():
        inside = {f"{entry}.{key}": text for key, text in value.items()} if isinstance(value, dict) else {entry: value}
        found += [(name, text) for name, text in inside.items() if isinstance(text, str)]
    return found


def _listed(slots: list[str]) -> str:
    return ", ".join(f"{{{slot}}}" for slot in slots) or "none"

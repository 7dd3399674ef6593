"""The canonical classes: one name for each thing, whatever word a source uses for it."""

from __future__ import annotations

from functools import cached_property

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ClassEntry(BaseModel):
    """One canonical class."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    synonyms: tuple[str, ...] = Field((), description="other words for it, as sources write them")
    prompt: str | None = Field(None, description="what to ask an open-vocabulary detector for; the name if not given")


class Vocabulary(BaseModel):
    """Classes with their synonyms, and the classes to ignore. A word that is in no entry is its own class."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: dict[str, ClassEntry] = Field({}, description="canonical class -> synonyms and prompt")
    ignore: tuple[str, ...] = Field((), description="canonical classes whose regions never stand")

    @model_validator(mode="after")
    def _one_meaning_a_word(self) -> Vocabulary:
        owner: dict[str, str] = {}
        for name, entry in self.classes.items():
            for word in (name, *entry.synonyms):
                key = _key(word)
                if owner.setdefault(key, name) != name:
                    raise ValueError(f"{word!r} belongs to both {owner[key]!r} and {name!r}; a word has one class")
        return self

    def canonical(self, word: str) -> str:
        """The canonical class of a source's word; case and surrounding white space don't count."""
        return self._lookup.get(_key(word), _key(word))

    def knows(self, word: str) -> bool:
        """Whether an entry has the word, as its name or as a synonym."""
        return _key(word) in self._lookup

    @cached_property
    def _lookup(self) -> dict[str, str]:
        return {_key(word): name for name, entry in self.classes.items() for word in (name, *entry.synonyms)}


def _key(word: str) -> str:
    return " ".join(word.casefold().split())

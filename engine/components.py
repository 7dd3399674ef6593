"""Specialists and filters by name: found through entry points, described, checked, built.

Ours are declared in pyproject.toml like anybody's, in the groups `engine.specialists` and `engine.filters`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model

from engine.config import Parameters
from engine.errors import ConfigError
from engine.validation import validated
from engine.vocabulary import Vocabulary

Group = Literal["specialists", "filters", "choosers", "formats", "views"]
_INJECTED = ("name", "vocabulary")


@cache
def installed(group: Group) -> Mapping[str, EntryPoint]:
    """The installed components of `group`, by name. Raises ConfigError when two packages claim one name."""
    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=f"engine.{group}"), key=lambda entry: entry.name):
        if entry.name in found and found[entry.name].value != entry.value:
            raise ConfigError(f"two {group} are called {entry.name!r}: {found[entry.name].value} and {entry.value}")
        found[entry.name] = entry
    return found


def load(group: Group, use: str, *, where: str) -> type[Any]:
    """The class behind a name. Raises ConfigError with the known names, or with what kept it from loading."""
    try:
        entry = installed(group)[use]
    except KeyError:
        known = ", ".join(installed(group)) or "none"
        raise ConfigError(f"{where}: no {group[:-1]} is called {use!r}; installed: {known}") from None
    try:
        component: type[Any] = entry.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{where}: {use} ({entry.value}) can't be loaded: {error}") from error
    return component


def parameters_of(component: type[Any]) -> type[BaseModel]:
    """The Pydantic model of a component's parameters: its dataclass fields but for name and vocabulary."""
    hints = get_type_hints(component, include_extras=True)
    fields: dict[str, Any] = {
        field.name: (hints[field.name], _default(field))
        for field in dataclasses.fields(component)
        if field.init and field.name not in _INJECTED
    }
    return create_model(component.__name__, __config__=ConfigDict(extra="forbid"), **fields)


def build(group: Group, name: str, parameters: Parameters, vocabulary: Vocabulary) -> Any:
    """The component that the configuration asks for under `name`; `use` defaults to that name."""
    where = f"{group}.{name}"
    values = dict(parameters)
    use = values.pop("use", name)
    if not isinstance(use, str):
        raise ConfigError(f"{where}.use: expected the name of one of the {group}, not {use!r}")
    component = load(group, use, where=where)
    checked = validated(parameters_of(component), values, where=where, prefix=where)
    chosen = {field: getattr(checked, field) for field in type(checked).model_fields}
    if "vocabulary" in {field.name for field in dataclasses.fields(component)}:
        chosen["vocabulary"] = vocabulary
    return component(name=name, **chosen)


def describe(component: Any) -> dict[str, Any]:
    """A built component's parameters as JSON: what provenance and digests are made of."""
    model = parameters_of(type(component))
    return model(**{name: getattr(component, name) for name in model.model_fields}).model_dump(mode="json")


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return ...

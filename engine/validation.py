"""Faults of a configuration in the words of whoever wrote it: the path of each value, what was expected, what came."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from engine.errors import ConfigError
from engine.untrusted import shown
from engine.vocabulary import ClassEntry

# YAML's words for what Pydantic calls by Python's.
EXPECTED = dict.fromkeys(("tuple_type", "list_type"), "Input should be a list") | dict.fromkeys(
    ("dict_type", "model_type", "mapping_type"), "Input should be a mapping"
)
LONGEST = 1000  # characters of a value, or of a key, in a message
MOST_FAULTS = 100  # that are told
Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], values: Any, *, where: str, prefix: str = "") -> Model:
    """`values` as `model`, or a ConfigError with a line for each fault: its path, what was expected, what came."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults: dict[str, list[Any]] = {}
        for fault in error.errors():
            faults.setdefault(".".join([*([prefix] if prefix else []), *_path(fault, values)]), []).append(fault)
        told = list(faults.items())[:MOST_FAULTS]
        lines = [f"  {path[:LONGEST] or 'the configuration'}: {_said(some, model)}" for path, some in told]
        more = [f"  and {len(faults) - len(told):,} more"] if len(told) < len(faults) else []
        raise ConfigError("\n".join([f"{where}: {len(faults)} fault(s)", *lines, *more])) from None


def _path(fault: Any, values: Any) -> Iterator[str]:
    """The keys that lead to the value at fault; behind them Pydantic names which of several types it tried."""
    for key in fault["loc"]:
        inside = isinstance(values, Mapping) or (isinstance(values, list | tuple) and isinstance(key, int))
        if not inside or (isinstance(values, Mapping) and key not in values and fault["type"] != "missing"):
            return
        yield str(key)
        if isinstance(values, list | tuple) and isinstance(key, int) and key >= len(values):
            return  # one that is missing
        values = values.get(key) if isinstance(values, Mapping) else values[key]


def _said(faults: Sequence[Any], model: type[BaseModel]) -> str:
    """What is wrong with one value; several faults if it may be of several types."""
    first = faults[0]
    if first["type"] == "extra_forbidden":
        section = _section(model, first["loc"][:-1])
        return f"unknown key; known here: {', '.join(section.model_fields) or 'none'}"
    if first["type"] == "missing":
        return "missing"  # what is there beside it may be a secret
    if first["type"] == "value_error" and isinstance(first["input"], Mapping):  # of a section, which says it itself
        return str(first["msg"].removeprefix("Value error, "))
    told = [EXPECTED.get(fault["type"], fault["msg"].removeprefix("Value error, ")) for fault in faults]
    return f"{' or '.join(told)}, not {_shown(first['input'])}"


def _shown(value: object) -> str:
    """As it was written, as far as it fits into a message."""
    try:
        text = repr(value)
    except ValueError:  # an int of more than 4300 digits
        return shown(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


def _section(model: type[BaseModel], path: tuple[str | int, ...]) -> type[BaseModel]:
    """The model that `path` leads to, as far as it passes through sections."""
    for key in path:
        field = model.model_fields.get(str(key))
        if field and (section := section_of(field.annotation)):
            model = section
        elif str(key) not in model.model_fields:
            model = ClassEntry  # the only section inside a mapping: vocabulary.classes.NAME
    return model


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The model of a field that is a section, or may be one."""
    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None

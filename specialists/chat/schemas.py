"""A Pydantic model as the JSON schema that OpenAI's strict mode takes."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel

NESTED = ("properties", "$defs")  # name -> schema
LISTED = ("anyOf", "allOf", "oneOf", "prefixItems")


@cache
def strict_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of `model`, with every key required. It is not to be changed.

    Raises ValueError for a model that takes keys which it does not know.
    """
    schema = model.model_json_schema()
    _tighten(schema, model.__name__)
    return schema


def _tighten(schema: dict[str, Any], name: str) -> None:
    schema.pop("default", None)
    if schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            raise ValueError(f'{schema.get("title", name)} must forbid extra keys: model_config extra="forbid"')
        schema["required"] = list(schema.get("properties", ()))
    parts = [part for key in NESTED for part in schema.get(key, {}).values()]
    parts += [part for key in LISTED for part in schema.get(key, ())]
    for part in [*parts, *([schema["items"]] if "items" in schema else [])]:
        _tighten(part, name)

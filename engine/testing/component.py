"""What specialists and filters have in common: parameters that a pipeline can write down, and a way to the workers."""

from __future__ import annotations

import dataclasses
import json
import pickle
from typing import Any, TypeVar, cast

from engine.components import describe, parameters_of
from engine.testing.refusal import refuse, require

Component = TypeVar("Component")

OTHER_NAME = "contract_kit"
HEAVIEST = 1_000_000  # bytes of a pickle: more is weights


def check_built(component: Any) -> None:
    """A dataclass with a name, whose parameters are JSON and say all of it."""
    kind: Any = type(component)
    require(
        not isinstance(component, type),
        "instance",
        "an instance with its parameters",
        component,
        "Build it and don't call setup; the kit does",
    )
    require(
        getattr(getattr(kind, "__dataclass_params__", None), "eq", False),
        "dataclass",
        "a dataclass whose fields are its parameters, compared by them",
        kind,
        "Decorate the class with @dataclass (a filter with frozen=True)",
    )
    name = getattr(component, "name", "")
    parameters = {field.name for field in dataclasses.fields(component) if field.init}
    require(
        isinstance(name, str) and name and "name" in parameters,
        "name",
        "a field `name`, which is a word and a parameter",
        repr(name),
        'Begin the fields with `name: str = "..."`; a pipeline gives it the key that it has there',
    )
    _check_describable(component)


def _check_describable(component: Any) -> None:
    """Provenance and digests are made of the parameters as JSON: what decides is in there, and comes back from it."""
    kind, remedy = type(component), "Annotate every parameter with the type that it has, and with one that JSON has too"
    try:
        said = describe(component)
        values = parameters_of(kind).model_validate(json.loads(json.dumps(said, allow_nan=False)))
        again = dataclasses.replace(component, **{name: getattr(values, name) for name in type(values).model_fields})
        same = describe(again) == said
    except Exception as error:
        refuse("describable", "parameters that can be written as JSON and be read again", error, remedy, error)
    require(same, "describable", f"the same parameters again: {said}", again, remedy)
    other = [
        field.name
        for field in dataclasses.fields(component)
        if field.compare and not field.init and repr(getattr(component, field.name)) != repr(getattr(again, field.name))
    ]
    require(
        not other,
        "describable",
        "an equal component of equal parameters",
        f"another {', '.join(other)}",
        "Give what is no parameter a field(default=None, init=False, repr=False, compare=False)",
    )


def renamed(component: Component) -> Component:
    """Another one, as a pipeline that calls it otherwise would have it."""
    return cast(Component, dataclasses.replace(cast(Any, component), name=OTHER_NAME))


def unpickled(component: Component) -> Component:
    """The copy that a worker gets."""
    remedy = "Open files, load weights and make sessions in `setup`; define the class at the top of a module"
    try:
        data = pickle.dumps(component)
        copy: Component = pickle.loads(data)
        same = copy == component
    except Exception as error:
        refuse("picklable", "a component that can be pickled before setup", error, remedy, error)
    require(same, "picklable", "an equal copy from its pickle", copy, remedy)
    require(len(data) <= HEAVIEST, "light", f"{HEAVIEST} bytes of pickle at most before setup", f"{len(data)}", remedy)
    return copy

"""What a pipeline is made of: `specialists`, `filters`, `config`, `new`, `audit`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.text import Text

from engine.cli.options import OutArgument, SetOption, output_of
from engine.cli.terminal import console
from engine.components import Group, installed, load, parameters_of
from engine.config import Config, load_config
from engine.dataset import open_dataset
from engine.validation import section_of
from pipelines.build import EMBEDDED, build_pipeline, shipped
from pipelines.compatible import config_there


def specialists() -> None:
    """List the installed specialists: what they do, their licences and parameters."""
    _describe("specialists")


def filters() -> None:
    """List the installed filters: what they do and their thresholds."""
    _describe("filters")


def config_(
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Pipeline YAML, or the name of one that comes along. Default: embedded."),
    ] = None,
    settings: SetOption = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of configurations instead.")] = False,
) -> None:
    """Print the resolved configuration as YAML: a file to edit and to give to --config."""
    if schema:
        console.out(json.dumps(_schema(), indent=2))
        return
    resolved = load_config(shipped(config) if config else EMBEDDED, settings or ())
    build_pipeline(resolved)
    console.out(yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False, allow_unicode=True), end="")


def new(
    kind: Annotated[str, typer.Argument(help="specialist or filter.")],
    name: Annotated[str, typer.Argument(help="What it is called in pipelines: a word such as bright_spot.")],
    to: Annotated[Path | None, typer.Option("--to", help="New folder for the package. Default: ./NAME.")] = None,
) -> None:
    """Write a package with a small specialist or filter of your own that works, and its test."""
    from engine.new import write

    written, commands = write(kind, name, to)
    for line in ("Written:", *(f"  {path}" for path in written), "To go on:", *(f"  {line}" for line in commands)):
        console.print(Text(line), soft_wrap=True)


def audit(
    out: OutArgument,
    to: Annotated[Path, typer.Option("--to", help="New folder for the images and the files to label them in.")],
    count: Annotated[int | None, typer.Option("--images", min=1, help="How many. Default: gate.audit.")] = None,
) -> None:
    """Draw random images to be labelled by people: rounds are judged by them."""
    from engine.audit import draw, export

    dataset = open_dataset(output_of(out).root)
    there = config_there(dataset.output) or Config()
    items = draw(dataset, count or there.gate.audit, there.gate.seed)
    export(dataset, items, there, to)
    console.print(Text(f"{len(items)} images in {to}; README.txt there says how to go on"), soft_wrap=True)


def _describe(group: Group) -> None:
    for name in installed(group):
        component = load(group, name, where=group)
        models: dict[str, str] = getattr(component, "models", {})
        fields = parameters_of(component).model_fields
        stated = getattr(component, "licence", None)
        licence = stated if isinstance(stated, str) else models.get(fields["model"].default) if models else None
        summary = (component.__doc__ or "").strip().splitlines()[0]
        console.print(
            Text.assemble((name, "bold"), f" ({licence})" if licence else "", f"\n  {summary}"), soft_wrap=True
        )
        for model, its_licence in models.items():
            console.print(Text.assemble(("    e.g. ", "dim"), f"{model}  {its_licence}"), soft_wrap=True)
        _describe_fields(fields, "    ")


def _describe_fields(fields: dict[str, Any], indent: str) -> None:
    for parameter, field in fields.items():
        about = f"  {field.description}" if field.description else ""
        default = "" if field.is_required() else f" = {field.get_default(call_default_factory=True)!r}"
        console.print(Text(f"{indent}{parameter}{default}{about}"), soft_wrap=True)
        if section := section_of(field.annotation):
            _describe_fields(section.model_fields, f"{indent}{parameter}.")


def _schema() -> dict[str, Any]:
    """The JSON schema of a configuration, with the parameters of every installed component, and of training."""
    schema = Config.model_json_schema()
    for group in ("specialists", "filters"):
        variants = []
        for name in installed(group):
            parameters = parameters_of(load(group, name, where=group)).model_json_schema()
            parameters["properties"] = {"use": {"const": name}, **parameters.get("properties", {})}
            variants.append(parameters | {"title": name})
        schema["properties"][group]["additionalProperties"] = {"anyOf": [*variants, {"type": "null"}]}
    from pipelines.training.settings import (
        add_schema,  # PyTorch takes seconds to import
    )

    add_schema(schema["$defs"])
    return schema

"""Options that several commands share, and what their values mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from engine.atomic import is_there
from engine.config import load_config
from engine.dataset import accepted
from engine.errors import ConfigError
from engine.layout import Output
from engine.places import place
from pipelines.build import EMBEDDED, Pipeline, build_pipeline, shipped
from pipelines.samples import sample_photos

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="Pipeline YAML, or one that comes along, by name: little_data. Default: that of --out where there is one, "
        "else the embedded pipeline.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", metavar="KEY.PATH=VALUE", help="Change one value of the configuration. Can be repeated."
    ),
]
ImagesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--images",
        "-i",
        metavar="PATH",
        help="Folder, image, URL, list, manifest or annotated set: see the README. Can be repeated. Default: sample "
        "photos.",
    ),
]
OutOption = Annotated[
    str, typer.Option("--out", "-o", help="Output folder, or s3://, gs://, hf://. A run continues what is there.")
]
OutArgument = Annotated[str, typer.Argument(help="Output folder of a run.")]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address", metavar="auto|HOST:PORT", help="The Ray cluster to run on, as run.address. Default: here."
    ),
]
UpdateOption = Annotated[
    bool,
    typer.Option("--update", help="Take in what has changed since: only what depends on it is made again."),
]
SeenRoundOption = Annotated[
    int | None, typer.Option("--round", min=0, max=10_000, help="Default: the last that was accepted.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Take only the first N images.")]


def output_of(out: str) -> Output:
    return Output(place(out))


def pipeline_of(
    config: Path | None,
    settings: list[str] | None,
    images: list[str],
    limit: int | None,
    output: Output,
    address: str | None = None,
) -> Pipeline:
    """The pipeline that the options ask for: of --config, of the output folder, or the embedded one."""
    overrides: dict[str, Any] = {}
    if images:
        overrides["ingest.images"] = [*images]
    if limit:
        overrides["ingest.limit"] = limit
    if address:
        overrides["run.address"] = address
    there = output.config if _is_there(output.config) else EMBEDDED
    path = shipped(config) if config else there
    resolved = load_config(path, settings or (), overrides)
    if not resolved.ingest.images:
        ingest = resolved.ingest.model_copy(update={"images": sample_photos()})
        resolved = resolved.model_copy(update={"ingest": ingest})
    return build_pipeline(resolved)


def _is_there(path: Path) -> bool:
    try:
        return is_there(path)
    except OSError:  # no name for a folder: who writes there says it better
        return False


def seen_round(output: Output, number: int | None) -> int:
    """The round that a command looks at."""
    return accepted(output) if number is None else number


def words(listed: str | None) -> list[str]:
    return [word.strip() for word in (listed or "").split(",") if word.strip()]


def shares(option: str, listed: str) -> dict[str, float]:
    """Of "train=0.9,val=0.1", or "0.3,detector=0.5" with * for what has no name."""
    found: dict[str, float] = {}
    for word in words(listed):
        name, equals, value = word.rpartition("=")
        key = name.strip() if equals else "*"
        try:
            number = float(value)
        except ValueError:
            raise ConfigError(
                f"{option} {listed}: expected numbers, such as {option} train=0.9; got {word!r}"
            ) from None
        if not key or key in found:
            raise ConfigError(f"{option} {listed}: each name stands once, such as {option} train=0.9; got {word!r}")
        found[key] = number
    return found

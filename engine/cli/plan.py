"""`engine plan`: what a run would do and take, before it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from engine.cli.options import (
    AddressOption,
    ConfigOption,
    ImagesOption,
    LimitOption,
    OutOption,
    SetOption,
    output_of,
    pipeline_of,
)
from engine.cli.terminal import console, errors
from engine.progress import duration

if TYPE_CHECKING:
    from engine.config import Config
    from pipelines.planning import Capacity, Forecast


def plan(
    paths: Annotated[list[str] | None, typer.Argument(metavar="PATH", help="More images, as --images.")] = None,
    images: ImagesOption = None,
    out: OutOption = "out",
    config: ConfigOption = None,
    settings: SetOption = None,
    limit: LimitOption = None,
    address: AddressOption = None,
    probe: Annotated[
        int, typer.Option("--probe", min=0, metavar="N", help="Run N random images here, to know time and price.")
    ] = 0,
    cpus: Annotated[float | None, typer.Option("--cpus", min=0, help="To plan with. Default: what is there.")] = None,
    gpus: Annotated[float | None, typer.Option("--gpus", min=0, help="To plan with. Default: what is there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Say what `engine run` with the same options would do, and what it would take. Nothing is written."""
    from pipelines.planning import forecast  # spaCy takes a second to import

    output = output_of(out)
    pipeline = pipeline_of(config, settings, [*(images or ()), *(paths or ())], limit, output, address)
    room = _room(pipeline.config, cpus, gpus)
    with errors.status(f"probing {probe} images" if probe else "listing"):
        told = forecast(pipeline, output, probe, room)
    if as_json:
        console.out(json.dumps(asdict(told), indent=2, ensure_ascii=False, default=str), highlight=False)
        return
    for part in _parts(told):
        console.print(part)


def _room(config: Config, cpus: float | None, gpus: float | None) -> Capacity:
    """As the options say; in what they don't say, as it is here, or on the cluster at run.address."""
    from pipelines.planning import Capacity, room_of

    if cpus is not None and gpus is not None:
        return Capacity(cpus, gpus)
    there = room_of(config)
    if cpus is None and gpus is None:
        return there
    return Capacity(there.cpus if cpus is None else cpus, there.gpus if gpus is None else gpus)


def _parts(told: Forecast) -> Iterator[RenderableType]:
    yield from _work(told)
    yield ""
    yield _models(told)
    for need in dict.fromkeys(model.needs for model in told.models if model.needs):
        yield Text(f"! {', '.join(model.name for model in told.models if model.needs == need)}: {need}", "yellow")
    yield Text(f"filters, in order: {', '.join(told.filters) or 'none'}")
    yield ""
    yield _stages(told)
    yield from _costs(told)
    for warning in told.warnings:
        yield Text(f"! {warning}", "yellow")
    yield Text("Nothing was run, and nothing written.", "green")


def _work(told: Forecast) -> Iterator[Text]:
    images, work = told.images, told.work
    cut = f"{_number(images.partitions, 'partition')}, {_number(images.shards, 'shard')}"
    yield Text.assemble(("images: ", "bold"), f"{images.listed:,} listed; {cut}")
    if images.ingested:
        changed = images.new or images.gone
        changes = f"{images.new:,} new, {images.gone:,} gone since" if changed else "nothing changed since"
        yield Text(f"  in the manifest are {images.ingested:,}; {changes}")
    if images.new:
        without = "; engine run goes on without them" if images.asked else ""
        yield Text(f"  engine run --update takes the new ones in{without}", "yellow")
    shards = f", {_number(work.shards, 'shard')}" if work.left else ""
    yield Text.assemble(("to annotate: ", "bold"), f"{work.left:,} of {_number(work.total, 'image')}{shards}")
    kinds = (work.missing, "not done yet"), (work.again, "made by something else"), (images.new, "new")
    if work.missing or work.again:
        yield Text(f"  {', '.join(f'{count:,} {kind}' for count, kind in kinds if count)}")
    if work.again:
        yield Text("  engine run --update makes again only what depends on what changed:", "yellow")
    for source, why in work.why.items():
        yield Text(f"  {source}: {why}", "yellow")
    for one in work.later:
        yield Text(f"  {one}", "yellow")


def _models(told: Forecast) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("source", "model", "licence"):
        table.add_column(heading, overflow="fold")
    table.add_column("weights", justify="right")
    for one in told.models:
        size = "not here" if one.needs else "-" if one.weights_mb is None else f"{one.weights_mb:,.0f} MB"
        table.add_row(one.name, one.model or one.use, one.licence, size)
    return table


def _stages(told: Forecast) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("workers")
    for heading in ("count", "CPU", "GPU", "MB"):
        table.add_column(heading, justify="right")
    if told.measured:
        for heading in ("s/image", "images/s", "worker h", told.currency):
            table.add_column(heading, justify="right")
    for one in told.stages:
        row = [one.name, str(one.workers), f"{one.cpus:g}", f"{one.gpus:g}", f"{one.memory_mb:,}"]
        if one.seconds is not None and one.worker_hours is not None:
            each = f"{one.seconds:.3g}" + (f" ±{one.spread / one.seconds:.0%}" if one.spread else "")
            speed = "-" if one.images_per_second is None else f"{one.images_per_second:,.3g}"
            hours = f"{one.worker_hours:,.3g}"
            row += [each, speed, hours, _money(one.price or 0)]
        table.add_row(*row)
    return table


def _costs(told: Forecast) -> Iterator[Text]:
    room = f"{told.room.cpus:g} CPUs and {told.room.gpus:g} GPUs"
    if not all(one.workers for one in told.stages):
        yield Text(f"! not one worker of each kind fits into {room} and the memory there", "red")
    elif short := [f"{one.name} {one.least}" for one in told.stages if one.workers < one.least]:
        yield Text(f"! a run starts with more workers ({', '.join(short)}) than fit into {room}", "red")
    if told.bytes_an_image is not None and told.work.left:
        total = told.bytes_an_image * told.work.left
        yield Text.assemble(("to be written: ", "bold"), f"{_bytes(total)}, {told.bytes_an_image:,.0f} bytes an image")
    if told.peak_mb is not None:
        yield Text.assemble(("memory: ", "bold"), f"{told.peak_mb:,.0f} MB at most in one worker")
    if not told.measured:
        yield Text("What it takes nobody knows yet: --probe 20 measures it on 20 images")
        return
    if told.hours is not None and told.work.left:
        spread = told.spread_hours * 3600
        interval = f" ± {duration(spread)}" if spread >= 1 else ""
        price = f", {_money(told.price or 0)} {told.currency}"
        yield Text.assemble(("time: ", "bold"), f"{duration(told.hours * 3600)}{interval} on {room}{price}")
    if told.seconds:
        parts = sorted(told.seconds.items(), key=lambda part: -part[1])
        yield Text.assemble(("seconds an image: ", "bold"), ", ".join(f"{name} {took:.2g}" for name, took in parts))
    if told.slowest:
        yield Text.assemble(("held back by: ", "bold"), told.slowest)
    start = "Start" if told.setup_seconds is None else f"The start ({told.setup_seconds:.0f} s)"
    ingest = ", nor is ingest" if told.images.new or not told.images.ingested else ""
    yield Text(f"By {told.measured}. {start} of workers is not counted{ingest}.", "dim")


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def _money(amount: float) -> str:
    return f"{amount:,.2f}" if amount >= 0.01 or not amount else "<0.01"

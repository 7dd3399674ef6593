"""`engine status`: how a run goes, or how it ended, from another terminal or machine."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from engine.cli.options import OutArgument, output_of
from engine.cli.terminal import console, errors
from engine.progress import duration
from engine.status import FRESH, LayerStatus, Status, Step, status_of
from engine.untrusted import printable

EVERY = 2.0  # seconds between two looks


def status(
    out: OutArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until it has ended.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON; with --watch a line each time.")] = False,
) -> None:
    """Show what is done, what runs, and what is next. Reads files alone, and waits for no run."""
    output = output_of(out)
    with errors.status("looking"):  # where clocks differ, for half a minute
        found = status_of(output)
    if as_json:
        indent = None if watch else 2
        console.out(json.dumps(found.json(), indent=indent, ensure_ascii=False), highlight=False)
        while watch and found.lives:
            time.sleep(EVERY)
            found = status_of(output)
            console.out(json.dumps(found.json(), ensure_ascii=False), highlight=False)
        return
    if not watch or not console.is_terminal:
        console.print(described(found))
    if not watch:
        return
    with Live(described(found), console=console, transient=True) as live:
        while found.lives:
            time.sleep(EVERY)
            found = status_of(output)
            live.update(described(found))
    console.print(described(found))


def described(found: Status) -> RenderableType:
    """The status as a person reads it, in 80 columns."""
    return Group(*_parts(found))


def _parts(found: Status) -> Iterator[RenderableType]:
    count = "listing its images" if found.items is None else f"{found.items:,} images"
    yield Text.assemble((found.root, "bold"), f": {count}", no_wrap=False, overflow="fold")
    if found.layers:
        yield _table(found.layers)
    for layer in found.layers:
        yield from _run(layer)
        kinds = [f"{stage}: {kind} {n:,}" for stage, some in layer.quarantined.items() for kind, n in some.items()]
        if kinds:
            yield Text(f"{layer.name} has in quarantine {'; '.join(kinds)}", "yellow")
    yield from map(_training, found.trainings)
    if found.holder and not any(layer.life == "alive" for layer in found.layers):
        yield Text(f"a run has the folder: {found.holder}", "green")
    yield Text.assemble(("next: ", "bold"), "\n      ".join(map(printable, found.next)))


def _table(layers: tuple[LayerStatus, ...]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    for heading in ("images", "shards", "partitions closed", "quarantined"):
        table.add_column(heading, justify="right")
    table.add_column("state", overflow="fold")
    for layer in layers:
        quarantined = sum(sum(kinds.values()) for kinds in layer.quarantined.values())
        pairs = ((layer.done, layer.items), (layer.shards_done, layer.shards), (layer.closed, layer.partitions))
        shares = (f"{done:,} of {total:,}" for done, total in pairs)
        table.add_row(layer.name, *shares, f"{quarantined:,}", _state(layer))
    return table


def _state(layer: LayerStatus) -> Text:
    if layer.life == "alive":
        return Text("runs", "green")
    if layer.outcome:
        return Text(layer.outcome, "red" if layer.outcome == "refused" else "green")
    if layer.whole:
        return Text("done", "green")
    return Text("open", "yellow")


def _run(layer: LayerStatus) -> Iterator[RenderableType]:
    """What its last run says of itself."""
    beat = layer.beat
    if beat is None:
        return
    who = f"process {beat.pid} on {beat.host}, run {beat.run}"
    ago = duration(max(time.time() - beat.at, 0))
    if layer.life == "ended":
        if beat.ended != "done":
            yield Text(f"{beat.stage} {beat.ended}, {ago} ago ({who})", "yellow" if beat.ended == "stopped" else "red")
        return
    if layer.life == "dead":
        if not layer.whole:
            yield Text(f"{beat.stage} was killed: its process is gone, last heard of {ago} ago ({who})", "red")
        return
    if layer.life == "silent":
        yield Text(f"{beat.stage} has said nothing for {ago}: killed, or cut off ({who})", "red")
        return
    left = "?" if layer.left_seconds is None else duration(layer.left_seconds)
    share = layer.done / max(layer.items, 1)
    since = time.strftime("%F %T", time.localtime(beat.began))
    workers = f"{beat.workers_ready} of {beat.workers} workers ready" if beat.workers else "starting"
    yield Text(f"{beat.stage}: {share:.1%}, {beat.images_per_second:.2f} images/s, {left} left; {workers}", "green")
    yield Text(f"  since {since}, for {duration(beat.at - beat.began)}; {who}", "dim")
    if (apart := abs(time.time() - beat.at)) > FRESH:
        yield Text(f"  its clock and this machine's differ by about {duration(apart)}", "yellow")
    for name, speed in beat.pools.items():
        own = f"{speed.ratio:.0%} of their models' own speed"
        yield Text(f"  pool {name}: {speed.items:,} images, {speed.workers} workers, {own}")
    for shard, began in beat.in_flight.items():
        yield Text(f"  in flight: {shard}, for {duration(max(beat.at - began, 0))}")


def _training(step: Step) -> Text:
    total = f" of {step.total:,}" if step.total else ""
    if step.ended:
        return Text(f"{step.name}: trained, {step.step:,} steps")
    ago = "" if step.at is None else f", {duration(max(time.time() - step.at, 0))} ago"
    return Text(f"{step.name}: step {step.step:,}{total}{ago}")

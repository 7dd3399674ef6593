"""`engine verify`: whether an output folder is sound, and what repairs it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from itertools import groupby
from typing import Annotated

import typer
from rich.text import Text

from engine.cli.options import OutArgument, output_of
from engine.cli.terminal import console, errors
from engine.config import Ingest
from engine.errors import ConfigError
from engine.status import is_running
from engine.verify import Finding, Looking, Repair, Verdict, carry_out, planned, verified
from pipelines.compatible import config_there

SHOWN = 5  # findings of a kind
FOUND = 1  # exit code


def verify(
    out: OutArgument,
    round: Annotated[int | None, typer.Option("--round", min=0, help="Only rounds up to this one.")] = None,
    images: Annotated[
        Looking,
        typer.Option("--images", help="Whose bytes are held against what was ingested: 1,000 of them, all, none."),
    ] = "sample",
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, with every finding.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Say what would repair it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --repair: do it.")] = False,
) -> None:
    """Look at every file, id and reference of a dataset. Exit code 0: sound; 1: something was found; 2: no dataset."""
    if yes and not repair:
        raise ConfigError("--yes says that --repair is to be done: add --repair")
    output = output_of(out)
    writing = is_running(output)
    rows = 0

    def progress(more: int) -> None:
        nonlocal rows
        rows += more
        status.update(f"verify: {rows:,} images")

    with errors.status("verify") as status:
        verdict = verified(output, round=round, images=images, writing=writing, progress=progress)
        there = config_there(output)
        plan = planned(output, verdict.findings, there.ingest if there else Ingest()) if repair else None
    if as_json:
        told = verdict.json() | ({} if plan is None else {"repair": {"remove": plan.remove, "lost": plan.lost}})
        console.out(json.dumps(told, indent=2, ensure_ascii=False), highlight=False)
    else:
        for line in _lines(verdict, writing):
            console.print(line, soft_wrap=True)
    if plan is not None:
        if yes:
            carry_out(output, plan)
        if not as_json:
            for line in _repair_lines(plan, yes, out):
                console.print(line, soft_wrap=True)
    raise typer.Exit(FOUND if verdict.findings else 0)


def _lines(verdict: Verdict, writing: bool) -> Iterator[Text]:
    if writing:
        yield Text("! a run is writing there: what it has in hand may look like a fault", "yellow")
    for kind, found in groupby(sorted(verdict.findings, key=lambda one: (one.kind, one.path)), lambda one: one.kind):
        yield from _kind(kind, list(found))
    for name, shards in verdict.open.items():
        yield Text(f"{name} is not whole yet: {shards:,} shards are to be done, which is no fault", "yellow")
    looked = f"{verdict.rows:,} images, {verdict.annotations:,} annotations in {verdict.shards:,} shards"
    pixels = f", the bytes of {verdict.images:,} images" if verdict.images else ""
    yield Text(f"Looked at {looked}{pixels} in {verdict.seconds:.1f} s ({verdict.rows_per_second:,.0f} images/s)")
    if verdict.findings:
        yield Text(f"{len(verdict.findings):,} findings", "bold red")
    else:
        yield Text("It is sound.", "green")


def _kind(kind: str, found: list[Finding]) -> Iterator[Text]:
    yield Text.assemble((kind, "bold red"), f" {len(found):,}")
    for one in found[:SHOWN]:
        yield Text(f"  {one.path}: {one.message}")
    if len(found) > SHOWN:
        yield Text(f"  and {len(found) - SHOWN:,} more: --json lists all")
    for remedy in dict.fromkeys(one.remedy for one in found[:SHOWN]):
        yield Text(f"  -> {remedy}", "dim")


def _repair_lines(repair: Repair, done: bool, out: str) -> Iterator[Text]:
    if not repair.remove:
        yield Text("There is nothing that a repair could remove.")
        return
    yield Text("Removed:" if done else "To be removed:", "bold")
    for path in repair.remove:
        yield Text(f"  {path}")
    for lost in repair.lost:
        yield Text(f"! {'lost' if done else 'this would be lost'}: {lost}", "red")
    where = shlex.quote(out)
    again, do = f"To make it again: engine run --out {where}", f"To do it: engine verify {where} --repair --yes"
    yield Text(again if done else do)

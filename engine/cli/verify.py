"""`engine verify`: whether an output folder is sound, and what repairs it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from itertools import groupby
from typing import Annotated

import typer
from rich.text import Text

from engine.cli.options import OutArgument, output_of
from engine.cli.terminal import console, errors
from engine.config import Ingest
from engine.errors import ConfigError
from engine.lock import run_lock
from engine.status import is_running
from engine.verify import Finding, Looking, Repair, Verdict, carry_out, check_there, planned, verified
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
    as_json: Annotated[
        bool, typer.Option("--json", help="Print it as JSON, with the first 10,000 findings of each kind.")
    ] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Say what would repair it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --repair: do it.")] = False,
) -> None:
    """Look at every file, id and reference of a dataset. Exit code 0: sound; 1: something was found; 2: no dataset."""
    if yes and not repair:
        raise ConfigError("--yes says that --repair is to be done: add --repair")
    output = output_of(out)
    rows = 0

    def progress(more: int) -> None:
        nonlocal rows
        rows += more
        status.update(f"verify: {rows:,} images")

    check_there(output, round)  # before a lock is put where no dataset is
    # What is removed must be what was found: no run may write in between.
    with run_lock(output.root) if yes else nullcontext(), errors.status("verify") as status:
        writing = not yes and is_running(output)
        verdict = verified(output, round=round, images=images, writing=writing, progress=progress)
        there = config_there(output)
        ingest = there.ingest if there else Ingest()
        plan = planned(output, verdict.findings, ingest) if repair else None
        if plan and yes:
            carry_out(output, plan, ingest)
    if as_json:
        told = verdict.json() | ({} if plan is None else {"repair": asdict(plan)})
        console.out(json.dumps(told, indent=2, ensure_ascii=False), highlight=False)
    else:
        for line in (*_lines(verdict, writing), *(_repair_lines(plan, yes, out, verdict.left_out) if plan else ())):
            console.print(line, soft_wrap=True)
    raise typer.Exit(FOUND if verdict.findings else 0)


def _lines(verdict: Verdict, writing: bool) -> Iterator[Text]:
    if writing:
        yield Text("! a run is writing there: what it has in hand may look like a fault", "yellow")
    for kind, found in groupby(sorted(verdict.findings, key=lambda one: (one.kind, one.path)), lambda one: one.kind):
        yield from _kind(kind, list(found), verdict.kinds[kind])
    for name, shards in verdict.open.items():
        yield Text(f"{name} is not whole yet: {shards:,} shards are to be done, which is no fault", "yellow")
    looked = f"{verdict.rows:,} images, {verdict.annotations:,} annotations in {verdict.shards:,} shards"
    pixels = f", the bytes of {verdict.images:,} images" if verdict.images else ""
    yield Text(f"Looked at {looked}{pixels} in {verdict.seconds:.1f} s ({verdict.rows_per_second:,.0f} images/s)")
    if verdict.findings:
        yield Text(f"{verdict.kinds.total():,} findings", "bold red")
    else:
        yield Text("It is sound.", "green")


def _kind(kind: str, found: list[Finding], count: int) -> Iterator[Text]:
    yield Text.assemble((kind, "bold red"), f" {count:,}")
    for one in found[:SHOWN]:
        yield Text(f"  {one.path}: {one.message}")
    if count > SHOWN:
        yield Text(f"  and {count - SHOWN:,} more: --json lists {'all' if count == len(found) else len(found)}")
    for remedy in dict.fromkeys(one.remedy for one in found[:SHOWN]):
        yield Text(f"  -> {remedy}", "dim")


def _repair_lines(repair: Repair, done: bool, out: str, left_out: int) -> Iterator[Text]:
    does = bool(repair.remove or repair.rewrite)
    lost = [Text(f"! {'lost' if done and does else 'this would be lost'}: {one}", "red") for one in repair.lost]
    if not does:
        yield Text("There is nothing that a repair could remove.")
        yield from lost
        return
    for paths, was, will in (
        (repair.rewrite, "Written anew:", "To be written anew:"),
        (repair.remove, "Removed:", "To be removed:"),
    ):
        if paths:
            yield Text(was if done else will, "bold")
        for path in paths:
            yield Text(f"  {path}")
    if left_out:
        yield Text(f"! {left_out:,} findings more are only counted: repair again after this", "yellow")
    yield from lost
    where = shlex.quote(out)
    look, again = f"To look at all else: engine verify {where}", f"To make it again: engine run --out {where}"
    after = look if repair.rewrite else again
    yield Text(after if done else f"To do it: engine verify {where} --repair --yes")

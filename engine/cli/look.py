"""What is there: `show`, `diff`, `stats`, `report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from engine.atomic import is_there
from engine.cli.options import OutArgument, SeenRoundOption, output_of, pipeline_of, seen_round
from engine.cli.terminal import console, errors
from engine.config import Ingest, load_config
from engine.dataset import open_dataset
from engine.errors import ConfigError, OutputError
from engine.lock import run_lock
from pipelines.build import EMBEDDED
from pipelines.compatible import config_there, is_decided
from pipelines.reporting import report_round
from pipelines.stages import Stages


def show(
    out: OutArgument,
    image: Annotated[str, typer.Argument(help="An image: its id, its path, or the end of its path.")],
    save: Annotated[Path | None, typer.Option("--save", help="Draw boxes, quads and masks into this picture.")] = None,
    fallen: Annotated[bool, typer.Option("--fallen", help="Draw what fell, too, in grey.")] = False,
    round: SeenRoundOption = None,
) -> None:
    """Show one image: every annotation, who made it, what stands, what fell and why."""
    from engine.annotate import open_image
    from engine.draw import draw
    from engine.show import find_record, print_record

    output = output_of(out)
    dataset = open_dataset(output.root, seen_round(output, round))
    shown = find_record(dataset, image)
    print_record(shown, console)
    if save:
        there = config_there(dataset.output)
        picture = open_image(shown.record.item, there.ingest if there else Ingest(), dataset.output.downloads)
        try:
            draw(picture, shown.record, fallen=fallen).save(save)
        except (ValueError, OSError) as error:
            raise ConfigError(f"--save {save}: {error}") from error
        console.print(Text(f"Drawn into {save}"), soft_wrap=True)


def diff(
    out: OutArgument,
    before: Annotated[int, typer.Argument(min=0, help="A round.")],
    after: Annotated[int, typer.Argument(min=0, help="A later round.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, with every class.")] = False,
) -> None:
    """Show what a round changed: what was added, changed and dropped, by kind, source and reason."""
    from engine.diff import diff as difference
    from engine.diff import nested, print_diff

    if before >= after:
        raise ConfigError(f"diff goes from an earlier round to a later one, not from {before} to {after}")
    output = output_of(out)
    rounds = [open_dataset(output.root, number) for number in (before, after)]
    for number in (before, after):
        if not is_decided(output, number):
            raise OutputError(f"{out} has no whole round {number} yet: go on with what makes it, then compare")
        if number and not is_there(output.round(number).manifest):
            told = f"! Round {number} is not merged and judged yet (engine run --stage merge --round {number})"
            errors.print(told, style="yellow", highlight=False, soft_wrap=True)
    found = difference(*rounds)
    if as_json:
        console.out(json.dumps(nested(found), indent=2, ensure_ascii=False))
    else:
        print_diff(found, console)


def stats(
    out: OutArgument,
    round: SeenRoundOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, with all that fell.")] = False,
) -> None:
    """Count a round: Florence-2's tables of its own set for this one, how regions lie, what was made and what fell."""
    from engine.stats import statistics, whole_round
    from engine.stats.terminal import print_statistics

    output = output_of(out)
    counted = statistics(whole_round(output.root, seen_round(output, round)))
    if as_json:
        console.out(counted.json(), highlight=False)
    else:
        print_statistics(counted, console)


def report(
    out: OutArgument = "out",
    pictures: Annotated[
        str | None,
        typer.Option(
            "--pictures",
            metavar="N|all",
            help="How many pictures it shows, the most disputed first; of more than 100 they have pages of their own.",
        ),
    ] = None,
    round: SeenRoundOption = None,
) -> None:
    """Write HTML pages about a dataset: pictures with what was found, the texts, what fell and why, rounds compared."""
    output = output_of(out)
    number = seen_round(output, round)
    open_dataset(output.root, number)  # or nothing was run there, and a run begins with `engine run`
    settings = [] if pictures is None else [f"report.images={pictures}"]
    if not is_decided(output, number):
        Stages(pipeline_of(None, settings, [], None, output), output, console, number).run("report")
        return
    config = load_config(output.config if is_there(output.config) else EMBEDDED, settings)
    with run_lock(output.root):
        report_round(output, number, config, console)

"""Stages: `run`, `refine`, and what is said of them at the end."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from engine import process
from engine.cli.options import (
    AddressOption,
    ConfigOption,
    ImagesOption,
    LimitOption,
    OutArgument,
    OutOption,
    SetOption,
    UpdateOption,
    output_of,
    pipeline_of,
)
from engine.cli.terminal import (
    QUARANTINED,
    UNREAD,
    Unread,
    console,
    errors,
)
from engine.config import Config
from engine.dataset import accepted, open_dataset
from engine.errors import ConfigError, CutShort, RunError
from engine.places import is_remote_uri
from pipelines.manifests import print_verdict
from pipelines.stages import STAGES, Stages


def run(
    stage: Annotated[str, typer.Option("--stage", help=f"One of {', '.join(STAGES)}.")] = "annotate",
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH", help="More images, as --images; what * gives in a shell.")
    ] = None,
    images: ImagesOption = None,
    out: OutOption = "out",
    config: ConfigOption = None,
    settings: SetOption = None,
    limit: LimitOption = None,
    round: Annotated[
        int | None,
        typer.Option(
            "--round",
            min=0,
            max=10_000,
            help="The round to look at or to merge; reannotate makes the next one. Default: 0; of export and "
            "report the last that was accepted.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start afresh: removes what a run left in --out.")
    ] = False,
    update: UpdateOption = False,
    address: AddressOption = None,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Check all that can be checked without weights, and run nothing.")
    ] = False,
) -> None:
    """Run a stage, and first whatever it needs and is missing."""
    output, given = output_of(out), [*(images or ()), *(paths or ())]
    if dry:
        from pipelines.checking import (
            dry_run,  # spaCy and PyTorch take seconds to import
        )

        dry_run(pipeline_of(config, settings, given, limit, output, address), console)
        return
    if stage not in STAGES:
        raise ConfigError(f"--stage {stage}: no such stage; there are {', '.join(STAGES)}")
    number = round if round is not None else accepted(output) if stage in ("export", "report") else 0
    pipeline = pipeline_of(config, settings, given, limit, output, address)
    stages = Stages(pipeline, output, console, number)
    with stoppable():
        summary = stages.run(stage, overwrite=overwrite, update=update)
    _told(stages, stage, summary, out)


def refine(
    rounds: Annotated[
        int | None, typer.Option("--rounds", min=1, max=1000, help="How many. Default: those in the configuration.")
    ] = None,
    images: ImagesOption = None,
    out: OutOption = "out",
    config: ConfigOption = None,
    settings: SetOption = None,
    address: AddressOption = None,
) -> None:
    """Round after round: train, annotate again, merge, and judge whether it is better."""
    output = output_of(out)
    pipeline = pipeline_of(config, settings, images or [], None, output, address)
    with stoppable():
        summary = Stages(pipeline, output, console, rounds=rounds).run("refine")
    _report_rounds(summary, out)


def retry_failed(
    out: OutArgument,
    round: Annotated[
        int | None, typer.Option("--round", min=0, max=10_000, help="Default: the last that is there.")
    ] = None,
    settings: SetOption = None,
    address: AddressOption = None,
) -> None:
    """Annotate again the images in quarantine, and only these."""
    output = output_of(out)
    open_dataset(output.root)
    pipeline = pipeline_of(None, settings, [], None, output, address)
    with stoppable():
        summary = Stages(pipeline, output, console).retry_failed(round)
    report_run(summary, "annotate", out, summary["round"])
    check_quarantined(summary, pipeline.config)


@contextmanager
def stoppable() -> Iterator[None]:
    """Ctrl-C, and what counts as such, ends the block with a word on how to go on."""
    try:
        yield
    except CutShort as error:
        raise RunError(f"{error}: {process.again()}") from error
    except BaseException as error:
        # Native code, as pydantic's, makes an exception of its own of an interruption.
        if not isinstance(error, KeyboardInterrupt | Unread) and not process.is_stopped:
            raise
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # people press Ctrl-C twice
        with suppress(OSError):  # of a terminal that was closed
            errors.print(Text(f"Stopped. What is done is safe; to go on: {process.again()}"), soft_wrap=True)
        raise typer.Exit(UNREAD if isinstance(error, Unread) else process.STOPPED) from None


def _told(stages: Stages, stage: str, summary: dict[str, Any], out: str) -> None:
    """What a person is told at the end of a stage."""
    if stage == "train":
        _report_models(summary)
        return
    if stage in ("refine", "all"):
        _report_rounds(summary, out)
        return
    if stage == "merge":
        _report_merge(summary)
        return
    if stage == "export":
        raise typer.Exit(QUARANTINED if summary["missing"] else 0)
    report_run(summary, stage, out, stages.round + (stage == "reannotate"))
    check_quarantined(summary, stages.pipeline.config)


def check_quarantined(summary: dict[str, Any], config: Config) -> None:
    share, allowed = _quarantined(summary) / max(summary["items"], 1), config.run.max_quarantined
    if share > allowed:
        message = f"{share:.1%} of the images are quarantined, more than run.max_quarantined, {allowed:.1%}."
        errors.print(message, style="yellow", highlight=False)
        raise typer.Exit(QUARANTINED)


def _quarantined(summary: dict[str, Any]) -> int:
    if "errors" in summary:
        return sum(summary["errors"].values())
    return sum(count for kinds in summary["quarantined"].values() for count in kinds.values())


def report_run(summary: dict[str, Any], stage: str, out: str, round: int) -> None:
    """The short table at the end: what was found, what fell and why, and where it is."""
    if stage != "ingest":
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name, justify in (("source", "left"), ("kind", "left"), ("made", "right"), ("standing", "right")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        for source, kinds in summary["annotations"].items():
            for kind, count in kinds.items():
                table.add_row(Text(source), kind, str(count["made"]), str(count["standing"]))
        console.print(table)
        for by, reasons in summary["fallen"].items():
            falls = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
            console.print(Text(f"turned down by {by}: {falls}"))
    kinds = [
        f"{stage} {kind} {n}" for stage, some in summary.get("quarantined", {}).items() for kind, n in some.items()
    ]
    why = f" ({', '.join(kinds)})" if kinds else ""
    console.print(Text(f"{summary['items']} images, {_quarantined(summary)} quarantined{why}"), soft_wrap=True)
    where = f"{out.rstrip('/')}/images" if stage == "ingest" else f"{out.rstrip('/')}/round-{round}"
    command = f"engine show {shlex.quote(out)} NAME --save picture.png" + (f" --round {round}" if round else "")
    console.print(Text(f"In {where}. One image: {command}"), soft_wrap=True)


def _report_models(summary: dict[str, Any]) -> None:
    for model, made_by in zip(summary["models"], summary["made_by"], strict=True):
        loss = made_by["held_out_loss"]
        judged = "no image was held out" if loss is None else f"loss {loss:.3f} on held-out images"
        console.print(Text(f"{model}: step {made_by['step']}, {judged}"), soft_wrap=True)
    if not is_remote_uri(summary["models"][0]):
        command = f"python -m florence2 --model {shlex.quote(summary['models'][0])} --task OD IMAGE"
        console.print(Text(f"Ask it: {command}"), soft_wrap=True)


def _report_rounds(summary: dict[str, Any], out: str) -> None:
    """What is to be used now, and how to see what changed."""
    last, where = summary["rounds"][-1], shlex.quote(out)
    changed = f"engine diff {where} 0 {last['round']}"
    console.print(Text(f"The round to use: {accepted(output_of(out))}. What the rounds changed: {changed}"))


def _report_merge(summary: dict[str, Any]) -> None:
    for action, reasons in summary["decisions"].items():
        console.print(Text(f"{action}: {', '.join(f'{reason} {count}' for reason, count in reasons.items())}"))
    print_verdict(summary, console)

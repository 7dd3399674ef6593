"""What can be known of a pipeline before it runs: `engine run --dry-run`. No weights are loaded and none fetched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.errors import ConfigError
from engine.ingest import listing_of
from engine.protocols import Specialist
from pipelines.build import Pipeline
from pipelines.merging import chooser_of
from pipelines.reannotate import needs_training


@dataclass(frozen=True)
class Finding:
    """A specialist of the pipeline: what it still needs, what is wrong with it, and its licence as far as known."""

    specialist: Specialist
    needs: tuple[str, ...] = ()
    error: str = ""

    @property
    def model(self) -> str:
        return getattr(self.specialist, "model", "") or "-"

    @property
    def licence(self) -> str:
        if (self.needs or self.error) and getattr(self.specialist, "server", None) is None:
            known: dict[str, str] = getattr(self.specialist, "models", {})
            return known.get(self.model, "see its card")
        return self.specialist.licence


def examined(pipeline: Pipeline) -> list[Finding]:
    return [_finding(specialist) for specialist in pipeline.specialists]


def dry_run(pipeline: Pipeline, console: Console) -> None:
    """Prints what would run, and raises ConfigError with all that would keep it from running."""
    findings, errors = examined(pipeline), list(_faults(pipeline))
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("source", "specialist", "model", "licence"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        one = finding.specialist
        use = (pipeline.config.specialists[one.name] or {}).get("use", one.name)
        table.add_row(*map(Text, (one.name, use, finding.model, finding.licence)))
    console.print(table)
    filters = ", ".join(filter_.name for filter_ in pipeline.filters) or "none"
    console.print(Text(f"filters, in order: {filters}"), soft_wrap=True)
    for warning in pipeline.warnings:
        console.print(Text(f"! {warning}", "yellow"), soft_wrap=True)
    for need in dict.fromkeys(need for finding in findings for need in finding.needs):
        whose = ", ".join(finding.specialist.name for finding in findings if need in finding.needs)
        console.print(Text(f"{whose}: {need}"), soft_wrap=True)
    errors += [finding.error for finding in findings if finding.error]
    if errors:
        raise ConfigError("\n".join(["this can't run as it is:", *(f"  {error}" for error in errors)]))
    rest = "" if any(finding.needs for finding in findings) else ", and all that it needs is here"
    console.print(Text(f"The configuration is right{rest}. Nothing was run.", "green"))


def _finding(specialist: Specialist) -> Finding:
    needs = getattr(specialist, "needs", None)
    try:
        return Finding(specialist, tuple(needs()) if needs else ())
    except ConfigError as error:
        return Finding(specialist, error=str(error))


def _faults(pipeline: Pipeline) -> Iterator[str]:
    for check in (_check_images, needs_training, _check_chooser, _check_start):
        try:
            check(pipeline)
        except ConfigError as error:
            yield str(error)
    wanted, there = pipeline.config.run.gpus_per_worker, gpus()
    if pipeline.config.run.address == "local" and wanted > there:
        yield f"run.gpus_per_worker is {wanted:g}, and this machine has {there} GPUs; 0 runs on CPUs"


def _check_images(pipeline: Pipeline) -> None:
    next(iter(listing_of(pipeline.config.ingest)))


def _check_chooser(pipeline: Pipeline) -> None:
    needs = getattr(chooser_of(pipeline.config), "needs", tuple)
    list(needs())


def _check_start(pipeline: Pipeline) -> None:
    start = pipeline.config.train.start
    if start.startswith((".", "/", "~")) and not os.path.isdir(os.path.expanduser(start)):
        raise ConfigError(f"train.start is {start}, and there is no such folder")


def gpus() -> int:
    """Of this machine."""
    import torch

    return int(torch.cuda.device_count())

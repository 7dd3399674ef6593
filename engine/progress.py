"""How a run tells a person how it goes: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.text import Text

from engine.annotate import Tally
from engine.layout import ShardId

PLAIN_EVERY = 10.0  # seconds between plain lines: a log, not a flood


class _TwoLines(Progress):
    """A bar, and below it what there is to say, which has no room beside it on a terminal of 80 columns."""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield from super().get_renderables()
        for task in self.tasks:
            yield Text(f"  {task.fields['detail']}", style="dim", no_wrap=True, overflow="ellipsis")


class RunProgress:
    """The progress of one stage over `total` images, `done` of which an earlier run did. A `runner.Watcher`."""

    def __init__(self, console: Console, stage: str, total: int, done: int = 0) -> None:
        self.console = console
        self.stage = stage
        self.total = total
        self.done = done
        self.tally = Tally()
        self.seconds_to: dict[str, float] = {}  # from the beginning to: ray, first_worker, first_image, last_image
        self._born = time.monotonic()
        self._last_plain = self._born
        self._live: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn())
            self._live = _TwoLines(*columns, console=self.console, transient=True)
            self._task = self._live.add_task(self.stage, total=self.total, completed=self.done, detail="starting")
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        if error is None and self.tally.pools:
            self.console.print(f"{self.stage}: {self.speed()}", markup=False, highlight=False, soft_wrap=True)

    def speed(self) -> str:
        """How fast it went, and how near each pool came to the speed of its models alone."""
        rate, pools = f"{self.images_per_second:.2f} images/s", self.tally.pools
        if len(pools) == 1:
            return f"{rate}, {next(iter(pools.values())).ratio:.2f} of its models' own speed"
        ratios = ", ".join(f"{name} {speed.ratio:.2f}" for name, speed in pools.items())
        return f"{rate}; of its models' own speed: {ratios}"

    def workers(self, ready: int, total: int) -> None:
        self._mark("first_worker" if ready else "ray")
        self._show(f"{ready} of {total} workers ready", at_once=ready in (0, total))

    def progress(self, tally: Tally) -> None:
        before, self.tally = self.tally, tally
        if tally.items != before.items:
            self._mark("first_image")
            self.seconds_to["last_image"] = time.monotonic() - self._born
            self._show(self.detail(), at_once=False)

    def finished(self, shard: ShardId) -> None:
        """A shard is written. Who counts shards says so here."""

    def warn(self, message: str) -> None:
        self.console.print(f"! {message}", style="yellow", markup=False, highlight=False, soft_wrap=True)

    @property
    def images_per_second(self) -> float:
        """Since the first worker was ready: start-up is not speed."""
        elapsed = self.seconds_to.get("last_image", 0.0) - self.seconds_to.get("first_worker", 0.0)
        return self.tally.items / elapsed if elapsed > 0 else 0.0

    def _mark(self, event: str) -> None:
        self.seconds_to.setdefault(event, time.monotonic() - self._born)

    def detail(self) -> str:
        tally, rate = self.tally, self.images_per_second
        left = self.total - self.done - tally.items
        eta = f"{duration(left / rate)} left" if rate else "?"
        parts = [f"{rate:.2f} images/s", eta, f"{tally.annotations} annotations", f"{tally.fallen} turned down"]
        return ", ".join([*parts, f"{tally.quarantined} quarantined"])

    def _show(self, detail: str, at_once: bool) -> None:
        now = time.monotonic()
        if self._live:
            self._live.update(self._task, completed=self.done + self.tally.items, detail=detail)
        elif at_once or now - self._last_plain >= PLAIN_EVERY:
            self._last_plain = now
            line = f"{self.stage}: {self.done + self.tally.items} of {self.total} images; {detail}"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

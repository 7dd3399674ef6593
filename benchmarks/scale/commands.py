"""Commands as a person gives them, each in a process of its own: how long it takes, and its peak memory."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
ENGINE = str(Path(sys.executable).with_name("engine"))


@dataclass(frozen=True)
class Cost:
    """Of one process, without its children. `rss_mb` is its peak, as the kernel keeps it, with what it shares with
    others (libraries, the object store); `uss_mb` what is its own alone, looked at five times a second. `load` is the
    machine's before."""

    seconds: float
    rss_mb: float
    uss_mb: float
    load: float

    def json(self) -> dict[str, float]:
        return {name: round(value, 3) for name, value in asdict(self).items()}


class Failed(RuntimeError):
    """A command that did not end well, and what it said."""


def environment() -> dict[str, str]:
    """In which the engine knows the weightless specialist, as if its package were installed."""
    paths = [str(HERE.parent.parent), str(HERE / "plugin"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "RAY_USAGE_STATS_ENABLED": "0"}


def measured(words: Sequence[str], folder: Path, until: Callable[[], bool] | None = None) -> Cost:
    """Runs a command to its end; or until something is so, and then stops it: it has come as far as was asked for."""
    load, start = os.getloadavg()[0], time.monotonic()
    rss = uss = looked = 0.0
    with (folder / "said.txt").open("w") as said:
        process = psutil.Popen(list(words), env=environment(), stdout=said, stderr=said)
        while process.poll() is None:
            rss = max(rss, _peak(process.pid))
            if time.monotonic() - looked > 0.2:
                looked, uss = time.monotonic(), max(uss, _own(process))
            if until is not None and until():
                seconds = time.monotonic() - start
                while process.poll() is None:
                    process.terminate()  # while Ray shuts down, it is deaf
                    time.sleep(1)
                return Cost(seconds, rss, uss, load)
            time.sleep(0.02)
    if process.returncode:
        raise Failed(f"{' '.join(words)} ended with {process.returncode}:\n{(folder / 'said.txt').read_text()[-2000:]}")
    return Cost(time.monotonic() - start, rss, uss, load)


def _peak(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def _own(process: psutil.Popen) -> float:
    try:
        return float(process.memory_full_info().uss) / 2**20
    except psutil.Error:
        return 0.0


@dataclass(frozen=True)
class Set:
    """A set of pictures, and what the engine makes of it, in a folder."""

    folder: Path

    @property
    def pictures(self) -> Path:
        return self.folder / "pictures.parquet"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def engine(
        self,
        verb: str,
        *words: str,
        specialist: dict[str, object] | None = None,
        until: Callable[[], bool] | None = None,
        **settings: object,
    ) -> Cost:
        """`engine VERB` on it; `settings` are those of run, and `specialist` has those of the weightless one."""
        config = self.folder / "pipeline.json"
        config.write_text(json.dumps({"specialists": {"weightless": specialist or {}}, "run": settings}))
        named = ["--images", str(self.pictures), "--out", str(self.out), "--config", str(config)]
        whole = [ENGINE, verb, *(named if verb in ("run", "plan") else [str(self.out)]), *words]
        return measured(whole, self.folder, until)

    @property
    def last_run(self) -> dict[str, Any]:
        """What the run says of itself."""
        said: dict[str, Any] = json.loads((self.out / "round-0" / "summary.json").read_text())["last_run"]
        return said

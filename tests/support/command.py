"""The command line as a person meets it: another process, its output, its exit code, and the files it leaves."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ENGINE = str(Path(sys.executable).parent / "engine")
Call = Callable[..., tuple[int, str]]  # arguments -> exit code, output: the fixture `call`
COUNT, SHARD = 24, 3  # of the image set in conftest.py
SHARDS = COUNT // SHARD


def command(out: Path, *more: str, stage: str = "annotate") -> list[str]:
    return [ENGINE, "run", "--stage", stage, "--out", str(out), *more]


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=280, cwd=cwd)


def start(images: Path, out: Path, *more: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    arguments = ("--images", str(images), "--set", f"ingest.shard_size={SHARD}", *more)
    return subprocess.Popen(
        command(out, *arguments),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in what a script starts with &
    )


def wait_for_shards(out: Path, count: int) -> None:
    for _ in range(1200):
        if len(list((out / "round-0" / "decisions").rglob("shard-*.parquet"))) >= count:
            return
        time.sleep(0.1)
    raise AssertionError(f"no {count} shards after two minutes")


def files(out: Path) -> dict[str, bytes]:
    """Every file but those that tell of the run itself: the summary, the heartbeat, the logs and the lock."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file()
        and path.name not in ("summary.json", "progress.json", ".engine-lock")
        and path.parent != out / "logs"
    }


def counts(out: Path) -> dict[str, object]:
    return {k: v for k, v in json.loads((out / "round-0" / "summary.json").read_text()).items() if k != "last_run"}

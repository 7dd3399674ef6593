"""What can befall a run: each fault is a function that runs a stage, disturbs it, and makes whole what it broke."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from command import ENGINE

from chaos.memory import Peaks, Watch, descendants
from chaos.stages import Stage

if TYPE_CHECKING:
    from chaos.stores import Remote

SITE = Path(__file__).with_name("site")
PATIENCE = 300.0  # seconds that a run may take, whatever befalls it
LEFT = 10 * 4096  # bytes on a disk that is about to be full: ten pages, and a file takes one at least
ADDRESS_SPACE = 8 * 2**30
PROMPT = 10.0  # seconds within which Ctrl-C and SIGTERM end it
VICTIM = {"annotate": "04.png", "reannotate": "04.png", "export": "04.png", "train": "000007.png"}


@dataclass
class Case:
    """One stage, its output folder, and one fault to befall it. `said` is all that its runs said, and `peaks` what they
    took. If the folder is `remote`, `out` is its copy on this machine, once it is fetched."""

    stage: Stage
    out: Path
    folder: Path  # for what belongs to the fault
    remote: Remote | None = None
    slow: float = 0.15  # seconds that each image takes besides
    settings: tuple[str, ...] = ()
    address_space: int = resource.RLIM_INFINITY  # bytes
    environment: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    peaks: Peaks = field(default_factory=Peaks)
    roots: tuple[psutil.Process, ...] = ()  # from which workers descend, besides the driver

    @property
    def target(self) -> str:
        return self.remote.uri if self.remote else str(self.out)

    @property
    def seen(self) -> Path:
        return self.folder / "seen"

    @property
    def troubles(self) -> Path:
        return self.folder / "troubles"

    def start(self) -> subprocess.Popen[str]:
        words = [word for setting in self.settings for word in ("--set", setting)]
        process = subprocess.Popen(
            [ENGINE, "run", "--stage", self.stage.name, "--out", self.target, *words],
            env=os.environ | self.patched() | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=self._begin,
        )
        Watch(process.pid, lambda: self.roots, self.peaks)
        return process

    def _begin(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored in what a script starts with &
        resource.setrlimit(resource.RLIMIT_AS, (self.address_space, self.address_space))

    def patched(self) -> dict[str, str]:
        paths = os.pathsep.join(filter(None, [str(SITE), os.environ.get("PYTHONPATH", "")]))
        told = {"CHAOS_SLOW": str(self.slow), "CHAOS_SEEN": str(self.seen), "CHAOS_TROUBLES": str(self.troubles)}
        return {"PYTHONPATH": paths, **told}

    def in_the_middle(self, process: subprocess.Popen[str]) -> None:
        """Waits until something is done, and something is not."""
        end = time.monotonic() + PATIENCE
        while not self.is_begun():
            assert process.poll() is None, self.end(process)
            assert time.monotonic() < end, "nothing was done"
            time.sleep(0.02)

    def is_begun(self) -> bool:
        return self.remote.has(self.stage.begun) if self.remote else any(self.out.glob(self.stage.begun))

    def end(self, process: subprocess.Popen[str], seconds: float = PATIENCE) -> int:
        """Waits for the end of a run; its code."""
        said, _ = process.communicate(timeout=seconds)
        self.said.append(said)
        self.codes.append(process.returncode)
        return process.returncode

    def run(self) -> int:
        return self.end(self.start())

    def fetch(self) -> None:
        """`out` becomes what is in the remote folder."""
        if self.remote:
            self.remote.fetch(self.out)

    def quarantined(self) -> int:
        summary = json.loads((self.out / f"round-{self.stage.round}" / "summary.json").read_text())
        return sum(count for kinds in summary["quarantined"].values() for count in kinds.values())

    def retry(self) -> None:
        """What is in quarantine once more."""
        words = ["retry-failed", self.target, "--round", str(self.stage.round)]
        result = subprocess.run([ENGINE, *words], env=os.environ | self.patched(), capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr

    @property
    def told(self) -> list[str]:
        """The lines of what its runs said that tell of faults, without the names of folders that are its own."""
        said = re.sub(rf"{re.escape(str(self.folder))}(?:/disk)?/", "", "\n".join(self.said))
        lines = [line.strip() for line in re.sub(r"s3://tests-[0-9a-f]+", "s3://bucket", said).splitlines()]
        return [line for line in lines if line.startswith(("!", "Error:", "Stopped."))]

    def trouble(self, word: str) -> None:
        """What whoever reads one of the images suffers from now on; nothing more, if it is empty."""
        self.troubles.mkdir(exist_ok=True)
        path = self.troubles / f"{VICTIM[self.stage.name]}.trouble"
        path.write_text(word) if word else path.unlink()


Fault = Callable[[Case], None]


def worker_killed(case: Case) -> None:
    process = case.start()
    case.in_the_middle(process)
    assert case.stage.worker
    descendants(psutil.Process(process.pid), case.stage.worker)[0].kill()
    case.end(process)


def driver_killed(case: Case) -> None:
    process = case.start()
    case.in_the_middle(process)
    process.kill()
    process.communicate(timeout=PATIENCE)


def raylet_killed(case: Case) -> None:
    """The only node of a run's own Ray, which takes a while to notice."""
    case.slow, usual = 0.5 if case.stage.name == "train" else 2.0, case.slow
    process = case.start()
    case.in_the_middle(process)
    descendants(psutil.Process(process.pid), "raylet")[0].kill()
    case.end(process)
    assert case.codes[-1] in (0, 3), case.said
    case.slow = usual


def in_hand(word: str) -> Fault:
    """One row does it to whoever takes it, each time; then that is mended."""

    def fault(case: Case) -> None:
        case.trouble(word)
        case.run()
        case.trouble("")

    return fault


def eats_memory(case: Case) -> None:
    """One row eats memory until Ray's monitor ends its worker: beyond 4 GB more than is taken now. What has none is
    given an address space, in which its opener fails: the kernel would end it, and others on this machine, too."""
    if not case.stage.worker:
        case.address_space = ADDRESS_SPACE
        in_hand("eat")(case)
        case.address_space = resource.RLIM_INFINITY
        return
    memory = psutil.virtual_memory()
    share = min((memory.total - memory.available + 4 * 2**30) / memory.total, 0.95)
    case.environment["RAY_memory_usage_threshold"] = f"{share:.3f}"
    case.environment["RAY_memory_monitor_refresh_ms"] = "100"
    in_hand("eat")(case)
    case.environment.clear()


def signalled(number: signal.Signals) -> Fault:
    def fault(case: Case) -> None:
        process = case.start()
        case.in_the_middle(process)
        process.send_signal(number)
        began = time.monotonic()
        assert case.end(process) == 130, case.said
        assert time.monotonic() - began < PROMPT, "it took too long to stop"
        assert "to go on: engine run" in case.said[-1]

    return fault


def two_at_once(case: Case) -> None:
    case.slow = max(case.slow, 1.0)  # the second, which begins when something is done, is to find the first at work
    process = case.start()
    case.in_the_middle(process)
    second_refused(case, process)


def second_refused(case: Case, process: subprocess.Popen[str]) -> None:
    assert case.run() == 2
    assert "in use by another run" in case.said[-1].replace("\n", " ")
    assert case.end(process) == 0, case.said


@contextmanager
def mounted(case: Case, options: str) -> Iterator[Path]:
    """The output folder on a file system of its own."""
    disk = case.folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=True, capture_output=True)
    try:
        subprocess.run(["cp", "-a", str(case.out), f"{disk}/out"], check=True)
        there, case.out = case.out, disk / "out"
        yield disk
        subprocess.run(["rm", "-rf", str(there)], check=True)
        subprocess.run(["cp", "-a", f"{disk}/out", str(there)], check=True)
        case.out = there
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def disk_full(case: Case) -> None:
    case.settings = ("run.min_free_mb=0",)
    with mounted(case, "size=300M") as disk:
        about = os.statvfs(disk)
        taken = (about.f_blocks - about.f_bfree) * about.f_frsize
        subprocess.run(["mount", "-o", f"remount,size={taken + LEFT}", disk], check=True)
        assert case.run() == 3, case.said
        assert "no space left" in case.said[-1].replace("\n", " "), case.said
        subprocess.run(["mount", "-o", "remount,size=300M", disk], check=True)
        assert case.run() == 0, case.said


def read_only(case: Case) -> None:
    """What it writes to becomes so in the middle, as a disk with faults does."""
    process = case.start()
    case.in_the_middle(process)
    folder = str(case.out / case.stage.writes)
    subprocess.run(["mount", "--bind", folder, folder], check=True, capture_output=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        assert case.end(process) in (2, 3), case.said
        assert "disk is read-only" in case.said[-1].replace("\n", " "), case.said
        case.run()
        assert case.codes[-1] in (2, 3), case.said
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


FAULTS: dict[str, Fault] = {
    "worker killed": worker_killed,
    "driver killed": driver_killed,
    "raylet killed": raylet_killed,
    "sys.exit in a worker": in_hand("exit"),
    "row kills its worker": in_hand("kill"),
    "row hangs": in_hand("hang"),
    "row eats memory": eats_memory,
    "disk full": disk_full,
    "read-only output": read_only,
    "two runs at once": two_at_once,
    "SIGTERM": signalled(signal.SIGTERM),
    "Ctrl-C": signalled(signal.SIGINT),
}

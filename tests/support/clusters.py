"""Ray clusters of a test's own on this machine, stopped surely; and a specialist that says where it worked."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
from toys import Brightness

from engine.protocols import Sample
from engine.records import AnyAnnotation

BIN = Path(sys.executable).parent
RAY, ENGINE = str(BIN / "ray"), str(BIN / "engine")
STARTED = "Ray runtime started"
# An annotation that these make is the same wherever it is made.
ENTRY_POINTS = """[engine.specialists]
brightness = toys:Brightness
paced = clusters:Paced

[engine.filters]
dark = toys:Dark
"""


@dataclass
class Paced(Brightness):
    """Takes its time over each image, and leaves a file named after its node in `$SEEN`."""

    seconds: float = 0.0

    def annotate(self, batch: Sequence[Sample]) -> Sequence[Iterable[AnyAnnotation]]:
        import ray

        if seen := os.environ.get("SEEN"):
            (Path(seen) / ray.get_runtime_context().get_node_id()).touch()
        time.sleep(self.seconds * len(batch))
        return super().annotate(batch)


def install_toys(folder: Path) -> dict[str, str]:
    """The environment in which `engine` knows the toys by name, as if a package of theirs were installed."""
    package = folder / "toys-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1\n")
    (package / "entry_points.txt").write_text(ENTRY_POINTS)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ["PYTHONPATH"]])}


def content(out: Path) -> dict[str, list[dict[str, Any]]]:
    """What a run makes, shard by shard and row by row."""
    return {path.relative_to(out).as_posix(): pq.read_table(path).to_pylist() for path in out.rglob("shard-*.parquet")}


@dataclass(frozen=True)
class Head:
    """`ray start --head`: where it is reached, and the environment in which `auto` finds it and its token is known."""

    address: str
    dashboard: str
    environment: dict[str, str]
    process: psutil.Popen

    @property
    def is_alive(self) -> bool:
        return self.process.is_running() and _answers(int(self.address.split(":")[1]))


@contextmanager
def ray_head(environment: Mapping[str, str], cpus: int = 2) -> Iterator[Head]:
    """A head as somebody starts it on a machine, with a dashboard."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:  # sockets want a short name
        port, dashboard, client = _free_ports(3)
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
        quick = {"RAY_health_check_period_ms": "1000"}  # of nodes; with Ray's own, a lost one is known after 15 s
        environment = {**environment, **token, **quick, "RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0"}
        words = ("--head", f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}")
        with _node(environment, cpus, *words, "--include-dashboard=true", f"--temp-dir={folder}") as process:
            address = f"127.0.0.1:{port}"  # `auto` alone takes any Ray that runs on the machine
            yield Head(address, f"http://127.0.0.1:{dashboard}", {**environment, "RAY_ADDRESS": address}, process)


@contextmanager
def ray_nodes(head: Head, count: int, cpus: int = 1) -> Iterator[list[psutil.Popen]]:
    """Nodes of so many CPUs each, in Ray's books, that join `head`, on this machine too."""
    with ExitStack() as stack:
        yield [stack.enter_context(_node(head.environment, cpus, f"--address={head.address}")) for _ in range(count)]


def raylet(node: psutil.Popen) -> psutil.Process:
    """The process that a node stands and falls with."""
    return next(child for child in node.children() if child.name() == "raylet")


@contextmanager
def _node(environment: Mapping[str, str], cpus: int, *words: str) -> Iterator[psutil.Popen]:
    """`ray start`; again if that gives up, as it does after 30 s on a machine that is busy."""
    for last in (False, False, True):
        with _begun(environment, cpus, *words) as (process, log):
            wait_for(partial(_has_begun, process, log), 120, log.read_text)
            if process.poll() is None:
                yield process
                return
            assert not last, log.read_text()


def _has_begun(process: psutil.Popen, log: Path) -> bool:
    return process.poll() is not None or STARTED in log.read_text()


@contextmanager
def _begun(environment: Mapping[str, str], cpus: int, *words: str) -> Iterator[tuple[psutil.Popen, Path]]:
    """`ray start` and the file with all it says."""
    agent, grpc, metrics = _free_ports(3)
    ports = (
        f"--dashboard-agent-listen-port={agent}",
        f"--dashboard-agent-grpc-port={grpc}",
        f"--metrics-export-port={metrics}",
    )
    log = Path(environment["RAY_TMPDIR"]) / f"node-{agent}.log"
    sizes = (f"--num-cpus={cpus}", f"--object-store-memory={100 * 2**20}", f"--memory={2**30}")
    with log.open("w") as said:
        process = psutil.Popen(
            [RAY, "start", "--block", "--node-ip-address=127.0.0.1", *words, *ports, *sizes],
            env=environment,
            stdout=said,
            stderr=said,
            cwd=log.parent,
        )
    try:
        yield process, log
    finally:
        family = [process, *process.children(recursive=True)]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()  # on SIGTERM a node drains for 30 s
        psutil.wait_procs(family, timeout=10)


def wait_for(there: Callable[[], object], seconds: float, said: Callable[[], str] = str) -> None:
    for _ in range(int(seconds * 10)):
        if there():
            return
        time.sleep(0.1)
    raise AssertionError(f"not there after {seconds:g} s: {said()}")


def _answers(port: int) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex(("127.0.0.1", port)) == 0


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()

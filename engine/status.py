"""How an output folder stands: what is done, what runs, what is next. For whoever looks from elsewhere.

Read from files alone, without the run's lock: heartbeats, markers of closed partitions, and of the open partitions
their folders. A run may be writing at the same time, so that any file may be missing yet. Clocks of machines differ, by
minutes too: where they leave open whether a run on another machine lives, what counts is whether it writes while one
looks, as with a lease (`engine.lock`).
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from engine.atomic import is_there, names_in, read_bytes, read_json
from engine.config import Config, Run, load_config
from engine.errors import ConfigError, OutputError
from engine.heartbeat import Heartbeat, read_heartbeat
from engine.layout import LOCK, Layer, Output, ShardId
from engine.lock import RENEW
from engine.partitions import Closed, Partition, closed, decided, partitions
from engine.places import is_local, reached
from engine.storage import read_table

FRESH = 60.0  # seconds after which a heartbeat says nothing of a life any more
CLOCKS = 900.0  # seconds by which clocks may differ: S3, too, refuses a request whose clock is further off
WATCHED = 2 * RENEW  # seconds: by then a run that lives has written again
LOOK_SECONDS = 0.5
TAIL = 2**16  # bytes at the end of a training's log, in which its last step is

Life = Literal["alive", "ended", "dead", "silent", "unknown"]


@dataclass(frozen=True)
class Step:
    """Of a training: the folder of its log in the round, its last step, and of how many as far as known."""

    name: str
    step: int
    total: int | None
    ended: bool
    at: float | None


@dataclass(frozen=True)
class LayerStatus:
    """What there is of a round, or of what merging adds to one (`name` is its folder)."""

    name: str
    items: int
    done: int
    shards: int
    shards_done: int
    partitions: int
    closed: int
    quarantined: dict[str, dict[str, int]]  # stage -> kind -> images, of what is done
    beat: Heartbeat | None = None
    life: Life = "unknown"
    outcome: str = ""  # of a round that was judged

    @property
    def left_seconds(self) -> float | None:
        """Until it is done, at the rate of the last heartbeat."""
        if self.beat is None or self.life != "alive" or not self.beat.images_per_second:
            return None
        return max(self.items - self.done, 0) / self.beat.images_per_second

    @property
    def whole(self) -> bool:
        return self.shards_done == self.shards


@dataclass(frozen=True)
class Status:
    """Of an output folder. `holder` is who has its lock, in words; empty if nobody has, or nobody can tell."""

    root: str
    items: int | None  # None: the manifest isn't there yet
    holder: str
    layers: tuple[LayerStatus, ...] = ()
    trainings: tuple[Step, ...] = ()
    next: tuple[str, ...] = field(default=())

    @property
    def lives(self) -> bool:
        return bool(self.holder) or any(layer.life == "alive" for layer in self.layers)

    def json(self) -> dict[str, Any]:
        layers = []
        for layer in self.layers:
            said = asdict(layer) | {"left_seconds": layer.left_seconds}
            if layer.beat:
                for name, speed in layer.beat.pools.items():
                    said["beat"]["pools"][name]["ratio"] = round(speed.ratio, 4)
            layers.append(said)
        return asdict(self) | {"lives": self.lives, "layers": layers}


def status_of(output: Output) -> Status:
    """Raises OutputError where no run was begun."""
    if not is_there(output.root / LOCK) and not is_there(output.manifest):
        raise OutputError(f"{output.root} holds no dataset: expected a folder that `engine run --out` wrote")
    holder = _holder(output.root / LOCK)
    parts = _partitions(output)
    if parts is None:
        found = Status(str(output.root), None, holder)
        return replace(found, next=tuple(_next(output, found)))
    beats = [(layer, read_heartbeat(layer)) for layer in _layers(output)]
    layers = tuple(_layer(output, layer, parts, beat, life) for layer, beat, life in _lives(beats, holder))
    items = sum(part.items for part in parts)
    found = Status(str(output.root), items, holder, layers, tuple(_trainings(output)))
    return replace(found, next=tuple(_next(output, found)))


def is_running(output: Output) -> bool:
    """Whether a run has the folder, as far as one can tell from here."""
    holder = _holder(output.root / LOCK)
    beats: list[tuple[Layer, Heartbeat | None]] = []
    for layer in _layers(output):
        with suppress(OutputError):
            beats.append((layer, read_heartbeat(layer)))
    return bool(holder) or any(life == "alive" for _, _, life in _lives(beats, holder))


def _partitions(output: Output) -> list[Partition] | None:
    try:
        return partitions(output)
    except OutputError:
        if is_there(output.manifest):
            raise
        return None


def _layers(output: Output) -> Iterator[Layer]:
    for round_ in output.rounds():
        yield round_
        if is_there(round_.merge.sources):
            yield round_.merge


def _layer(output: Output, layer: Layer, parts: list[Partition], beat: Heartbeat | None, life: Life) -> LayerStatus:
    markers = _closed(output, layer)
    done = shards_done = 0
    quarantined: Counter[tuple[str, str]] = Counter()
    for part in parts:
        if marker := markers.get(part.number):
            done, shards_done = done + marker.items, shards_done + marker.shards
            quarantined.update(_flat(marker.counts.get("quarantined", {})))
            continue
        there = decided(layer, part)
        done, shards_done = done + part.count(there), shards_done + len(there)
        for shard in there:
            quarantined.update(_errors(layer, shard))
    return LayerStatus(
        layer.folder.relative_to(output.root).as_posix(),
        sum(part.items for part in parts),
        beat.done if beat and life == "alive" else done,  # which knows what is yet to be made again
        sum(len(part.shards) for part in parts),
        shards_done,
        len(parts),
        len(markers),
        _nested(quarantined),
        beat,
        life,
        _outcome(layer),
    )


def _closed(output: Output, layer: Layer) -> dict[int, Closed]:
    try:
        return closed(output, layer)
    except OutputError:  # one is damaged: `engine verify` tells; here it costs a look at every shard
        return {}


def _errors(layer: Layer, shard: ShardId) -> Counter[tuple[str, str]]:
    try:
        errors = read_table(layer.annotations(shard), ["error"]).column("error").drop_null().to_pylist()
    except OutputError:  # just being replaced, or damaged: `engine verify` tells
        return Counter()
    return Counter((error["stage"], error["kind"]) for error in errors)


def _outcome(layer: Layer) -> str:
    path = layer.folder / "round.json"
    return str(read_json(path).get("outcome", "")) if is_there(path) else ""


def _lives(beats: list[tuple[Layer, Heartbeat | None]], holder: str) -> Iterator[tuple[Layer, Heartbeat | None, Life]]:
    """And the life of who wrote each. A folder has one run at a time: it is the newest that may have to be watched."""
    newest = max((beat.at for _, beat in beats if beat), default=0.0)
    for layer, beat in beats:
        yield layer, beat, _life(layer, beat, holder, beat.at == newest) if beat else "unknown"


def _life(layer: Layer, beat: Heartbeat, holder: str, is_newest: bool) -> Life:
    if beat.ended:
        return "ended"
    if beat.host == socket.gethostname():
        if not _exists(beat.pid):
            return "dead"
        return "alive" if time.time() - beat.at <= FRESH else "silent"
    if not is_newest or (not holder and not is_local(layer.progress)):  # its lease has lapsed: nothing to wait for
        return "silent"
    return "alive" if _writes(layer.progress, beat.at) else "silent"


def _writes(file: Path, at: float) -> bool:
    """Whether a run on another machine still writes `file`, as it did `at`, by a clock that may be off; 0: nobody knows
    when."""
    age = time.time() - at
    if abs(age) <= FRESH:
        return True
    if at and age > FRESH + CLOCKS:
        return False
    with suppress(FileNotFoundError):  # `--overwrite` removes it
        end, before = time.monotonic() + WATCHED, read_bytes(file)
        while time.monotonic() < end:
            time.sleep(LOOK_SECONDS)
            if read_bytes(file) != before:
                return True
    return False


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's
        return True
    return True


def _holder(lock: Path) -> str:
    """Who holds the lock, in words, told without asking for it."""
    try:
        said = json.loads(read_bytes(lock))
        words = f"process {said['pid']} on {said['host']} since {said['since']}"
        is_here, pid = said["host"] == socket.gethostname(), int(said["pid"])
        if is_local(lock):
            return words if is_here and _holds(pid, lock) else ""
        if not said["token"] or (is_here and not _exists(pid)):
            return ""
        with reached(lock):
            written = lock.stat().st_mtime
        return words if _writes(lock, written) else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _holds(pid: int, lock: Path) -> bool:
    """Whether the kernel's table of locks, where there is one, says that somebody has this one."""
    try:
        table = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return _exists(pid)
    inode = str(lock.stat().st_ino)
    return any(inode == field.rpartition(":")[2] for row in table if "FLOCK" in row for field in row)


def _trainings(output: Output) -> Iterator[Step]:
    for round_ in output.rounds():
        for name in names_in(round_.training):
            last = _last_line(round_.training / name / "log.jsonl")
            if last:
                where = f"{round_.folder.name}/training/{name}"
                yield Step(
                    where, last["step"], _steps(output, round_.number), last.get("event") == "end", last.get("at")
                )


def _last_line(log: Path) -> dict[str, Any]:
    """The last whole line that has a step: it may be written on at this moment."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - TAIL, 0))
            lines = file.read().split(b"\n")[:-1]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    for line in reversed(lines):
        with suppress(ValueError):
            said = json.loads(line)
            if isinstance(said, dict) and isinstance(said.get("step"), int):
                return said
    return {}


def _steps(output: Output, number: int) -> int | None:
    """How many steps a round's training has, as the folder's configuration says."""
    try:
        config: Config = load_config(output.config)
    except ConfigError:
        return None
    plans = config.refine.rounds
    train = config.train.model_dump() | plans[min(number, len(plans) - 1)].train
    phases = [phase or {} for phase in train["phases"].values()] or [{}]
    return sum(int(phase.get("steps", train["steps"])) for phase in phases)


def _next(output: Output, found: Status) -> Iterator[str]:
    """Commands by which to go on."""
    where = shlex.quote(found.root)
    if found.lives:
        yield f"engine status {where} --watch"
        return
    if found.items is None and output.has_lost_manifest:
        yield f"engine verify {where} --repair"
        return
    first = next((layer for layer in found.layers if layer.name == "round-0"), None)
    sources = output.round(0).sources
    if is_there(sources) and read_json(sources).get("updating"):
        yield f"engine run --update --out {where}{_how(first)}"
        return
    if first is None or not first.whole:
        yield f"engine run --out {where}{_how(first)}"
        return
    for layer in found.layers:
        number = int(layer.name.split("/")[0].removeprefix("round-"))
        if "/merge" in layer.name or number == 0:
            continue
        if not layer.whole:
            yield f"engine run --stage reannotate --round {number - 1} --out {where}{_how(layer)}"
            return
        if not layer.outcome:
            yield f"engine run --stage merge --round {number} --out {where}"
            return
    # Ingest reads again what could not be read; what has changed since then stays out.
    if any(kinds.keys() - {"changed"} for stage, kinds in first.quarantined.items() if stage != "ingest"):
        yield f"engine retry-failed {where}"
    yield f"engine export {where}"


def _how(layer: LayerStatus | None) -> str:
    """The workers, and the cluster, with which a run was at work that did not come to its end: config.yaml does not
    know of them yet."""
    if layer is None or layer.beat is None or layer.beat.ended == "done":
        return ""
    settings = layer.beat.settings
    said = {name: settings[name] for name in Run.model_fields if name in settings}
    told = [f"run.{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in said.items()]
    return "".join(f" --set {shlex.quote(setting)}" for setting in told)


def _flat(nested: dict[str, dict[str, int]]) -> dict[tuple[str, str], int]:
    return {(stage, kind): count for stage, kinds in nested.items() for kind, count in kinds.items()}


def _nested(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    result: dict[str, dict[str, int]] = {}
    for (stage, kind), count in sorted(counts.items()):
        result.setdefault(stage, {})[kind] = count
    return result

"""How a stage goes, as its driver wrote it last: for whoever looks from another terminal or machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from engine.atomic import is_there, read_json, write_json
from engine.errors import OutputError
from engine.layout import Layer


@dataclass(frozen=True)
class PoolSpeed:
    """What the workers of one pool did: `busy_seconds` inside their models' `annotate`, in `wall_seconds` of each."""

    items: int = 0
    workers: int = 0
    busy_seconds: float = 0.0
    wall_seconds: float = 0.0

    @property
    def ratio(self) -> float:
        """The speed-of-light ratio: the pool's images a second over those of its models alone, 0 to 1."""
        available = self.workers * self.wall_seconds
        return min(self.busy_seconds / available, 1.0) if available else 0.0


@dataclass(frozen=True)
class Heartbeat:
    """Times are Unix seconds; `ended` is empty while it runs, else "done", "stopped" or "failed: ...". `settings` are
    those of the configuration's `run` that are not the usual ones."""

    run: str
    host: str
    pid: int
    stage: str
    began: float
    at: float
    total: int
    done: int
    quarantined: int
    images_per_second: float = 0.0
    workers_ready: int = 0
    workers: int = 0
    in_flight: dict[str, float] = field(default_factory=dict)  # shard -> when it was begun
    pools: dict[str, PoolSpeed] = field(default_factory=dict)
    ended: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


def write_heartbeat(layer: Layer, beat: Heartbeat) -> None:
    write_json(layer.progress, asdict(beat))


def read_heartbeat(layer: Layer) -> Heartbeat | None:
    """None where no run has begun. Raises OutputError for one that is damaged."""
    if not is_there(layer.progress):
        return None
    said = read_json(layer.progress)
    try:
        pools = {name: PoolSpeed(**speed) for name, speed in said.pop("pools").items()}
        return Heartbeat(**{**said, "in_flight": dict(said["in_flight"]), "pools": pools})
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise OutputError(f"{layer.progress} is damaged ({error}). Remove it: the next run writes it anew.") from error

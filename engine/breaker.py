"""What fails one image may be the image; what fails a hundred in a row is something else, and the run stops for it."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from engine.errors import RunError
from engine.uris import MEMBER, ROW, is_url

LONGEST = 200  # characters of a message that are kept
NEWEST = 1000  # failures of one report that are told one by one


@dataclass(frozen=True)
class Failure:
    """An image that goes to quarantine, and why."""

    item_id: bytes
    uri: str
    stage: str
    kind: str
    message: str
    node: str = ""  # of the worker


@dataclass
class Failures:
    """Those of a report, in order: the newest of them, and how many came since an image came through."""

    total: int = 0
    in_a_row: int = 0
    came_through: bool = False  # an image did
    newest: deque[Failure] = field(default_factory=lambda: deque(maxlen=NEWEST))

    def add(self, failure: Failure) -> None:
        self.total += 1
        self.in_a_row += 1
        self.newest.append(failure)

    def came(self) -> None:
        """An image came through the pool."""
        self.in_a_row, self.came_through = 0, True


@dataclass
class Breaker:
    """Counts failures in a row, over all workers of one pool, in the order in which they are reported: each pool has
    its own, as the first is many images ahead of the last. A pool that fails what comes to it also counts what failed
    before: several that fail a part each let nothing through together, and few images may come to the last of them.
    An image that fails again, when its shard is done again, counts once."""

    limit: int
    row: dict[bytes, Failure] = field(default_factory=dict)
    fails: bool = False  # an image of the row failed in this pool
    rows: int = 0  # before this one

    def saw(self, failures: Failures, node: str) -> None:
        """Raises RunError, with what the failures share, when so many are in a row."""
        if failures.came_through:
            self.row.clear()
            self.fails = False
            self.rows += 1
        if failures.in_a_row:
            self.fails = True
            self._add(replace(failure, node=node) for failure in list(failures.newest)[-failures.in_a_row :])

    def passed(self, failed: Iterable[Failure], rows: int) -> None:
        """A shard is through, of which the pools before `failed` these. They count if no image came through since it
        began here, when there had been so many `rows`. Raises RunError as `saw` does."""
        if rows == self.rows:
            self._add(failed)

    def _add(self, failures: Iterable[Failure]) -> None:
        self.row.update((failure.item_id, failure) for failure in failures)
        if self.fails and len(self.row) >= self.limit:
            raise RunError(
                f"{len(self.row)} images in a row failed (run.failures_in_a_row {self.limit}). What they share: "
                f"{shared(list(self.row.values()))}. Shards that are written stay. When it is mended, run the same "
                "again to go on, and `engine retry-failed OUT` for those that are in quarantine already."
            )


VARYING = re.compile(r"[0-9/]")  # names and numbers, in which messages of one cause differ
ASPECTS: dict[str, Callable[[Failure], str]] = {
    "stage": lambda failure: failure.stage,
    "kind": lambda failure: failure.kind,
    "message": lambda failure: repr(VARYING.split(failure.message)[0][:60].strip()),
    "place": lambda failure: place_of(failure.uri),
    "node": lambda failure: failure.node[:8],
}


def shared(failures: list[Failure]) -> str:
    """The most frequent stage, kind, message, place and node, each with how many have it; up to three if none has
    nearly all."""
    told = []
    for name, of in ASPECTS.items():
        counts = Counter(filter(None, map(of, failures))).most_common(3)
        if counts and counts[0][1] >= 0.9 * len(failures):
            counts = counts[:1]
        told += [f"{name} {', '.join(f'{value} ({count})' for value, count in counts)}"] if counts else []
    return "; ".join(told)


def place_of(uri: str) -> str:
    """The host of a URL, or the folder or archive of a file."""
    if is_url(uri):
        try:
            return urlsplit(uri).netloc.rpartition("@")[2]
        except ValueError:  # of URLs that are none
            return ""
    inside = ROW.fullmatch(uri) or MEMBER.fullmatch(uri)
    return inside[1] if inside else uri.rpartition("/")[0]

"""What can be wrong with an output folder, and what repairs it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

KEPT = 10_000  # of a kind: they are a kilobyte each


@dataclass(frozen=True)
class Finding:
    """`kind` is a word to group by; `path` and `remove` are relative to the output folder. What `remove` names is to be
    removed: the next run makes it again, but for what `lost` says. Empty: a person has to do what `remedy` says."""

    kind: str
    path: str
    message: str
    remedy: str
    remove: tuple[str, ...] = ()
    lost: str = ""


@dataclass
class Verdict:
    """What was looked at, and what was found: all is counted, by kind, and the first KEPT of a kind are `findings`.
    `open` says of each layer how many of its shards are not done yet: that is no fault."""

    root: str
    shards: int = 0
    rows: int = 0
    annotations: int = 0
    images: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)
    open: dict[str, int] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, found: Iterable[Finding]) -> None:
        for finding in found:
            self.kinds[finding.kind] += 1
            if self.kinds[finding.kind] <= KEPT:
                self.findings.append(finding)

    @property
    def left_out(self) -> int:
        """How many findings are only counted."""
        return self.kinds.total() - len(self.findings)

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds if self.seconds else 0.0

    def json(self) -> dict[str, Any]:
        return {**asdict(self), "sound": not self.findings, "kinds": dict(sorted(self.kinds.items()))}

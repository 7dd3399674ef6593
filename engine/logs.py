"""What happened in a run, a JSON object a line, in `OUT/logs/<run id>.jsonl`; on an object store in numbered parts.

It goes through Python's logging, as logger "engine.run", so that handlers of whoever calls the engine get it, too:
what stands in a line is the record's `engine`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from engine.atomic import write_text
from engine.layout import ShardId
from engine.places import is_local

LOGGER = logging.getLogger("engine.run")
QUARANTINES = 10_000  # that a run tells one by one; all are in the dataset
LONGEST = 2000  # characters of a message


class RunLog(logging.Handler):
    """The log of one run. `flush_part` is for a thread that may wait for a store."""

    def __init__(self, root: Path, run_id: str, round_number: int) -> None:
        super().__init__(logging.INFO)
        self.folder, self.run_id, self.round = root / "logs", run_id, round_number
        self.file: TextIO | None = None
        self.lines: list[str] = []
        self.parts = 0
        self.quarantined = 0
        if is_local(root):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.file = open(self.folder / f"{run_id}.jsonl", "a", buffering=1, encoding="utf-8")  # noqa: SIM115 (`close` closes it)
        LOGGER.setLevel(min(LOGGER.level or logging.INFO, logging.INFO))
        LOGGER.addHandler(self)

    def event(
        self,
        event: str,
        message: str,
        *,
        shard: ShardId | None = None,
        items: Iterable[bytes] = (),
        node: str = "",
        level: int = logging.INFO,
        **more: Any,
    ) -> None:
        where = {"partition": shard.partition, "shard": str(shard)} if shard else {}
        ids = {"items": listed} if (listed := [item_id.hex() for item_id in items]) else {}
        told = {"event": event, "run": self.run_id, "round": self.round, **where, **ids, "node": node, **more}
        whole = message[:LONGEST].encode(errors="replace").decode()  # half characters end whoever writes them on
        LOGGER.log(level, "%s", whole, extra={"engine": told})

    def quarantine(self, message: str, **where: Any) -> None:
        """The first of them; the rest is counted."""
        self.quarantined += 1
        if self.quarantined <= QUARANTINES:
            self.event("quarantined", message, level=logging.WARNING, **where)

    def emit(self, record: logging.LogRecord) -> None:
        told = getattr(record, "engine", None)
        if told is None or told["run"] != self.run_id:
            return
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = json.dumps(
            {"time": time, "level": record.levelname.lower(), **told, "message": record.getMessage()}, default=str
        )
        try:
            if self.file:
                self.file.write(line + "\n")
            else:
                self.lines.append(line)
        except (OSError, ValueError):  # a full disk is told by the run itself, which has more to lose there
            pass

    def flush_part(self) -> None:
        """Puts what came since as an object of its own."""
        if lines := self.lines[:]:
            write_text(self.folder / f"{self.run_id}-{self.parts:05d}.jsonl", "\n".join(lines) + "\n")
            del self.lines[: len(lines)]
            self.parts += 1

    def close(self) -> None:
        LOGGER.removeHandler(self)
        if self.file:
            self.file.close()
        super().close()

"""What is learned from the end of a worker, so that the next one gets further; every retry is bounded."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.config import Run
from engine.errors import RunError
from engine.records import ItemError
from engine.watchdog import Note
from engine.worker import Orders

# A machine that goes takes its workers' notes along: an image that takes machines with it is found out by no note.
LOST_SHARD = 10


@dataclass
class Blame:
    """Who is at fault, as far as it is known. Each method says in a sentence what it makes of an end."""

    run: Run
    idle: int = 0  # workers that ended without an image in hand, since a shard was done
    over: dict[bytes, int] = field(default_factory=dict)  # item -> ends of workers that had it alone in hand
    lost: dict[str, int] = field(default_factory=dict)  # shard -> how often what was made of it went with a machine

    def note(self, note: Note, orders: Orders) -> str:
        """A worker ended over the images of its note."""
        if len(note.item_ids) > 1:
            orders.alone.update(note.item_ids)
            return f"A worker ended over {len(note.item_ids)} images; they are tried again one by one."
        (item_id,) = note.item_ids
        times = self.over[item_id] = self.over.get(item_id, 0) + 1
        limit = self.run.item_seconds
        how = "killed its worker" if note.hung_at is None else f"took longer than {limit:g} s, in {note.hung_at}"
        orders.alone.add(item_id)
        if times < self.run.attempts:
            return f"Image {item_id.hex()[:8]} {how}; it is tried again."
        kind = "killed" if note.hung_at is None else "timeout"
        orders.quarantined[item_id] = ItemError("annotate", kind, f"{how}; given up after {times} attempt(s)")
        del self.over[item_id]
        return f"Image {item_id.hex()[:8]} {how}; after {times} attempt(s) it goes to quarantine."

    def nobody(self, when: str, workers: int) -> str:
        """A worker ended, and its machine lives, but no image was in hand. Raises RunError if that goes on."""
        self.idle += 1
        if self.idle > workers * self.run.attempts:
            raise RunError(
                f"workers ended {self.idle} times without an image to blame, the last {when}. Out of memory? "
                "Fewer of them may fit (run.workers)."
            )
        return f"A worker ended {when}; another one starts."

    def gone(self, shard: str) -> None:
        """A shard was in the hands of a machine that went, or its Half was. Raises RunError if that goes on."""
        times = self.lost[shard] = self.lost.get(shard, 0) + 1
        if times >= LOST_SHARD:
            raise RunError(
                f"{shard} was lost with its machine {times} times: an image of it may take machines down (out of "
                "memory?), or machines go faster than a shard is done (a smaller ingest.shard_size)."
            )

    def finished(self, shard: str) -> None:
        self.idle = 0
        self.lost.pop(shard, None)

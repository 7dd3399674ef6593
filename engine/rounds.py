"""A record over several rounds: what each of them added, taken apart for its shard and put together by who reads.

A round's shards hold what is new in it. Annotations and decisions are only ever appended, so that is what follows
behind those of the round before.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engine.records import Record

APPENDED = ("texts", "parses", "regions", "region_texts", "masks", "triplets", "decisions")


def begun(record: Record) -> Record:
    """What a record has before its round adds to it: in a later round all that it comes with. In the first one nothing:
    what came along with its image is of that round, and decided on like the rest."""
    return record if record.round else Record(record.item)


def added(record: Record, before: Record) -> Record:
    """What `record` has that `before`, from which it grew, has not; with an error, if it has one now."""
    new: dict[str, Any] = {name: getattr(record, name)[len(getattr(before, name)) :] for name in APPENDED}
    known = before.perceptual_hash is not None
    return replace(record, **new, perceptual_hash=None if known else record.perceptual_hash)


def joined(before: Record, new: Record) -> Record:
    """The record of a round, of that up to the round before and of what it added. An error is the later round's."""
    both: dict[str, Any] = {name: getattr(before, name) + getattr(new, name) for name in APPENDED}
    return replace(new, **both, perceptual_hash=before.perceptual_hash or new.perceptual_hash)

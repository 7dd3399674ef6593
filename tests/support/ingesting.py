"""Ingest as the tests call it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.config import Ingest
from engine.ingest import ingest
from engine.layout import Output
from engine.records import Item
from engine.storage import read_items


def ingested(out: Path, config: Ingest, **how: Any) -> dict[str, Any]:
    """What manifest.json says."""
    return ingest(Output(out), config, "digest", lambda items: None, **how)


def items_of(out: Path) -> list[Item]:
    return [item for shard in Output(out).shards() for item in read_items(Output(out), shard)]


def files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


class Killed(Exception):
    pass

"""The engine: records, schema, storage, configuration, ingest, the Ray runner and the command line."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.dataset import Dataset, open_dataset
    from engine.records import Decision, Item, ItemError, Mask, Record, Region, Scores, Text, Triplet

__all__ = [
    "Dataset",
    "Decision",
    "Item",
    "ItemError",
    "Mask",
    "Record",
    "Region",
    "Scores",
    "Text",
    "Triplet",
    "open_dataset",
]


def __getattr__(name: str) -> Any:
    """Imported when they are asked for: whoever wants a part of the engine does not wait for Arrow."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "dataset" if name in ("Dataset", "open_dataset") else "records"
    return getattr(import_module(f"{__name__}.{module}"), name)

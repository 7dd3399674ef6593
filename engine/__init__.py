"""The engine: records, schema, storage, configuration, ingest, the Ray runner and the command line."""

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

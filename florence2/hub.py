"""A model's folder, from this machine or from a Hugging Face hub."""
from __future__ import annotations
from collections.abc import Sequence
from pathlib import Path

def resolve(source: str | Path, filenames: Sequence[str]) -> Path:
    return Path(source)

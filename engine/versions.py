"""Versions that can't be forgotten to be raised: digests of the code and the weights that an answer comes from."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any


@cache
def digest_of(module: str, *weights: Path, packages: tuple[str, ...] = ()) -> str:
    """12 hex digits over a module's source, weight files, and the versions of `packages` that do the work."""
    source = import_module(module).__file__
    assert source is not None, f"{module} has no source file"
    hasher = hashlib.sha256()
    for path in (Path(source), *weights):
        hasher.update(path.read_bytes())
    for package in packages:
        hasher.update(f"{package}=={metadata.version(package)}".encode())
    return hasher.hexdigest()[:12]


@cache
def digest_of_files(code: str, *files: tuple[Path, int]) -> str:
    """12 hex digits over a digest and files, which may have gigabytes: each is read once a process while it stays as it
    is (its time of change, in ns, is part of the question)."""
    hasher = hashlib.sha256(code.encode())
    for path, _ in files:
        hasher.update(path.name.encode())
        with open(path, "rb") as file:
            hasher.update(hashlib.file_digest(file, "sha256").digest())
    return hasher.hexdigest()[:12]


def digest_of_json(value: Any) -> str:
    """12 hex digits over a JSON value. The order of keys counts: pipelines run in the order they are written."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]

"""Disks that are small, or that can only be read. Whoever may not mount any skips the test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small(folder: Path, size: str) -> Iterator[Path]:
    """The new folder, as a file system of that size: `500k`, say."""
    folder.mkdir()
    with _mounted("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)):
        yield folder


@contextmanager
def read_only(folder: Path, view: Path | None = None) -> Iterator[Path]:
    """What is in the folder, as nobody can write to it: there, or in a folder `view` of its own."""
    view = view or folder
    view.mkdir(exist_ok=True)
    with _mounted("--bind", str(folder), str(view)):
        subprocess.run(["mount", "-o", "remount,ro,bind", view], check=True)
        yield view


@contextmanager
def _mounted(*arguments: str) -> Iterator[None]:
    if subprocess.run(["mount", *arguments], capture_output=True).returncode:
        pytest.skip("mounting needs root and the right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", arguments[-1]], check=True)

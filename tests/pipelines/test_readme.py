"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from command import ENGINE, run

from engine import open_dataset
from engine.layout import Output, ShardId

README = Path(__file__).parents[2] / "README.md"


def snippet(language: str, containing: str) -> str:
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)
    return next(block for block in blocks if containing in block)


@pytest.fixture
def here(undisturbed: Path, tmp_path: Path) -> Path:
    """A folder with `out` in it, as after `make run`."""
    shutil.copytree(undisturbed, tmp_path / "out")
    return tmp_path


@pytest.mark.parametrize("stopped", [False, True])
def test_python_and_sql_see_the_same_regions(here: Path, monkeypatch: pytest.MonkeyPatch, stopped: bool) -> None:
    if stopped:  # a killed run may leave annotations whose decisions are not there yet
        Output(here / "out").round(0).decisions(ShardId(0, 0)).unlink()
    python = subprocess.run(
        [sys.executable, "-c", snippet("python", "open_dataset")], cwd=here, capture_output=True, text=True, check=True
    )
    regions = [(item.uri, region.kind, region.box) for item, region in open_dataset(here / "out").regions()]
    assert len(regions) > 20
    assert len(python.stdout.splitlines()) == len(regions)
    monkeypatch.chdir(here)
    rows = duckdb.sql(snippet("sql", "list_contains")).fetchall()
    assert sorted((uri, kind, tuple(box)) for uri, kind, _, box, _ in rows) == sorted(regions)


def test_show_draws(here: Path) -> None:
    line = next(line for line in snippet("sh", "engine show").splitlines() if line.startswith("engine show"))
    words = line.split()
    assert words[:3] == ["engine", "show", "out"]
    result = run(ENGINE, "show", "out", "00 coffee.png", *words[4:], cwd=here)
    assert result.returncode == 0, result.stdout
    assert "annotations stand" in result.stdout
    assert (here / words[-1]).stat().st_size > 10_000

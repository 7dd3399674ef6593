"""The notebook in examples/ runs as it stands there, and holds nothing of whoever ran it last."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from engine import open_dataset

NOTEBOOK = Path(__file__).parents[2] / "examples" / "explore.ipynb"


def test_nothing_of_a_run_is_stored() -> None:
    text = NOTEBOOK.read_text()
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    assert text.isascii()
    assert not re.search(r"/(?:home|root|tmp|work|Users)/", text)
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    for cell in notebook.cells:
        assert not cell.metadata
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None


def test_it_runs(undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUT", str(undisturbed))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs: list[Any] = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    said = "".join(output.text for output in outputs if output.get("name") == "stdout")
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 3, "two images with what was found, and where regions lie"
    assert f"{sum(1 for _ in open_dataset(undisturbed).regions())} regions" in said
    assert f"{len(open_dataset(undisturbed).shards())} shards" in said
    first, _, last = map(float, re.findall(r"\d+\.\d+", re.search(r"loss: (.*)", said)[1]))  # type: ignore[index]
    assert 0 < last < first
    for task in ("OD", "CAPTION", "DENSE_REGION_CAPTION"):
        assert f"{task} | " in said

"""Imports point one way, and each heavy library comes in by its own door."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("engine", "specialists", "filters", "florence2", "pipelines")
# What each package may import of ours, besides itself. The command line sits on top of everything.
MAY_IMPORT = {
    "engine": set(),
    "specialists": {"engine", "florence2"},
    "filters": {"engine"},
    "florence2": set(),
    "pipelines": {"engine", "specialists", "filters", "florence2"},
}
TOP = "engine/cli/"
DOORS = {
    "ray": {"engine/runner/", "engine/metrics.py", "engine/streaming.py", "pipelines/training/"},
    "pyarrow": {
        "engine/schema.py",
        "engine/storage.py",
        "engine/contamination.py",
        "engine/said.py",  # what is evaluated
        "engine/dataset.py",  # tables for pandas
        "engine/sources/exports.py",  # our own
        "engine/flat.py",  # a million annotations as columns
        "engine/export/",
        "engine/stats/",
        "engine/verify/",  # columns against columns
        "engine/summary.py",  # counts columns
        "engine/compact.py",  # people's Parquet, without what it would swell to
        "engine/manifest.py",  # reads people's Parquet manifests
        "engine/sources/huggingface.py",  # and their Arrow files
    },
    "faster_coco_eval": {"florence2/evaluation/detection.py"},
    "pycocoevalcap": {"florence2/evaluation/captions.py"},
    "ijson": {"engine/sources/"},
    "jinja2": {"engine/report/page.py"},
    "httpx": {"engine/download.py", "specialists/chat/wire.py"},
    "tenacity": {"specialists/chat/"},
    "py3langid": {"filters/language.py"},
    "scipy": {"engine/calibration.py", "engine/merge/matching.py"},
    "spacy": {"specialists/parser.py"},
    "tensorboardX": {"pipelines/training/journal.py"},
    "torch": {
        "florence2/",
        "specialists/",
        "filters/nms.py",
        "pipelines/checking.py",  # counts GPUs
        "pipelines/torch_dataset.py",
        "pipelines/training/worker.py",
    },
    "safetensors": {"florence2/checkpoint.py", "florence2/training/state.py"},
    "peft": {"florence2/training/lora.py"},
    "fsspec": {"engine/places.py"},
    "upath": {"engine/places.py"},
    "tokenizers": {"florence2/tokens.py"},
    "huggingface_hub": {"florence2/hub.py"},
    "transformers": {"specialists/"},  # florence2/ outlives its releases
}


def modules() -> Iterator[tuple[str, ast.AST]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    for name, tree in modules():
        if name.startswith(package + "/") and not name.startswith(TOP):
            assert imported(tree) & set(PACKAGES) <= MAY_IMPORT[package] | {package}, name


@pytest.mark.parametrize("library", DOORS)
def test_heavy_libraries_have_their_doors(library: str) -> None:
    users = {name for name, tree in modules() if library in imported(tree)}
    assert {name for name in users if not any(name.startswith(door) for door in DOORS[library])} == set()

"""The classes that the files of an annotated set list, whether or not anything in it is of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from engine import manifest
from engine.files import absolute, is_file, is_folder, matching, whole
from engine.sources import exports, huggingface, llava, yolo
from engine.sources.features import columns_of, features_in
from engine.sources.sections import sections
from engine.uris import is_url


def listed_classes(paths: Sequence[str]) -> list[str]:
    """The categories of COCO's files, the names of YOLO's sets and those of the objects of Hugging Face datasets. Other
    sets list none. What is read here was ingested before."""
    files = [file for path in paths if not is_url(path) for file in exports.lists(absolute(path))]
    return sorted({name for file in files for name in _names(file)})


def _names(path: str) -> Iterator[str]:
    if yolo.is_set(path):
        yield from yolo.names_of(os.path.join(path, yolo.DATA) if is_folder(path) else path)
    elif is_folder(path):
        for info in _infos(path) if huggingface.is_dataset(path) else ():
            yield from _of_features(json.loads(whole(info, huggingface.MOST_BYTES)).get("features") or {})
        for table in matching(path, exports.SHARDS["hf"]) if exports.format_of(path) == "hf" else ():
            yield from _of_table(table)
    elif path.lower().endswith(".json") and not llava.is_conversations(path):
        yield from _of_coco(path)
    elif path.lower().endswith(".parquet"):
        yield from _of_table(path)


def _infos(folder: str) -> Iterator[str]:
    """Of a dataset, or of its splits."""
    own = os.path.join(folder, huggingface.INFO)
    return iter([own] if is_file(own) else matching(folder, f"*/{huggingface.INFO}"))


def _of_coco(path: str) -> Iterator[str]:
    parts = sections(path)
    for category in parts["categories"].items() if "categories" in parts else ():
        if isinstance(category, dict) and isinstance(category.get("name"), str):
            yield category["name"]


def _of_table(path: str) -> Iterator[str]:
    yield from _of_features(features_in(manifest.metadata(path)))


def _of_features(features: dict[str, Any]) -> Iterator[str]:
    yield from columns_of(features).categories

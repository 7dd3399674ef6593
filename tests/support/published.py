"""Benchmarks in small, in the formats that they are published in."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any


def put(folder: Path, name: str, data: object) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def ref(image: int, thing: int, split: str, *said: tuple[int, str]) -> dict[str, Any]:
    sentences = [{"sent_id": id, "sent": text, "raw": text.upper(), "tokens": text.split()} for id, text in said]
    file = f"COCO_train2014_{image:012}_{thing}.jpg"
    about = {"ref_id": thing, "ann_id": thing, "image_id": image, "split": split, "file_name": file, "category_id": 1}
    return about | {"sentences": sentences, "sent_ids": [id for id, _ in said]}


def refcoco(folder: Path, refs: object, things: object, protocol: int = 2) -> Path:
    put(folder, "instances.json", things)
    (folder / "refs(unc).p").write_bytes(refs if isinstance(refs, bytes) else pickle.dumps(refs, protocol))
    return folder

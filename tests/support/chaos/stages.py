"""The stages that faults befall: how each begins, when it is in the middle, and what it makes of which row."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isclose
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from command import command, run
from memorised import memorised, saved
from PIL import Image
from safetensors.numpy import load_file

from benchmarks.world import EASY
from benchmarks.world.writing import write_round
from engine.config import load_config
from engine.layout import Output
from florence2 import ask
from pipelines.training.journal import read_journal

COUNT, SHARD, WORKERS = 24, 3, 2
BROKEN = 1  # of them can't be read
STEPS, CHECKPOINT = 8, 2
CONFIG = {
    "ingest": {"shard_size": SHARD},
    "specialists": {"nanodet": {"use": "nanodet"}},
    "filters": {"score": {"use": "score", "thresholds": {"nanodet": {"object": 0.3}}}},
    "run": {"workers": WORKERS, "item_seconds": 20, "max_quarantined": 0.2, "memory_mb_per_worker": 800},
    "reannotate": {"specialists": {"florence2": {"tasks": ["CAPTION"], "caption_beams": 1, "max_new_tokens": 20}}},
    "export": {"format": "webdataset"},
}
TRAINING = {
    "train": {
        "steps": STEPS,
        "images_per_step": 4,
        "images_at_once": 4,
        "tasks_per_image": 2,
        "size": [32, 32],
        "checkpoint_steps": CHECKPOINT,
        "vocabulary_size": 1500,
        "held_out": 0.25,
        "samples": 0,
        "targets": {"min_side": 2},
        "exhaustive": {"human": "all"},
        "recipe": {"learning_rate": 1.0e-3},
    },
    "run": {"item_seconds": 20},
}

Rows = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """`rows` are what it makes, by id; `worker` is in the name of its worker processes, if it has any; as many rows,
    or steps, as `at_once` may be computed again after a fault."""

    name: str
    base: Callable[[Path, str], Path]  # makes, in a new folder and of images, the output folder that it begins from
    begun: str  # the pattern of files of which one is there as soon as something is done
    rows: Callable[[Path], Rows]
    worker: str | None
    at_once: int
    writes: str  # the folder that it writes to
    round: int | None = None  # of which it makes rows that may be in quarantine

    @property
    def has_quarantine(self) -> bool:
        return self.round is not None


def images(folder: Path, photos: Path) -> Path:
    """Crops of real photos, with a duplicate and a broken file among them."""
    folder.mkdir()
    names = ("coffee.png", "astronaut.png", "motorcycle_left.png")
    for n in range(COUNT - 2):
        source = Image.open(photos / names[n % len(names)]).convert("RGB")
        x, y = (17 * n) % (source.width - 180), (11 * n) % (source.height - 150)
        source.crop((x, y, x + 180, y + 150)).save(folder / f"{n:02d}.png")
    shutil.copy(folder / "00.png", folder / "90.png")
    (folder / "91.jpg").write_bytes(b"\xff\xd8\xff\xe0 this was a photo once")
    return folder


def configuration(path: Path, given: dict[str, Any], images: Sequence[str] = ()) -> Path:
    ingest = {**given.get("ingest", {}), **({"images": list(images)} if images else {})}
    path.write_text(yaml.safe_dump({**given, "ingest": ingest}))
    return path


def record_rows(out: Path, number: int) -> Rows:
    """Of a round: everything that was added to each image and decided on it, and its error."""
    rows: Rows = {}
    for kind in ("annotations", "decisions"):
        for path in sorted((out / f"round-{number}" / kind).rglob("shard-*.parquet")):
            for row in pq.read_table(path).to_pylist():
                key = f"{kind} {row.pop('item_id').hex()}"
                rows[key if key not in rows else f"twice {key}"] = rounded(row)
    return rows


def rounded(value: Any) -> Any:
    """Another process may add the same numbers up in another order."""
    if isinstance(value, float):
        return float(f"{value:.3g}")
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list) else value


def is_same(one: Any, other: Any) -> bool:
    """Numbers of a training to a hundredth: with other workers they are added up in another order, step after step."""
    if isinstance(one, float) and isinstance(other, float):
        return isclose(one, other, rel_tol=1e-2, abs_tol=1e-4)
    return bool(one == other)


def trained_rows(out: Path) -> Rows:
    """The steps of a training with their losses, and the size of its weights."""
    journal = read_journal(out / "round-0" / "training" / "fold-0")
    steps: Rows = {f"step {line['step']}": line["loss"] for line in journal if line["event"] == "step"}
    weights = load_file(out / "round-0" / "model" / "model.safetensors")
    return steps | {name: float(abs(tensor).mean()) for name, tensor in sorted(weights.items())}


def exported_rows(out: Path) -> Rows:
    rows: Rows = {}
    for path in sorted((out / "export" / "webdataset").rglob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key = member.name if member.name not in rows else f"twice {member.name}"
                file = tar.extractfile(member)
                rows[key] = file.read() if file else None
    return rows


def begun(folder: Path, images: str, stage: str) -> Path:
    """An output folder of `stage`, as the command line makes it."""
    out = folder / "out"
    config = configuration(folder / "pipeline.yaml", CONFIG, [images])
    result = run(*command(out, "--config", str(config), stage=stage))
    assert result.returncode == 0, result.stdout
    return out


def with_model(folder: Path, images: str) -> Path:
    out = begun(folder, images, "annotate")
    saved(out / "round-0" / "model", memorised({ask("CAPTION"): "a dog beside a car"}, steps=60))
    return out


def with_scenes(folder: Path, images: str) -> Path:
    """A round of 20 procedural scenes and what is true of them."""
    config = load_config(configuration(folder / "settings.yaml", TRAINING))
    write_round(Output(folder / "out"), replace(EASY, size=(32, 32)), seed=0, count=20, shard_size=4, config=config)
    return folder / "out"


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "annotate",
            lambda folder, images: begun(folder, images, "ingest"),
            "round-0/decisions/*/shard-*.parquet",
            lambda out: record_rows(out, 0),
            "ray::Worker",
            WORKERS * SHARD,
            "round-0",
            0,
        ),
        Stage(
            "train",
            with_scenes,
            "round-0/training/fold-0/checkpoints/step-*/training.json",
            trained_rows,
            "RayTrainWorker",
            CHECKPOINT,
            "round-0",
        ),
        Stage(
            "reannotate",
            with_model,
            "round-1/decisions/*/shard-*.parquet",
            lambda out: record_rows(out, 1),
            "ray::Worker",
            WORKERS * SHARD,
            "round-1",
            1,
        ),
        Stage(
            "export",
            lambda folder, images: begun(folder, images, "annotate"),
            "export/webdataset/.export/part-*/shard-*/done.json",
            exported_rows,
            None,
            WORKERS * SHARD,
            "export",
        ),
    )
}

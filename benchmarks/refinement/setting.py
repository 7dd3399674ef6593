"""The images of the benchmark, the labels of some of them, and the engine's commands over them."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.world import Picture, World, phrase, tell
from engine.atomic import write_text
from engine.geometry import quad_box

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = Path(__file__).with_name("plugin")
PIPELINE = Path(__file__).with_name("pipeline.yaml")
ENGINE = (sys.executable, "-c", "from engine.cli import main; main()")
IMAGES = "images"


def draw(folder: Path, world: World, seed: int, count: int) -> list[Picture]:
    """Writes the pictures; each file is named after its index."""
    (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    pictures = [world.picture(seed, index) for index in range(count)]
    for index, picture in enumerate(pictures):
        Image.fromarray(picture.pixels).save(folder / IMAGES / f"{index:06d}.png")
    return pictures


def label(
    folder: Path, pictures: Sequence[Picture], some: Sequence[int], shuffled: bool = False, name: str = "label"
) -> list[Path]:
    """Writes the whole truth of some of the pictures as people's labels in COCO's format, to NAMEs.json and
    NAME_captions.json; `shuffled` over the images, for labels that say nothing of theirs."""
    said = list(some)
    if shuffled:
        random.Random(0).shuffle(said)
    world = pictures[0].world
    numbers = {name: number for number, name in enumerate(world.labels, 1)}
    width, height = world.size
    images: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    for index, of in zip(some, said, strict=True):
        images.append({"id": index, "file_name": f"{IMAGES}/{index:06d}.png", "width": width, "height": height})
        instances += [{"image_id": index, **one} for one in _instances(pictures[of], numbers)]
        told = tell(pictures[of])
        captions += [{"image_id": index, "caption": one.text, "detail": one.detail} for one in told]
    for some_of_it in (instances, captions):
        for number, annotation in enumerate(some_of_it, 1):
            annotation["id"] = number
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    document = {"images": images, "categories": categories, "annotations": instances}
    paths = [folder / f"{name}s.json", folder / f"{name}_captions.json"]
    write_text(paths[0], json.dumps(document))
    write_text(paths[1], json.dumps({"images": images, "annotations": captions}))
    return paths


def _instances(picture: Picture, numbers: dict[str, int]) -> list[dict[str, Any]]:
    width, height = picture.world.size
    found = []
    for shape in picture.shapes:
        x0, y0, x1, y1 = shape.box
        found.append(
            {
                "category_id": numbers[shape.label],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "segmentation": {"size": [height, width], "counts": shape.mask.decode()},
                "caption": phrase(shape),
            }
        )
    for word in picture.words:
        x0, y0, x1, y1 = quad_box(word.quad)
        found.append({"bbox": [x0, y0, x1 - x0, y1 - y0], "utf8_string": word.text})
    return found


def engine(arguments: Sequence[str], log: Path) -> None:
    """Runs the engine's command; what it says is added to `log`. SystemExit if it fails."""
    paths = [str(ROOT), str(PLUGIN), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with open(log, "a") as file:
        file.write(f"$ engine {' '.join(arguments)}\n")
        file.flush()
        code = subprocess.run([*ENGINE, *arguments], stdout=file, stderr=subprocess.STDOUT, env=environment).returncode
    if code:
        raise SystemExit(f"engine {' '.join(arguments)} ended with {code}; see {log}")

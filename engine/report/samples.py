"""Sample answers of a model while it was trained: pictures with the answers drawn over them, and their texts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ImageError
from engine.files import is_file, opened
from engine.images import HEAD_BYTES, decode, format_of
from engine.report.shapes import Frame, data_uri, jpeg

MOST_BYTES = 20_000_000  # of a picture, or of the list of them
MOST_PIXELS = 20_000_000
WIDEST, HIGHEST = 800, 1600  # pixels on the page: tags stay readable
MOST_ANSWERS = 20  # of a picture
LONGEST_ANSWER = 400  # characters
PLACES = re.compile(r"((?:<(?:loc_\d{1,4}|sep|/?poly)>)+)")


@dataclass(frozen=True)
class Said:
    """An answer. Every other one of `pieces`, from the second on, is location tokens alone."""

    task: str
    pieces: tuple[str, ...]
    length: int  # of the whole text

    @property
    def cut(self) -> bool:
        return self.length > LONGEST_ANSWER


@dataclass(frozen=True)
class Sample:
    """`picture` is a data: URI, or None and `fault` says why."""

    picture: str | None
    width: int
    height: int
    fault: str
    item: str
    step: int | None
    said: tuple[Said, ...]


def read_samples(folder: Path, most: int) -> list[Sample]:
    """The first `most` samples that `folder` lists; none if it lists nothing that can be read."""
    path = folder / "samples.json"
    try:
        listed = json.loads(_bounded(path))
    except (OSError, ValueError, RecursionError):
        return []
    return [_sample(folder, one) for one in listed[:most] if isinstance(one, dict)] if isinstance(listed, list) else []


def _sample(folder: Path, listed: dict[str, Any]) -> Sample:
    picture, size, fault = None, (0, 0), ""
    try:
        picture, size = _picture(folder, str(listed.get("picture")))
    except (OSError, ValueError) as error:
        fault = str(error)
    said, step = listed.get("said"), listed.get("step")
    return Sample(
        picture=picture,
        width=size[0],
        height=size[1],
        fault=fault,
        item=str(listed.get("item", "")),
        step=step if type(step) is int and 0 <= step < 10**12 else None,
        said=tuple(_said(said)) if isinstance(said, dict) else (),
    )


def _said(said: dict[str, Any]) -> Iterator[Said]:
    for task, text in list(said.items())[:MOST_ANSWERS]:
        if isinstance(text, str):
            yield Said(task, tuple(PLACES.split(text[:LONGEST_ANSWER])), len(text))


def _picture(folder: Path, name: str) -> tuple[str, tuple[int, int]]:
    """The JPEG anew and no larger than the page shows it, with its size there. OSError or ValueError if it is none."""
    if not re.fullmatch(r"[0-9]{1,9}\.jpg", name):
        raise ValueError("its name is none that a training gives")
    data = _bounded(folder / name)
    if format_of(data[:HEAD_BYTES]) != "JPEG":
        raise ValueError("it is no JPEG")
    try:
        image = decode(data, max_pixels=MOST_PIXELS)
    except ImageError as error:
        raise ValueError(error.message) from error
    height, width = image.shape[:2]
    scale = min(WIDEST / width, HIGHEST / height, 1)
    frame = Frame(max(round(width * scale), 1), max(round(height * scale), 1), width, height)
    return data_uri(jpeg(image, frame)), (frame.width, frame.height)


def _bounded(path: Path) -> bytes:
    if not is_file(str(path)):
        raise FileNotFoundError("it is gone")
    with opened(str(path)) as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES} bytes")
    return data

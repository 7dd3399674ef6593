"""Open Images has masks in files, each beside the box that it is of: which box that is, and where the file is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TypeGuard

from engine.entry import Given, GivenRegion

SAME_BOX = 0.0005  # of the side: half a pixel of the 1024 that most images have


def with_masks(given: Sequence[Given]) -> list[Given]:
    """The regions with the masks that are of their boxes; a mask of no box that is there stays a region of its own."""
    arranged = [one for one in given if not _is_mask(one)]
    for mask in filter(_is_mask, given):
        boxes = ((n, one) for n, one in enumerate(arranged) if isinstance(one, GivenRegion) and _is_of(mask, one))
        number, box = next(boxes, (len(arranged), mask))
        file = _beside(mask.segmentation) if isinstance(mask.segmentation, Path) else mask.segmentation
        arranged[number : number + 1] = [replace(box, segmentation=file)]
    return arranged


def _is_mask(given: Given) -> TypeGuard[GivenRegion]:
    return isinstance(given, GivenRegion) and given.segmentation is not None


def _is_of(mask: GivenRegion, region: GivenRegion) -> bool:
    same = all(abs(a - b) <= SAME_BOX for a, b in zip(mask.box, region.box, strict=True))
    return same and region.label == mask.label and region.segmentation is None


def _beside(mask: Path) -> Path:
    """Where a mask's file is: in the folder of its list, or in one that lies in that, as the archives have them."""
    try:
        folders = _inside(mask.parent, mask.parent.stat().st_mtime_ns)
    except OSError:
        return mask
    return next((folder / mask.name for folder in folders if (folder / mask.name).is_file()), mask)


@lru_cache(maxsize=8)
def _inside(folder: Path, modified: int) -> list[Path]:
    return [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]

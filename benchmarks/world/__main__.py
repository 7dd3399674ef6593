"""Writes pictures of the world as an image set, with annotations in COCO's format.

python -m benchmarks.world --to DIR --images N --seed S [--preset easy|full|other] [--size PX]
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
if Path(sys.path[0]).resolve() == HERE:  # run as `python benchmarks/world`
    sys.path[0] = str(HERE.parents[1])

from benchmarks.world.picture import PRESETS
from benchmarks.world.writing import write_images


def main() -> None:
    arguments = argparse.ArgumentParser(
        prog="world", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--to", type=Path, required=True, metavar="DIR")
    arguments.add_argument("--images", type=int, default=1000)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--preset", choices=tuple(PRESETS), default="full")
    arguments.add_argument("--size", type=int, default=128, help="of both sides, in px")
    given = arguments.parse_args()
    world = replace(PRESETS[given.preset], size=(given.size, given.size))
    write_images(given.to, world, given.seed, given.images)
    print(f"{given.images} images in {given.to}; to annotate them:")
    print(f"engine run --images {given.to / 'instances.json'} --images {given.to / 'captions.json'}")


if __name__ == "__main__":
    main()

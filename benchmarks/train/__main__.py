"""A small model from nothing, on the world's truth: a learning curve. A training step of ours beside transformers'.

    python benchmarks/train [--minutes 30] [--scenes 20000] [--preset full|easy] [--size 96] [--out DIR]
                            [--part curve step] [--config benchmarks/train.yaml] [--set KEY.PATH=VALUE]

curve  `engine run --stage train` in a process of its own, for so many minutes from its start; each checkpoint and the
       model that it ends with then answer about scenes of another seed. A probe of 30 steps says how many steps fit.
step   A step of ours and one of transformers' in turns, on the same images, rows and weights.

Results are printed, and written to DIR/train.json. Threads sleep while they wait for each other
(OMP_WAIT_POLICY=passive), unless that variable is set; see benchmarks/florence2.py.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
if Path(sys.path[0]).resolve() == HERE:  # run as `python benchmarks/train`
    sys.path[0] = str(HERE.parents[1])
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is loaded, here and in the stage

from benchmarks.florence2 import machine
from benchmarks.train.curve import Course, curve, table
from benchmarks.train.step import step
from benchmarks.world import PRESETS
from engine.atomic import write_json
from engine.config import load_config

PACKAGES = ("torch", "transformers", "ray", "numpy", "pillow", "pycocotools")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", nargs="+", choices=("curve", "step"), default=["curve", "step"])
    parser.add_argument("--minutes", type=float, default=30, help="of the stage, from its start")
    parser.add_argument("--scenes", type=int, default=20_000, help="that are learned from")
    parser.add_argument("--held-out", type=int, default=300, help="scenes by which a model is measured")
    parser.add_argument("--preset", choices=("full", "easy"), default="full")
    parser.add_argument("--size", type=int, default=96, help="of both sides of a scene, in px")
    parser.add_argument("--out", type=Path, default=Path("out/train"), metavar="DIR", help="a new or empty folder")
    parser.add_argument("--config", type=Path, default=HERE.with_suffix(".yaml"), help="how to train")
    parser.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE", help="over the configuration")
    parser.add_argument("--repeats", type=int, default=12, help="steps of each in part step")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="in part step")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    root = given.out.absolute()
    if root.exists() and any(root.iterdir()):
        raise SystemExit(f"{root} is not empty: name another --out")
    root.mkdir(parents=True, exist_ok=True)
    world = replace(PRESETS[given.preset], size=(given.size, given.size))
    config = load_config(given.config, given.set)
    print(machine(), flush=True)
    found: dict[str, Any] = {
        "machine": machine(),
        "versions": {package: version(package) for package in PACKAGES},
        "world": asdict(world),
        "asked": {name: str(value) for name, value in vars(given).items()},
    }
    if "curve" in given.part:
        found["curve"] = curve(Course(root, world, config, given.scenes, given.held_out, given.minutes))
        print(f"\n{table(found['curve'])}", flush=True)
        write_json(root / "train.json", found)  # half an hour's work
    if "step" in given.part:
        found["step"] = step(world, config, root / "step", given.threads, given.repeats)
    write_json(root / "train.json", found)
    print(f"\nIn {root / 'train.json'}")


if __name__ == "__main__":
    main()

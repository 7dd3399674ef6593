"""The start of the models that are refined: trained on another world's truth, as the paper starts from UniCL and BART.

python -m benchmarks.refinement.start --minutes 70 --to benchmarks/refinement/start
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from benchmarks.refinement.worlds import THERE
from benchmarks.train.curve import Course, curve, table
from engine.config import load_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--scenes", type=int, default=30_000)
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--work", type=Path, default=Path("out/start"), help="a new or empty folder")
    parser.add_argument("--to", type=Path, default=Path(__file__).with_name("start"))
    given = parser.parse_args()
    config = load_config(Path(__file__).with_name("start.yaml"))
    course = Course(given.work.absolute(), THERE, config, given.scenes, given.held_out, given.minutes)
    result = curve(course)
    print(table(result))
    (course.root / "curve.json").write_text(json.dumps(result, indent=1, default=str))
    model = course.output.round(0).model()
    given.to.mkdir(parents=True, exist_ok=True)
    for path in sorted(model.iterdir()):
        if path.is_file():
            shutil.copy(path, given.to / path.name)
    print(f"{sum(path.stat().st_size for path in given.to.iterdir()) / 1e6:.1f} MB in {given.to}")


if __name__ == "__main__":
    main()

"""What the engine costs by rows, workers and nodes, without any model; and what 126 million rows cost it.

    python -m benchmarks.scale --rows 1000 10000 100000 --parts annotate resume read
    python -m benchmarks.scale --parts workers nodes --repeats 2
    python -m benchmarks.scale --parts simulate

Figures are added to `--to` (JSON); at the end all that are there are told as tables, and drawn. `resume` and `read`
also ingest and annotate what they need. Two cores are busy meanwhile, and so should nothing else be: each figure comes
with the machine's load before it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.scale.parts import Row, by_rows, kept, nodes, workers
from benchmarks.scale.simulate import PARTITIONS, simulated
from benchmarks.scale.telling import plot, told

PARTS = ("annotate", "resume", "read", "workers", "nodes", "simulate")


def rows_of(given: argparse.Namespace, folder: Path) -> Iterator[Row]:
    parts = frozenset(given.parts)
    if parts & {"annotate", "resume", "read"}:
        for rows in given.rows:
            yield from by_rows(folder / f"rows-{rows}", rows, parts)
    if "workers" in parts:
        yield from workers(folder, given.paced, given.repeats)
    if "nodes" in parts:
        yield from nodes(folder, given.paced, given.repeats)
    if "simulate" in parts:
        yield from simulated(folder / "simulated", given.partitions)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["annotate", "resume", "read"])
    parser.add_argument("--rows", nargs="+", type=int, default=[1_000, 10_000, 100_000])
    parser.add_argument("--paced", type=int, default=1500, help="rows where workers and nodes are compared")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--partitions", type=int, default=PARTITIONS, help="of a million rows, that are simulated")
    parser.add_argument("--to", type=Path, default=Path("scale.json"))
    parser.add_argument("--plot", type=Path, help="an SVG of what is in --to")
    given = parser.parse_args(words)
    figures = kept(given.to)
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        for row in rows_of(given, Path(folder)):
            print(json.dumps(row), flush=True)
            figures.append(row)
            given.to.write_text(json.dumps(figures, indent=1) + "\n")
    print(told(figures))
    if given.plot:
        plot(figures, given.plot)


if __name__ == "__main__":
    main()

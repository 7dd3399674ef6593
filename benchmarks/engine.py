"""How much of the specialists' own speed `engine run` keeps, what it costs in memory, and how long it takes to start.

    python benchmarks/engine.py [--photos 300]

The engine's images a second, from its first worker being ready to its last image, against the same specialists in a
bare loop that reads, decodes and annotates and does nothing else: two processes with one thread each, and one process
with two threads; the better one counts. Bare runs come before and after the engine's, because machines drift.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

if Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    del sys.path[0]  # this folder, where this file would hide the package

import psutil
from PIL import Image

from engine.config import load_config
from engine.images import decode
from engine.protocols import Sample
from engine.reading import read
from engine.records import Item, Record
from pipelines.build import EMBEDDED, Pipeline, build_pipeline
from pipelines.samples import sample_photos


def make_photos(folder: Path, count: int) -> list[str]:
    """`count` pictures: the sample photos, each time cropped and scaled differently. The same ones every time."""
    dice = random.Random(0)
    sources = [Image.open(path).convert("RGB") for path in sample_photos()]
    for n in range(count):
        source = sources[n % len(sources)]
        width, height = (round(side * dice.uniform(0.6, 1.0)) for side in source.size)
        x, y = dice.randint(0, source.width - width), dice.randint(0, source.height - height)
        scale = dice.uniform(0.7, 1.4)
        crop = source.crop((x, y, x + width, y + height)).resize((round(width * scale), round(height * scale)))
        crop.save(folder / f"{n:04d}.jpg", quality=90)
    return sorted(str(path) for path in folder.iterdir())


def embedded() -> Pipeline:
    """The embedded pipeline with its weights loaded."""
    made = build_pipeline(load_config(EMBEDDED))
    for specialist in made.specialists:
        specialist.setup()
    return made


def bare(paths: list[str], threads: int, start: Any, results: Any) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    made = embedded()
    _annotate(paths[0], made)  # models load lazily; that is start-up
    start.wait()
    begin = time.perf_counter()
    for path in paths:
        _annotate(path, made)
    results.put((begin, time.perf_counter()))


def _annotate(path: str, made: Pipeline) -> None:
    """All specialists, one after the other; the filters only say what stands for those who ask."""
    image = decode(read(path, max_bytes=10**9), max_pixels=10**9)
    record = Record(Item(Item.id_of(path), path, width=image.shape[1], height=image.shape[0]))
    for specialist in made.specialists:
        (annotations,) = specialist.annotate([Sample(image, record, made.filters)])
        record = record.append(annotations)


def bare_speed(paths: list[str], processes: int, threads: int) -> float:
    """Images a second of `processes` that share the photos, from the first one's start to the last one's end."""
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(processes), context.Queue()
    workers = [
        context.Process(target=bare, args=(paths[n::processes], threads, start, results)) for n in range(processes)
    ]
    for worker in workers:
        worker.start()
    spans = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    return len(paths) / (max(end for _, end in spans) - min(begin for begin, _ in spans))


def engine_run(folder: Path, out: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """What the run says of itself, and its peak memory in MB (proportional set size: shared pages count once)."""
    engine = str(Path(sys.executable).parent / "engine")
    process = subprocess.Popen([engine, "run", "--images", str(folder), "--out", str(out)], stdout=subprocess.DEVNULL)
    peak: dict[str, float] = {}
    watching = threading.Thread(target=_watch_memory, args=(process, peak))
    watching.start()
    if process.wait():
        raise SystemExit(f"engine run ended with {process.returncode}")
    watching.join()
    return json.loads((out / "round-0" / "summary.json").read_text())["last_run"], peak


def _watch_memory(process: subprocess.Popen[bytes], peak: dict[str, float]) -> None:
    while process.poll() is None:
        sizes = {"driver": 0.0, "workers": 0.0, "ray": 0.0}
        try:
            everyone = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            for one in everyone:
                worker = "ray::Worker" in "".join(one.cmdline())
                kind = "driver" if one.pid == process.pid else "workers" if worker else "ray"
                sizes[kind] += one.memory_full_info().pss / 1e6
        except psutil.Error:
            pass  # it ended while we looked
        sizes["all"] = sum(sizes.values())
        for kind, size in sizes.items():
            peak[kind] = max(peak.get(kind, 0.0), size)
        time.sleep(5)  # looking costs 30 ms of a core


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=300)
    count = parser.parse_args().photos
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "photos"
        folder.mkdir()
        paths = make_photos(folder, count)
        print(f"{count} photos, {os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}", flush=True)
        one = bare_speed(paths[: count // 3], 1, 2)
        print(f"bare, 1 process x 2 threads ({count // 3} photos)  {one:6.3f} images/s", flush=True)
        before = bare_speed(paths, 2, 1)
        print(f"bare, 2 processes x 1 thread, before      {before:6.3f} images/s", flush=True)
        run, peak = engine_run(folder, Path(temporary) / "out")
        print(f"engine run                                {run['images_per_second']:6.3f} images/s", flush=True)
        after = bare_speed(paths, 2, 1)
        print(f"bare, 2 processes x 1 thread, after       {after:6.3f} images/s", flush=True)
        best = max((before + after) / 2, one)
        print(f"ratio engine / better bare loop           {run['images_per_second'] / best:6.3f}")
        print(f"seconds from the start of annotate to     {run['seconds_to']}")
        print(f"worker seconds                            {run['worker_seconds']}")
        print(f"peak memory, MB                           { {kind: round(size) for kind, size in peak.items()} }")


if __name__ == "__main__":
    main()

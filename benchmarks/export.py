"""Annotations a second and memory of each export format, beside pyarrow reading the same Parquet files.

    python benchmarks/export.py [--annotations 1000000] [--formats parquet coco ...]

The set is the embedded pipeline's, over the sample photos, repeated under other ids until so many annotations stand;
its images are small JPEG files. Each format runs in a process of its own: three times in turn pyarrow reads the columns
that the format needs, and does nothing with them, the images' files are read if the format looks into them, and the
format is exported; the best of each counts. Peak memory is the process's with all that it starts (Ray counts pages that
are shared more than once).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

if Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    del sys.path[0]  # this folder, where this file would hide the package

import numpy as np
import psutil
import pyarrow as pa
from PIL import Image

from engine.atomic import write_json
from engine.layout import Output, ShardId
from engine.records import digest16
from engine.storage import read_shard, read_table, write_table

SHARD = 1024
FORMATS = ("parquet", "coco", "yolo", "webdataset", "hf", "llava", "florence")
ONCE = ("florence",)  # whose minutes are not spent three times
ENGINE = str(Path(sys.executable).parent / "engine")


def annotated(folder: Path) -> Output:
    """The sample photos through the embedded pipeline."""
    out = folder / "once"
    subprocess.run(
        [ENGINE, "run", "--out", str(out), "--set", "ingest.shard_size=100"], check=True, capture_output=True
    )
    return Output(out)


def repeated(once: Output, out: Output, annotations: int, folder: Path) -> int:
    """Writes the set; returns how many annotations stand in it."""
    shard = ShardId(0, 0)
    source = {
        "items": read_table(once.items(shard)),
        "annotations": read_table(once.round(0).annotations(shard)),
        "decisions": read_table(once.round(0).decisions(shard)),
    }
    summary = json.loads(once.round(0).summary.read_text())
    stand = sum(kind["standing"] for kinds in summary["annotations"].values() for kind in kinds.values())
    readable = np.flatnonzero(source["items"]["error"].is_null().to_numpy())
    images = -(-annotations * len(readable) // stand)
    shards = -(-images // SHARD)
    picture = Image.open(source["items"]["uri"][int(readable[0])].as_py()).convert("RGB").resize((96, 96))
    for number in range(shards):
        count = min(SHARD, images - number * SHARD)
        rows = pa.array(readable[np.arange(count) % len(readable)])
        names = [folder / "photos" / f"{number:04d}" / f"{n:04d}.jpg" for n in range(count)]
        names[0].parent.mkdir(parents=True)
        contents = []
        for n, name in enumerate(names):
            picture.putpixel((0, 0), (n % 256, n // 256, number % 256))
            picture.save(name, quality=70)
            contents.append(digest16(name.read_bytes()))
        ids = pa.array([digest16(str(name).encode()) for name in names], pa.binary(16))
        items = source["items"].take(rows)
        for column, values in {
            "item_id": ids,
            "uri": pa.array(list(map(str, names))),
            "content_id": pa.array(contents, pa.binary(16)),
        }.items():
            items = items.set_column(items.column_names.index(column), items.schema.field(column), values)
        write_table(out.items(ShardId(0, number)), items, "benchmark")
        for name, layer in (("annotations", out.round(0).annotations), ("decisions", out.round(0).decisions)):
            table = source[name].take(rows)
            field = table.schema.field("item_id")
            write_table(layer(ShardId(0, number)), table.set_column(0, field, ids), "benchmark")
    manifest = json.loads(once.manifest.read_text())
    partition = {"items": images, "shard_size": SHARD, "shards": shards}
    write_json(out.manifest, {**manifest, "items": images, "partitions": [partition]})
    for name in ("sources.json", "near_duplicates.parquet"):
        shutil.copy(once.round(0).folder / name, out.round(0).folder / name)
    shutil.copy(once.config, out.config)
    (out.root / ".engine-lock").touch()
    return stand * images // len(readable)


def measured(out: Path, name: str, to: Path) -> dict[str, float]:
    """Seconds of reading, of the images alone, and of exporting; annotations that left, and megabytes."""
    from engine.config import load_config
    from engine.export import export
    from pipelines.exporting import asked_of

    config = load_config(Output(out).config, [f"export.format={name}", f"export.to={to}"])
    asked = asked_of(Output(out), 0, config)
    files = [] if asked.how == "refer" else [item.uri for item in asked.dataset.items()]
    reading, opening, exporting, summary = [], [], [], {}
    for _ in range(1 if name in ONCE else 3):
        start = time.perf_counter()
        for shard in asked.dataset.shards():
            read_shard(asked.dataset.output, 0, shard, columns=asked.selection.columns)
        reading.append(time.perf_counter() - start)
        start = time.perf_counter()
        for file in files:
            with open(file, "rb") as image:
                image.read()
        opening.append(time.perf_counter() - start)
        shutil.rmtree(to, ignore_errors=True)
        start = time.perf_counter()
        summary = export(asked, config.run, lambda done: None)
        exporting.append(time.perf_counter() - start)
    size = sum(path.stat().st_size for path in to.rglob("*") if path.is_file() and not path.is_symlink())
    left = sum(count for counts in summary["splits"].values() for what, count in counts.items() if what != "images")
    seconds = {"reading": min(reading), "images": min(opening), "exporting": min(exporting)}
    return {**seconds, "annotations": left, "megabytes": size / 1e6}


def peak_of(process: subprocess.Popen[str]) -> float:
    """Megabytes that a process and all it starts have together at most, looked at 10 times a second."""
    peak, family = 0, psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in (family, *family.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    total += one.memory_info().rss
        peak = max(peak, total)
        time.sleep(0.1)
    return peak / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--annotations", type=int, default=1_000_000)
    parser.add_argument("--formats", nargs="+", default=FORMATS, choices=FORMATS)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        out, name, to = arguments.one
        print(json.dumps(measured(Path(out), name, Path(to))))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        standing = repeated(annotated(root), Output(root / "out"), arguments.annotations, root)
        print(f"{standing:,} annotations stand. Seconds; times the reading (and the images'); a second; memory")
        for name in arguments.formats:
            command = [sys.executable, __file__, "--one", str(root / "out"), name, str(root / name)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            peak = peak_of(process)
            found = json.loads((process.communicate()[0] or "").splitlines()[-1])
            seconds, reading = found["exporting"], found["reading"]
            both = seconds / (reading + found["images"])
            print(
                f"{name:>11}: read {reading:5.2f} s, images {found['images']:5.2f} s, exported {seconds:7.2f} s, "
                f"{seconds / reading:6.1f} x ({both:5.1f} x), {found['annotations'] / seconds:10,.0f}/s, "
                f"{peak:6,.0f} MB, {found['megabytes']:7,.0f} MB written",
                flush=True,
            )
            shutil.rmtree(root / name)


if __name__ == "__main__":
    main()

"""Sets in every format that is read, a little damaged: images in = rows out, or an error that says which file it is.

Never a traceback, and never for long.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exporting import asked, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import deadline
from mutations import mutated, mutated_json
from taught import taught

from engine.config import Ingest
from engine.errors import ConfigError
from engine.export.coco import Coco
from engine.export.hf import HuggingFace
from engine.export.llava import Llava
from engine.export.parquet import Parquet
from engine.export.webdataset import WebDataset
from engine.export.yolo import Yolo
from engine.ingest import ingest
from engine.layout import Output
from engine.listing import Listing
from engine.storage import read_faults, read_given, read_items
from engine.untrusted import plain
from pipelines.florence_format import FlorenceFormat

SECONDS = 20  # for a handful of images
FORMATS = (Coco(), HuggingFace(), Llava(), Parquet(), WebDataset(), Yolo(), FlorenceFormat())
OURS = [format_.name for format_ in FORMATS]
JSON = (".json", ".jsonl")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small set in each format."""
    output, to = taught(tmp_path_factory.mktemp("set")), tmp_path_factory.mktemp("sets")
    for format_ in FORMATS:
        how = "inside" if "inside" in format_.how else "copy"
        run(asked(output, format_, to / format_.name, how=how))  # type: ignore[arg-type]
    others(to, next((to / "coco").rglob("*.png")).read_bytes())
    return to


def others(to: Path, image: bytes) -> None:
    """Formats that nobody exports, of two images."""
    for name in ("open_images", "narratives", "manifest", "saved", "list"):
        (to / name).mkdir()
        (to / name / "a.png").write_bytes(image)
        (to / name / "b.png").write_bytes(image + b"\0")
    (to / "open_images/boxes.csv").write_text(
        "ImageID,LabelName,XMin,YMin,XMax,YMax,IsGroupOf\na,/m/01,0.1,0.1,0.5,0.5,0\nb,/m/02,0.2,0.2,0.9,0.9,1\n"
    )
    (to / "open_images/classes.csv").write_text('/m/01,Cat\n/m/02,"Dog, or so"\n')
    line = json.dumps({"dataset_id": "x", "image_id": "a", "caption": "A cat.", "timed_caption": []})
    (to / "narratives/n.jsonl").write_text(f"{line}\n{line.replace('cat', 'dog')}\n")
    rows = {"bytes": [image, None], "uri": ["c.png", "a.png"], "labels": [["cat"], []], "caption": ["A cat.", None]}
    pq.write_table(pa.table(rows), to / "manifest/m.parquet")
    table = pa.table({"image": [{"bytes": image, "path": "a.png"}, {"bytes": None, "path": "b.png"}], "label": [0, 1]})
    with pa.OSFile(str(to / "saved/data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    (to / "saved/dataset_info.json").write_text(json.dumps({"features": features, "dataset_name": "pets"}))
    (to / "saved/state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    (to / "list/l.txt").write_text("a.png\nb.png\nfile:///x/c.png\n")


INPUTS = {"open_images": ["boxes.csv", "classes.csv"], "narratives": ["n.jsonl"], "manifest": ["m.parquet"]}
INPUTS |= {"list": ["l.txt"]}


def taken(paths: list[str], out: Path) -> None:
    """Ingests; what the paths list are the rows, and all of it can be read again."""
    output = Output(out)
    try:
        ingest(output, Ingest(images=tuple(paths), max_pixels=10_000_000), "d", lambda done: None)
    except ConfigError as error:
        assert any(Path(path).name in str(error) for path in paths), str(error)
        plain(str(error)).encode()
        return
    rows = [item.uri for shard in output.shards() for item in read_items(output, shard)]
    assert rows == [entry.uri for entry in Listing(paths)]
    for shard in output.shards():
        if output.given(shard).exists():
            read_given(output, shard), list(read_faults(output, shard))


@pytest.mark.parametrize("name", [*OURS, *INPUTS, "saved"])
@given(data=st.data())
@settings(deadline=None, max_examples=4, suppress_health_check=list(HealthCheck))
def test_a_damaged_set(sets: Path, name: str, data: st.DataObject) -> None:
    with TemporaryDirectory() as folder, deadline(SECONDS):
        there = Path(folder, name)
        shutil.copytree(sets / name, there)
        files = sorted(path for path in there.rglob("*") if path.is_file())
        told = [path for path in files if path.suffix not in (".png", ".jpg", ".webp", ".md")] or files
        path = data.draw(st.sampled_from(told))
        content = path.read_bytes()
        if path.suffix in JSON and data.draw(st.booleans()):
            content = data.draw(mutated_json(content))
        else:
            content = data.draw(mutated(content))
        path.write_bytes(content)
        taken([str(there / one) for one in INPUTS.get(name, [""])], Path(folder, "out"))


@pytest.mark.parametrize("name", [1.5, ["pets"], {"a": 1}, True, "\ud800", ""])
def test_what_a_saved_dataset_calls_itself(sets: Path, tmp_path: Path, name: object) -> None:
    there = shutil.copytree(sets / "saved", tmp_path / "saved")
    told = json.loads((there / "dataset_info.json").read_bytes())
    (there / "dataset_info.json").write_text(json.dumps(told | {"dataset_name": name, "license": name}))
    taken([str(there)], tmp_path / "out")

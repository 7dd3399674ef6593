"""A COCO set, a WebDataset and a URL list in one run: what comes along with images is grounded and filtered, too."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from command import ENGINE, run
from PIL import Image

from engine import open_dataset
from engine.records import Record


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Iterator[str]:
    """A server on loopback with one photo."""
    folder = tmp_path_factory.mktemp("web")
    shutil.copy(photos / "coffee.png", folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def coco(folder: Path, photos: Path) -> Path:
    """Two photos and one that is missing; a cat's box, one that is partly and one that is wholly outside."""
    shutil.copy(photos / "chelsea.png", folder)
    shutil.copy(photos / "rocket.jpg", folder)
    images = [
        {"id": 1, "file_name": "chelsea.png", "width": 451, "height": 300},
        {"id": 2, "file_name": "rocket.jpg", "width": 640, "height": 427},
        {"id": 3, "file_name": "gone.jpg", "width": 8, "height": 8},
    ]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 7, "bbox": [0, 0, 451, 300], "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 8, "bbox": [310, 150, 30, 900], "iscrowd": 0},
        {"id": 3, "image_id": 2, "category_id": 8, "bbox": [9000, 0, 5, 5], "iscrowd": 0},
        {"id": 4, "image_id": 1, "caption": "A striped cat looks at something."},
        {"id": 5, "image_id": 2, "caption": "x"},  # too short for any filter, and a person's all the same
    ]
    categories = [{"id": 7, "name": "cat"}, {"id": 8, "name": "rocket"}]
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def webdataset(folder: Path, photos: Path) -> Path:
    """Three photos with alt-texts: English, German, and cut off."""
    path = folder / "web.tar"
    with tarfile.open(path, "w") as archive:
        for key, name, text in [
            ("1", "motorcycle_left.png", "A red motorcycle in a garage. <script>alert(1)</script>"),
            ("2", "motorcycle_right.png", "Ein altes Motorrad steht in einer Werkstatt neben der Wand."),
            ("3", "astronaut.png", "An astronaut."),
        ]:
            data = io.BytesIO()
            Image.open(photos / name).convert("RGB").resize((320, 240)).save(data, "PNG")
            for suffix, content in (("txt", text.encode()), ("png", data.getvalue())):
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    path.write_bytes(path.read_bytes()[:-30_000])
    return path


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory, photos: Path, web: str) -> dict[str, Record]:
    """By the end of the uri. Not to be written to."""
    folder = tmp_path_factory.mktemp("sources")
    urls = folder / "list.tsv"
    urls.write_text(f"url\tcaption\n{web}/coffee.png\tA cup of coffee on a wooden table.\n{web}/none.png\tNothing.\n")
    paths = [coco(folder, photos), webdataset(folder, photos), urls]
    images = [word for path in paths for word in ("--images", str(path))]
    settings = ["ingest.http.private_addresses=true", "specialists.ocr=null", "specialists.segmenter=null"]
    sets = [word for setting in (*settings, "run.max_quarantined=1") for word in ("--set", setting)]
    done = run(ENGINE, "run", "--out", str(folder / "out"), *images, *sets)
    assert done.returncode == 0, done.stdout
    assert "9 images, 4 quarantined" in done.stdout
    done = run(ENGINE, "report", str(folder / "out"))
    assert done.returncode == 0, done.stdout
    made = list(open_dataset(folder / "out").records())
    return {record.item.uri.rpartition("/")[2]: record for record in made}


def phrases(record: Record, source: str) -> dict[str, list[str]]:
    """What the standing phrases of the texts of `source` name: labels and who says so."""
    texts = {text.id: text.text for text in record.standing.texts if text.source == source}
    regions = {region.id: f"{region.label} {region.source}" for region in record.regions}
    found = [t for t in record.standing.triplets if t.text_id in texts]
    return {texts[t.text_id][t.start : t.stop]: [regions[id_] for id_ in t.region_ids] for t in found}


def test_every_input_is_a_row(records: dict[str, Record]) -> None:
    errors = {name: record.error.kind for name, record in records.items() if record.error}
    assert errors == {
        "gone.jpg": "missing",
        "web.tar#3.png": "truncated",
        "web.tar#": "truncated",
        "none.png": "http_404",
    }
    assert set(records) - set(errors) == {"chelsea.png", "rocket.jpg", "web.tar#1.png", "web.tar#2.png", "coffee.png"}


def test_human_regions_and_captions_stand_and_are_grounded(records: dict[str, Record]) -> None:
    cat = records["chelsea.png"]
    assert phrases(cat, "human") == {"A striped cat": ["cat human"]}
    # The detector takes the cat for a person.
    assert "human_label" in {d.reason for d in cat.decisions if d.by == "human_first"}
    assert [region.source for region in cat.standing.regions if region.kind == "object"] == ["human"]
    rocket = records["rocket.jpg"]
    assert [region.box for region in rocket.standing.regions if region.source == "human"] == [(310, 150, 340, 427)]
    kept = {(d.action, d.by) for d in rocket.decisions if d.annotation_id == "0.human.1"}
    assert ("keep", "length") in kept
    assert [text.text for text in rocket.standing.texts if text.source == "human"] == ["x"]


def test_alt_texts_are_filtered_and_grounded(records: dict[str, Record]) -> None:
    assert phrases(records["coffee.png"], "alt") == {"A cup of coffee on a wooden table": ["cup detector"]}
    assert phrases(records["web.tar#1.png"], "alt")["A red motorcycle in a garage"] == ["motorcycle detector"]
    german = records["web.tar#2.png"]
    assert not phrases(german, "alt")
    assert {d.reason for d in german.decisions if d.by == "language"} == {"foreign_language"}


def test_the_report_lists_what_could_not_be_taken(records: dict[str, Record]) -> None:
    out = Path(records["chelsea.png"].item.uri).parent / "out"
    page = (out / "report" / "index.html").read_text()
    assert "its box lies 623 px outside the image; it was clipped" in page
    assert "lies outside the 640 x 427 image; it was left out" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    manifest = json.loads((out / "images" / "manifest.json").read_text())
    assert manifest["given"] == {"alt texts": 3, "human regions": 2, "human texts": 2}
    assert manifest["faults"] == {"box_clipped": 1, "box_outside": 1, "unread_image": 2}  # two texts

"""The paper's engine: checked without weights as it is, and run to its end on tiny checkpoints."""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from pathlib import Path

import pytest
import torch
import yaml
from command import Call, command, files, run
from PIL import Image
from tiny.fld import checkpoints

from engine import open_dataset
from engine.config import load_config
from pipelines.build import build_pipeline

PIPELINES = Path(__file__).parents[2] / "pipelines"
TINY = Path(__file__).with_name("fld-tiny.yaml")
SIZES = ((220, 180), (90, 240), (180, 160), (48, 48))
ROLES = {
    "ocr": {"text"},
    "detector": {"object", "proposal"},
    "open_detector": {"object", "proposal"},
    "captioner": {"text", "region_text"},
    "annotator": {"text"},
    "aggregator": {"text"},
    "parser": {"parse"},
    "grounder": {"triplet", "proposal"},
    "segmenter": {"mask"},
    "contrastive": {"region_text"},
}
OPINIONS = {
    "captioner": {"verified"},  # of the objects that stand; nobody has written a text by then
    "grounder": {"grounded"},
    "segmenter": {"stability"},
    "contrastive": {"similarity"},
    "text_contrastive": {"similarity"},
    "verifier": {"verified", "verified_blank"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photos: Path, one_thread: None) -> Path:
    """Tiny checkpoints, and images of several shapes."""
    made = checkpoints(tmp_path_factory.mktemp("fld"))
    (made / "images").mkdir()
    for n, (width, height) in enumerate(SIZES):
        photo = Image.open(photos / ("page.png", "coffee.png")[n % 2]).convert("RGB")
        photo.crop((20 * n, 30 * n, 20 * n + width, 30 * n + height)).save(made / "images" / f"{n}.png")
    (made / "images" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    return made


@pytest.fixture(scope="module")
def out(folder: Path) -> Path:
    """What a run leaves."""
    out = folder / "out"
    done = run(*command(out, "--config", str(TINY), "--images", "images"), cwd=folder)
    assert done.returncode == 1, done.stdout  # a fifth of the images is broken, more than run.max_quarantined
    assert "5 images, 1 quarantined" in done.stdout
    return out


def test_every_role_makes_what_is_its_to_make(out: Path) -> None:
    dataset = open_dataset(out)
    made, opinions = defaultdict(set), defaultdict(set)
    for record in dataset.records():
        for annotation in record.annotations():
            kind = getattr(annotation, "kind", None) or KINDS[type(annotation).__name__]
            made[annotation.source].add(kind)
        for decision in record.decisions:
            if decision.action == "keep":
                opinions[decision.by].add(decision.reason)
    assert dict(made) == ROLES
    assert dict(opinions) == OPINIONS


KINDS = {"Text": "text", "RegionText": "region_text", "Mask": "mask", "Triplet": "triplet", "Parse": "parse"}


def test_every_image_is_a_row(out: Path) -> None:
    records = list(open_dataset(out).records())
    assert len(records) == 5
    assert [record.item.uri.rpartition("/")[2] for record in records if record.error] == ["broken.jpg"]
    assert all(record.regions and record.texts for record in records if not record.error)


def test_provenance_says_which_model_and_which_prompt(out: Path, folder: Path) -> None:
    sources = json.loads((out / "round-0" / "sources.json").read_text())["sources"]
    assert sources["detector"]["parameters"]["model"] == str(folder / "tiny" / "detector")
    assert sources["detector"]["licence"] == "not stated"
    assert sources["annotator"]["parameters"]["prompt"].startswith("describe-1@")
    assert sources["captioner"]["version"] == sources["verifier"]["version"], "a Florence-2 in two roles"
    assert len({source["version"] for source in sources.values()}) == len(sources) - 2


def test_run_again_it_has_nothing_to_do_and_a_page_shows_it(out: Path, folder: Path) -> None:
    before = files(out)
    again = run(*command(out, "--config", str(TINY), "--images", "images"), cwd=folder)
    assert "nothing to do" in again.stdout
    assert files(out) == before
    page = run(*command(out, stage="report"), cwd=folder)
    assert page.returncode in (0, 1), page.stdout
    html = (out / "report" / "index.html").read_text()
    assert all(source in html for source in ROLES)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without weights, and without a net."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_the_dry_run_needs_no_weights(call: Call, offline: None, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said = call("run", "--config", "fld", "--out", str(out), "--set", "run.gpus_per_worker=0", "--dry-run")
    assert code == 0, said
    for model in ("PekingU/rtdetr_v2_r101vd", "facebook/sam2.1-hiera-large", "google/siglip2-so400m-patch14-384"):
        assert f"hf download {model}" in said
    assert "captioner, verifier: microsoft/Florence-2-large is not on this machine" in said
    assert "Nothing was run" in said
    assert "!" not in said, "no source is misspelt"
    assert not out.exists()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("specialists.detector.model=./nowhere", "./nowhere: no such folder"),
        ("specialists.captioner={use: captioner, model: Salesforce/blip2-opt-2.7b}", "accept_licence=true"),
        ("run.gpus_per_worker=64", f"this machine has {torch.cuda.device_count()} GPUs"),
        ("ingest.images=[/no/such/folder]", "/no/such/folder"),
        ("specialists.annotator.server.url=http://me:secret@host/v1", "password"),
        ("specialists.annotator.server.url=ftp://host", "specialists.annotator.server.url"),
        ("specialists.detector.min_scor=1", "specialists.detector.min_scor"),
        ("filters.agreement.iou=2", "filters.agreement.iou"),
        ("merge.chooser={use: contrastive, modell: x}", "choosers.contrastive.modell"),
        ("merge.chooser={use: contrastive, model: ./nowhere}", "merge.chooser: ./nowhere: no such folder"),
        ("train.start=./nowhere", "train.start is ./nowhere"),
    ],
)
def test_what_can_not_run_is_found_before(call: Call, offline: None, tmp_path: Path, setting: str, words: str) -> None:
    out = str(tmp_path / "out")
    code, said = call("run", "-c", "fld", "-o", out, "-s", "run.gpus_per_worker=0", "-s", setting, "--dry-run")
    assert code == 2
    assert words in said
    assert "secret" not in said
    assert not os.path.exists(out)


def test_a_folder_of_another_family_is_found_before(call: Call, offline: None, folder: Path, tmp_path: Path) -> None:
    for source, other in (("detector", "grounder"), ("grounder", "open_detector"), ("captioner", "annotator")):
        model = f"specialists.{source}.model={folder / 'tiny' / other}"
        code, said = call(
            "run", "-c", "fld", "-o", str(tmp_path), "-s", "run.gpus_per_worker=0", "-s", model, "--dry-run"
        )
        assert code == 2
        assert f"specialists.{source}: " in said
        assert "is of the family" in said
    (tmp_path / "empty").mkdir()
    model = f"specialists.detector.model={tmp_path / 'empty'}"
    code, said = call("run", "-c", "fld", "-o", str(tmp_path), "-s", "run.gpus_per_worker=0", "-s", model, "--dry-run")
    assert code == 2
    assert "is no model's folder" in said


def test_a_model_that_could_not_be_loaded_can_be_exchanged(folder: Path, tmp_path: Path) -> None:
    """Nothing was made by it."""
    broken = Path(shutil.copytree(folder / "tiny" / "detector", tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes(b"not one tensor")
    small = ("--images", "images", "--config", str(tmp_path / "one.yaml"))
    (tmp_path / "one.yaml").write_text("specialists: {detector: {use: detr}}\nrun: {workers: 1}\n")
    out = tmp_path / "out"
    failed = run(*command(out, *small, "--set", f"specialists.detector.model={broken}"), cwd=folder)
    assert failed.returncode == 3
    assert "can't be loaded" in failed.stdout
    done = run(*command(out, *small, "--set", "specialists.detector.model=tiny/detector"), cwd=folder)
    assert "5 images, 1 quarantined" in done.stdout
    sources = json.loads((out / "round-0" / "sources.json").read_text())["sources"]
    assert sources["detector"]["parameters"]["model"] == str(folder / "tiny" / "detector")


def test_a_source_that_filters_name_and_nobody_has_is_told(call: Call, offline: None, tmp_path: Path) -> None:
    settings = ("run.gpus_per_worker=0", "filters.agreement.sources=[detectr]", "filters.likelihood.by=me")
    code, said = call("run", "-c", "fld", "-o", str(tmp_path), *(w for s in settings for w in ("-s", s)), "--dry-run")
    assert code == 0
    assert "filters.agreement.sources speaks of 'detectr'" in said
    assert "filters.likelihood.by speaks of 'me'" in said


def test_the_tiny_pipeline_leaves_nothing_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    whole, tiny = (build_pipeline(load_config(path)) for path in (PIPELINES / "fld.yaml", TINY))
    assert [(s.name, type(s)) for s in whole.specialists] == [(s.name, type(s)) for s in tiny.specialists]
    assert [(f.name, type(f)) for f in whole.filters] == [(f.name, type(f)) for f in tiny.filters]


def test_every_threshold_has_its_reason() -> None:
    text = (PIPELINES / "fld.yaml").read_text()
    filters = text[text.index("\nfilters:") : text.index("\nrun:")]
    assert filters.count("#") > 20
    assert yaml.safe_load(text)["filters"]

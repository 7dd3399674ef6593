"""Configuration: every fault names its path, before anything heavy starts."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from engine.config import Config, load_config
from engine.errors import ConfigError
from engine.versions import digest_of
from pipelines.build import EMBEDDED, build_pipeline


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    return path


def test_where_training_starts_is_a_folder_a_preset_or_a_hubs_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder with a preset's name is meant by ./pico alone; what a file says is not of the current folder."""
    (tmp_path / "there" / "mine").mkdir(parents=True)
    (tmp_path / "here" / "pico").mkdir(parents=True)
    (tmp_path / "here" / "mine").mkdir()
    (tmp_path / "here" / "other").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = tmp_path / "there" / "pipeline.yaml"
    for said, start in (("pico", "pico"), ("mine", str(tmp_path / "there" / "mine")), ("other", "other")):
        path.write_text(f"train: {{start: {said}}}")
        assert load_config(path).train.start == start
        assert load_config(path, ["train.steps=5"]).train.start == start
    assert load_config(path, ["train.start=pico"]).train.start == "pico"
    assert load_config(path, ["train.start=./pico"]).train.start == str(tmp_path / "here" / "pico")
    assert load_config(path, ["train.start=mine"]).train.start == str(tmp_path / "here" / "mine")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ran: {}", ["ran: unknown key", "ingest", "specialists"]),
        ("run: {wrokers: 2}", ["run.wrokers: unknown key", "workers", "item_seconds"]),
        ("run: {workers: many}", ["1 fault", "run.workers: ", "'many'"]),
        ("ingest: {images: photos}", ["ingest.images: Input should be a list, not 'photos'"]),
        ("ingest: 3", ["ingest: Input should be a mapping, not 3"]),
        ("run: {item_seconds: -1}", ["run.item_seconds", "greater than 0", "-1"]),
        ("run: {workers: 2\n", ["not valid YAML", "line"]),
        ("run: {workers: 1}\nrun: {workers: 2}", ["'run' stands twice", "line 2"]),
        ("- a\n- b", ["must be a mapping", "list"]),
        (
            "vocabulary: {classes: {cat: {synonym: [kitty]}}}",
            ["vocabulary.classes.cat.synonym: unknown key", "synonyms"],
        ),
        ("vocabulary: {classes: {cat: {synonyms: [pet]}, dog: {synonyms: [Pet]}}}", ["cat", "dog", "pet"]),
        ("run: !!python/object/apply:os.system [echo]", ["not valid YAML"]),
        ("? [a]\n: 1", ["not valid YAML", "line 1"]),
        ("since: 2026-02-30", ["not valid YAML", "day is out of range"]),
        ("[" * 10_000, ["not valid YAML"]),
        ("run: {gpus_per_worker: 1.5}", ["run.gpus_per_worker", "whole"]),
        ("run: {cpus_per_worker: 0.00001}", ["run.cpus_per_worker"]),
        (f"ingest: {{limit: {10**30}}}", ["ingest.limit"]),
        (f"ingest: {{shard_size: {10**30}}}", ["ingest.shard_size"]),
        (f"run: {{workers: {10**30}}}", ["run.workers"]),
    ],
)
def test_faults_name_their_path(tmp_path: Path, text: str, says: list[str]) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    for words in says:
        assert words.lower() in str(caught.value).lower()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("specialists: {detector: {use: [1]}}", ["specialists.detector.use", "[1]"]),
        ("specialists: {detector: {use: yolo}}", ["specialists.detector", "'yolo'", "nanodet"]),
        ("specialists: {detector: {use: nanodet, min_scor: 0.2}}", ["specialists.detector.min_scor", "min_score"]),
        (
            "specialists: {detector: {use: nanodet, min_score: 2}}",
            ["specialists.detector.min_score", "less than or equal"],
        ),
        ("specialists: {ocr: {use: rapidocr, min_score: high}}", ["specialists.ocr.min_score", "'high'"]),
        ("filters: {score: {thresholds: {detector: {thing: 0.4}}}}", ["filters.score.thresholds.detector", "'thing'"]),
        ("filters: {nms: {iou: 0.5, kind: [object]}}", ["filters.nms.kind: unknown key", "kinds"]),
        ("specialists: {score: {use: nanodet}}\nfilters: {score: {}}", ["score", "share a name"]),
    ],
)
def test_component_faults_name_their_path(tmp_path: Path, text: str, says: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        build_pipeline(load_config(written(tmp_path, text)))
    for words in says:
        assert words in str(caught.value)


def test_set_overrides_one_value(tmp_path: Path) -> None:
    path = written(tmp_path, "run: {workers: 1}\nspecialists: {ocr: {use: rapidocr}}")
    config = load_config(path, ["run.workers=3", "specialists.ocr.min_score=0.9", "vocabulary.ignore=[person]"])
    assert config.run.workers == 3
    assert config.specialists["ocr"] == {"use": "rapidocr", "min_score": 0.9}
    assert config.vocabulary.ignore == ("person",)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("run.workers", "key.path=value"),
        ("=3", "key.path=value"),
        ("run.workers.x=1", "run.workers"),
        ("run.x=1", "run.x"),
        ("a=[", "YAML"),
    ],
)
def test_set_faults(tmp_path: Path, setting: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config(written(tmp_path, "run: {workers: 1}"), [setting])


def test_image_paths_are_relative_to_their_file_and_settings_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    path = written(tmp_path, "ingest: {images: [photos, ../more, ~/mine, /all]}")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", "/home/me")
    found = (f"{tmp_path}/photos", f"{tmp_path.parent}/more", "/home/me/mine", "/all")
    assert load_config(path).ingest.images == found
    assert load_config(Path("../pipeline.yaml")).ingest.images == found
    assert load_config(path, ["ingest.images=[photos]"]).ingest.images == (f"{tmp_path}/here/photos",)


def test_a_misspelt_source_is_warned_of() -> None:
    assert build_pipeline(load_config(EMBEDDED, ["specialists.ocr=null"])).warnings == []
    (warning,) = build_pipeline(load_config(EMBEDDED, ["filters.score.thresholds.detecter.object=0.9"])).warnings
    assert "filters.score" in warning
    assert "'detecter'" in warning
    assert "detector, ocr, segmenter" in warning


def test_a_fault_in_a_setting_is_not_put_on_the_file_alone() -> None:
    with pytest.raises(ConfigError, match=r"embedded\.yaml with --set: 1 fault"):
        load_config(EMBEDDED, ["run.workers=0"])


def test_null_turns_a_component_off(tmp_path: Path) -> None:
    pipeline = build_pipeline(load_config(EMBEDDED, ["specialists.ocr=null", "filters.score=null"]))
    names = [specialist.name for specialist in pipeline.specialists]
    assert names == ["detector", "segmenter", "composer", "parser", "grounder"]
    assert "score" not in [filter_.name for filter_ in pipeline.filters]


def test_resolved_configuration_is_a_configuration(tmp_path: Path) -> None:
    resolved = load_config(EMBEDDED)
    again = load_config(written(tmp_path, yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False)))
    assert again == resolved
    assert build_pipeline(again).annotate_digest == build_pipeline(resolved).annotate_digest
    assert list(again.filters) == list(resolved.filters)


def test_digests_follow_what_they_stand_for() -> None:
    base = build_pipeline(load_config(EMBEDDED))
    threshold = build_pipeline(load_config(EMBEDDED, ["filters.score.thresholds.ocr.text=0.9"]))
    ignoring = build_pipeline(load_config(EMBEDDED, ["vocabulary.ignore=[person]"]))
    specialist = build_pipeline(load_config(EMBEDDED, ["specialists.detector.min_score=0.3"]))
    running = build_pipeline(load_config(EMBEDDED, ["run.workers=1", "run.item_seconds=5"]))
    assert (threshold.annotate_digest, ignoring.annotate_digest) == (base.annotate_digest, base.annotate_digest)
    assert base.filter_digest not in (threshold.filter_digest, ignoring.filter_digest)
    assert specialist.annotate_digest != base.annotate_digest
    assert specialist.filter_digest == base.filter_digest
    assert (running.annotate_digest, running.filter_digest) == (base.annotate_digest, base.filter_digest)


def test_what_filters_share_is_in_their_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "sharing"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "common.py").write_text("LIMIT = 1")
    (package / "mine.py").write_text("from toys import Dark\nclass Mine(Dark): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    pipeline = replace(build_pipeline(Config()), filters=(importlib.import_module("sharing.mine").Mine(),))
    before = pipeline.filter_digest
    (package / "common.py").write_text("LIMIT = 2")
    digest_of.cache_clear()
    assert replace(pipeline).filter_digest != before  # another one: the same keeps what it said


def test_building_a_pipeline_loads_nothing_heavy() -> None:
    import subprocess

    code = (
        "import sys; from pipelines.build import EMBEDDED, build_pipeline; from engine.config import load_config; "
        "build_pipeline(load_config(EMBEDDED)).sources; "
        "print([m for m in ('ray', 'torch', 'cv2', 'onnxruntime', 'rapidocr', 'spacy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_defaults_are_a_configuration() -> None:
    assert build_pipeline(Config()).specialists == ()


def test_a_file_says_what_differs_from_its_base(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "ingest: {images: [photos], limit: 5}\nfilters: {size: {min_side: 4}, aspect: {}, labels: {}}\n"
        "run: {workers: 1}"
    )
    (tmp_path / "sub").mkdir()
    middle = tmp_path / "sub" / "middle.yaml"
    middle.write_text("base: ../base.yaml\ningest: {limit: 7}\nfilters: {aspect: null, size: {min_side: 9}}")
    (tmp_path / "top.yaml").write_text("base: sub/middle.yaml\nrun: {workers: 2}")
    config = load_config(tmp_path / "top.yaml", ["ingest.limit=8"])
    assert config.ingest.images == (str(tmp_path / "photos"),)  # relative to the file that says it
    assert (config.ingest.limit, config.run.workers) == (8, 2)
    assert list(config.filters.items()) == [("size", {"min_side": 9}), ("aspect", None), ("labels", {})]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("base: pipeline.yaml", "its own base"),
        ("base: nowhere.yaml", "nowhere.yaml"),
        ("base: [a]", "expected a file's name"),
    ],
)
def test_a_base_that_is_none(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config(written(tmp_path, text))

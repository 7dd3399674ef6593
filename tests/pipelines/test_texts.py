"""What the embedded pipeline says of images: texts, what they are made from, and the phrases that name regions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command import ENGINE, files, run

from engine import open_dataset
from engine.layout import Output, ShardId
from engine.records import DETAILS, Record


@pytest.fixture(scope="module")
def records(undisturbed: Path) -> list[Record]:
    return list(open_dataset(undisturbed).records())


def test_every_granularity_and_kind_is_there_and_stands(records: list[Record]) -> None:
    standing = [record.standing for record in records]
    assert {text.detail for record in standing for text in record.texts} == set(DETAILS)
    for column in ("texts", "parses", "regions", "region_texts", "masks", "triplets"):
        assert any(getattr(record, column) for record in standing), column


def test_composed_texts_say_what_they_are_made_from(records: list[Record]) -> None:
    composed = [(record, text) for record in records for text in record.texts]
    assert composed
    for record, text in composed:
        assert text.source == "composer"
        assert text.derived_from
        # Texts were made of what stood, and what stood then stands now.
        assert {id_ for id_ in text.derived_from} <= record.standing.by_id.keys()
        assert text.scores.label is text.scores.phrase is None


def test_phrases_name_regions_by_their_words(records: list[Record]) -> None:
    named = 0
    for record in (record.standing for record in records):
        for triplet in record.triplets:
            phrase = record.by_id[triplet.text_id].text[triplet.start : triplet.stop].casefold()  # type: ignore[union-attr]
            for id_ in triplet.region_ids:
                region = record.by_id[id_]
                word = (region.label or region.text or "").strip()  # type: ignore[union-attr]
                assert word[:3].casefold() in phrase or (word == "person" and "people" in phrase), (
                    word,
                    phrase,
                )  # type: ignore[index]
                named += 1
    assert named > 10


def test_a_threshold_that_is_raised_takes_the_texts_along(undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed, tmp_path / "out")
    settings = ("--set", "filters.score.thresholds.detector.object=0.99")
    done = run(ENGINE, "run", "--stage", "filter", "--out", str(tmp_path / "out"), *settings)
    assert done.returncode == 0, done.stdout
    for record in open_dataset(tmp_path / "out").records():
        objects = {region.id for region in record.regions if region.kind == "object"}
        assert not [text for text in record.standing.texts if objects & set(text.derived_from)]
        assert not record.standing.region_texts


@pytest.mark.parametrize("command", [("report",), ("run", "--stage", "report", "--out")])
def test_the_report_is_written_and_changes_nothing_else(
    undisturbed: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    before = files(out)
    done = run(ENGINE, *command, str(out))
    assert done.returncode == 0, done.stdout
    page = (out / "report" / "index.html").read_text()
    assert page.count('<article id="picture-') == 22  # of 24: one is a duplicate, one is broken
    after = files(out)
    assert after.pop("report/index.html")
    assert after == before


def test_a_report_of_nothing_says_so(tmp_path: Path) -> None:
    done = run(ENGINE, "report", str(tmp_path / "nothing"))
    assert done.returncode == 2
    assert "holds no dataset: expected a folder that `engine run --out` wrote" in " ".join(done.stdout.split())


def test_near_duplicates_are_grouped(undisturbed: Path) -> None:
    dataset = open_dataset(undisturbed)
    summary = json.loads((undisturbed / "round-0" / "summary.json").read_text())
    groups = dataset.near_duplicates()
    assert summary["near_duplicates"] == {"groups": len(groups), "images": sum(map(len, groups))}
    assert all(len(group) > 1 for group in groups)


def test_a_filter_that_was_stopped_is_no_dataset_to_report(undisturbed: Path, tmp_path: Path) -> None:
    out, other = Output(tmp_path / "out"), Output(tmp_path / "other")
    for output in (out, other):
        shutil.copytree(undisturbed, output.root)
    settings = ("--set", "filters.score.thresholds.detector.object=0.9")
    done = run(ENGINE, "run", "--stage", "filter", "--out", str(other.root), *settings)
    assert done.returncode == 0, done.stdout
    shard = ShardId(0, 1)
    shutil.copy(other.round(0).decisions(shard), out.round(0).decisions(shard))
    out.round(0).summary.unlink()
    out.round(0).closed(shard.partition).unlink()
    done = run(ENGINE, "report", str(out.root))
    assert done.returncode == 2
    assert "decisions of 2 sets of filters: a --stage filter was stopped" in " ".join(done.stdout.split())
    assert not out.round(0).summary.exists()

"""LLaVA's conversations: `datasets` and transformers' processor take them, and read from them they are what stood."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets_made import write_dataset
from exporting import HOSTILE, NAMES, SHARES, asked, pictures, run, standing, totals_of
from hypothesis import given
from hypothesis import strategies as st
from known import known
from PIL import Image
from taught import taught

from engine.config import Run
from engine.conversations import CAPTIONS, FIND, boxes_in, boxes_said, harmless, input_of
from engine.errors import ConfigError
from engine.export.llava import TURNS, Llava
from engine.export.run import _digest, _setting, write_part
from engine.given import take
from engine.layout import Output
from engine.listing import Listing
from engine.records import Record, Region, RegionText, Text, Triplet

Sample = dict[str, Any]
BOX = re.compile(r"\[[\d., ]+\]")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Output:
    return known(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def exported(output: Output, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("export") / "to"
    run(asked(output, Llava(), to, how="copy"))
    return to


def samples_in(to: Path) -> list[Sample]:
    return [sample for path in sorted(to.glob("llava_*.json")) for sample in json.loads(path.read_text())]


def turns(sample: Sample) -> list[tuple[str, str]]:
    said = [turn["value"] for turn in sample["conversations"]]
    return list(zip(said[::2], said[1::2], strict=True))


def test_datasets_reads_what_stands(output: Output, exported: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    records = standing(output)
    files = {split: str(exported / f"llava_{split}.json") for split in SHARES}
    loaded = load_dataset("json", data_files=files, cache_dir=str(tmp_path))
    samples = [sample for split in SHARES for sample in loaded[split]]
    assert sorted(map(json.dumps, samples)) == sorted(map(json.dumps, samples_in(exported)))
    assert len({sample["id"] for sample in samples}) == len(samples)
    for sample in samples:
        record = records[sample["item_id"]]
        assert (sample["licence"], sample["dataset"]) == (record.item.licence, record.item.dataset)
        with Image.open(exported / sample["image"]) as image:
            assert image.size == (record.item.width, record.item.height)
        assert [turn["from"] for turn in sample["conversations"]] == ["human", "gpt"] * (len(turns(sample)))
        assert 1 <= len(turns(sample)) <= TURNS
    captions = {(s["item_id"], q.removeprefix("<image>\n"), a) for s in samples for q, a in turns(s)[:1]}
    for id_, record in records.items():
        for text in record.texts:
            assert (id_, CAPTIONS[text.detail], harmless(text.text.strip())) in captions
    by_source = {source for sample in samples for source in sample["source"]}
    assert by_source == {"a", "b.c", "読"}


def test_one_image_token_and_nothing_forged(exported: Path, tmp_path: Path) -> None:
    """By transformers' own processor and chat template, and by LLaVA's rule that each <image> is one."""
    from tiny.chats import vision_chat
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(vision_chat(tmp_path / "model"))
    image = Image.new("RGB", (40, 30))
    tokens = 0
    roles = {"human": "user", "gpt": "assistant"}
    for sample in samples_in(exported):
        told = [(roles[turn["from"]], turn["value"]) for turn in sample["conversations"]]
        assert [text.count("<image>") for _, text in told] == [1] + [0] * (len(told) - 1)
        assert told[0][1].startswith("<image>\n")
        messages = [{"role": role, "content": text} for role, text in told]
        prompt = processor.apply_chat_template(messages, tokenize=False)
        inputs = processor(text=prompt, images=image, return_tensors="pt")
        ids = inputs["input_ids"][0].tolist()
        tokens += ids.count(processor.tokenizer.convert_tokens_to_ids("<image>"))
        assert ids.count(processor.tokenizer.bos_token_id) == 1
    assert tokens == 16 * len(samples_in(exported)) > 0
    assert any("< image>" in answer for sample in samples_in(exported) for _, answer in turns(sample))


def test_what_was_broken_is_counted(output: Output, tmp_path: Path) -> None:
    summary = run(asked(output, Llava(), tmp_path))
    broken = sum(
        ("<image>" in text)
        for record in standing(output).values()
        for text in (
            *(one.text for one in record.texts),
            *(one.label or "" for one in record.regions if one.kind == "object"),
            *(one.text or "" for one in record.regions if one.kind == "text"),
        )
    )
    assert summary["images"]["texts with a model's tokens, broken"] == broken > 0


def test_what_counts_as_exported_is_said(tmp_path: Path) -> None:
    """All but the proposals that nothing describes, and the image of which nothing is known."""
    output = taught(tmp_path)
    summary = run(asked(output, Llava(), tmp_path / "to"))
    samples, records = samples_in(tmp_path / "to"), [one for one in standing(output).values() if one.by_id]
    silent = {"images of which nothing is said": 1}
    assert summary["left_out"]["images"] == silent and len({sample["item_id"] for sample in samples}) == len(records)
    assert summary["left_out"]["annotations"] == {"regions without a label, text or phrase": len(records)}
    totals = totals_of(summary)
    assert totals["images"] == len(records)
    assert totals["texts"] == sum(len(one.texts) for one in records)
    assert totals["regions"] == sum(len(one.regions) - 1 for one in records)
    boxes = {(sample["item_id"], box) for sample in samples for q, a in turns(sample) for box in BOX.findall(q + a)}
    assert totals["regions"] == len(boxes)


def test_words_that_are_none_are_left_out_and_counted(tmp_path: Path) -> None:
    def wordless(record: Record) -> Record:
        region = Region(id="0.a.0", source="a", kind="object", box=(1, 1, 9, 9), label=" ")
        text = Text(id="0.a.1", source="a", detail="brief", text=" \n")
        told = RegionText(id="0.a.2", source="a", region_id=region.id, text=" ")
        triplet = Triplet(id="0.a.3", source="a", text_id=text.id, start=0, stop=1, region_ids=(region.id,))
        return record.append([region, text, told, triplet])

    output = write_dataset(pictures(tmp_path / "photos"), tmp_path / "out", wordless)
    summary = run(asked(output, Llava(), tmp_path / "to"))
    count = len(NAMES)
    assert summary["left_out"] == {
        "images": {"images of which nothing is said": count},
        "annotations": {
            "regions without a label, text or phrase": count,
            "texts without a word": 2 * count,
            "triplets without a phrase or a region": count,
        },
    }
    assert totals_of(summary) == {"images": 0} and samples_in(tmp_path / "to") == []


def test_boxes_are_fractions_of_the_image_as_it_is(output: Output, exported: Path) -> None:
    records = standing(output)
    boxes = 0
    for sample in samples_in(exported):
        record = records[sample["item_id"]]
        for question, answer in turns(sample):
            if "What is in this region" in question:
                (box,) = boxes_in(question[question.index("[") : question.index("]") + 1]) or []
                near = [r for r in record.regions if r.kind == "object" and is_near(r, box, record)]
                assert answer in {harmless((r.label or "").strip()) for r in near}
                boxes += 1
    labelled = [
        r for record in records.values() for r in record.regions if r.kind == "object" and (r.label or "").strip()
    ]
    assert boxes == len(labelled)


def is_near(region: Region, box: Any, record: Record) -> bool:
    assert record.item.width and record.item.height
    fractions = np.array(region.box) / ([record.item.width, record.item.height] * 2)
    return bool(np.abs(fractions.clip(0, 1) - box).max() <= 0.00051)


def test_phrases_name_all_that_they_name(tmp_path: Path) -> None:
    output = taught(tmp_path / "set")
    run(asked(output, Llava(), tmp_path / "to"))
    records = standing(output)
    found = 0
    for sample in samples_in(tmp_path / "to"):
        record = records[sample["item_id"]]
        for question, answer in turns(sample):
            phrase = input_of(question.removeprefix("<image>\n"), FIND)
            if phrase is not None:
                numbers = {"a dog": [0], "a cat": [1], "two birds": [2, 3], "Two birds": [2, 3]}.get(phrase, [0])
                boxes = boxes_in(answer) or []
                assert len(boxes) == len(numbers)
                for number, box in zip(numbers, boxes, strict=True):
                    region = record.by_id[f"0.detector.{number}"]
                    assert isinstance(region, Region) and is_near(region, box, record)
                assert set(sample["source"]) == {"detector", "grounder"}
                found += 1
    assert found == 5 * 11


def test_an_empty_split_is_an_empty_list(output: Output, tmp_path: Path) -> None:
    run(asked(output, Llava(), tmp_path, shares={"train": 1 - 1e-7, "val": 1e-7}))
    assert json.loads((tmp_path / "llava_val.json").read_text()) == []
    assert json.loads((tmp_path / "llava_train.json").read_text())


def test_going_on_leaves_what_an_undisturbed_export_does(output: Output, tmp_path: Path) -> None:
    whole, broken = (asked(output, Llava(), tmp_path / name) for name in ("whole", "broken"))
    run(whole)
    shards = broken.dataset.shards()
    setting = _setting(broken, shards, broken.to / ".export" / "plan.json", _digest(broken))
    firsts = {shard: 3 * n for n, shard in enumerate(shards)}
    for shard in (shards[2], shards[2]):
        write_part(broken, Run(), setting, firsts, shard)
    run(broken)
    for split in SHARES:
        name = f"llava_{split}.json"
        assert (whole.to / name).read_bytes() == (broken.to / name).read_bytes()
    assert not list(broken.to.glob(".export"))


# --- as an image set -------------------------------------------------------------------------------------------------


def test_what_stood_comes_back(tmp_path: Path) -> None:
    output = taught(tmp_path / "set")
    run(asked(output, Llava(), tmp_path / "to"))
    records = {record.item.uri: record for record in standing(output).values()}
    listing = Listing([tmp_path / "to"])
    for entry in listing:
        record = records[entry.uri]
        taken, faults = take(record.item, entry.given())
        assert faults == ()
        texts = Counter((text.detail, harmless(text.text.strip())) for text in record.texts)
        assert Counter((text.detail, text.text) for text in taken.texts) == texts
        for kind, said in (("object", "raw_label"), ("text", "text")):
            wanted = [r for r in record.regions if r.kind == kind]
            found = [r for r in taken.regions if r.kind == kind]
            assert len(found) == len(wanted)
            for one in wanted:
                (back,) = [r for r in found if is_near(one, fractions(r, record), record)]
                assert getattr(back, said) == harmless(one.label or one.text or "")
        told = {t.text for t in taken.region_texts}
        assert {harmless(t.text) for t in record.region_texts} <= told
        assert told - {harmless(t.text) for t in record.region_texts} >= {"a dog", "a cat"}
    assert listing.faults.counts == {"several_places": 2 * 11}  # two birds, of a text that isn't named


def fractions(region: Region, record: Record) -> Any:
    assert record.item.width and record.item.height
    return np.array(region.box) / ([record.item.width, record.item.height] * 2)


@pytest.mark.parametrize(
    ("sample", "kind"),
    [
        ("a sample", "bad_sample"),
        ({"conversations": []}, "bad_sample"),
        ({"image": "0.png"}, "bad_sample"),
        ({"image": "0.png", "conversations": "no"}, "bad_sample"),
        ({"image": "0.png", "conversations": [{"value": "Why?"}, {"value": "So."}]}, "unknown_question"),
        ({"image": "0.png", "conversations": [7, {"value": [1]}]}, "unknown_question"),
        ({"image": "0.png", "conversations": [{"value": FIND.format("it")}, {"value": "[1, 2, 3, 4]"}]}, "bad_box"),
        ({"image": "0.png", "conversations": [{"value": FIND.format("it")}, {"value": "[nan, 0, 0, 1]"}]}, "bad_box"),
    ],
)
def test_hostile_conversations_are_faults(sample: Any, kind: str, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "0.png")
    good = {
        "image": "0.png",
        "conversations": [
            {"from": "human", "value": f"{CAPTIONS['brief']}\n<image>"},
            {"from": "gpt", "value": "a dog"},
        ],
    }
    (tmp_path / "x.json").write_text(json.dumps([good, sample]))
    listing = Listing([tmp_path / "x.json"])
    (entry,) = listing
    assert [one.text for one in entry.given()] == ["a dog"]  # type: ignore[union-attr]
    assert listing.faults.counts == {kind: 1}


@pytest.mark.parametrize(
    "text",
    [
        '[{"conversations": [',
        '["conversations"]',
        '[{"conversations": ' + "[" * 300_000,
        '[{"image": "a", "conversations": []}] x',
        '[{"image": "a", "conversations": [}]',
    ],
)
def test_a_file_that_is_no_list_of_samples_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ConfigError, match=r"x\.json can't be read as a list of LLaVA's conversations"):
        list(Listing([tmp_path / "x.json"]))


@given(st.lists(st.tuples(*[st.floats(-50, 5000)] * 4), max_size=5), st.integers(1, 4000), st.integers(1, 4000))
def test_a_box_comes_back_to_three_decimals(boxes: list[tuple[float, ...]], width: int, height: int) -> None:
    sizes = np.array([[width, height]] * len(boxes), float).reshape(-1, 2)
    said = boxes_said(np.array(boxes, float).reshape(-1, 4), sizes)
    for box, words in zip(boxes, said, strict=True):
        (back,) = boxes_in(words) or []
        assert np.abs(np.clip(np.array(box) / [width, height, width, height], 0, 1) - back).max() <= 0.0005 + 1e-9


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_words_are_left_as_they_are_but_for_tokens(text: str) -> None:
    assert harmless(text).replace("< image>", "<image>") == text
    assert "<image>" not in harmless(text)

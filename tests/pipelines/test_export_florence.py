"""Florence-2's lines: transformers' processor and our own trainer take them, and read from them they are what stood."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets_made import write_dataset
from exporting import NAMES, SHARES, asked, pictures, run, standing, totals_of
from florence import small_processor, small_tokens
from PIL import Image
from taught import BRIEF, NOTHING, taught
from training import PROCESSOR, SIDE, recipe, tiny

from engine.atomic import write_text
from engine.config import Ingest, Run
from engine.entry import GivenText
from engine.export.run import _digest, _setting, write_part
from engine.geometry import decode_mask, encode_mask
from engine.given import take
from engine.ingest import ingest
from engine.layout import Output
from engine.listing import Listing
from engine.records import Mask, Record, Region, Text, Triplet
from engine.storage import read_faults, read_given
from engine.vocabulary import Vocabulary
from florence2.codec import pieces_of_text
from florence2.errors import Florence2Error
from florence2.examples import fit, read_examples
from florence2.processor import resized
from florence2.tasks import Task
from florence2.training import Batch, Trainer, tokenise
from pipelines.florence_format import FlorenceFormat

Line = dict[str, Any]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Output:
    return taught(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def exported(output: Output, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("export") / "to"
    run(asked(output, FlorenceFormat(), to, how="copy"))
    return to


def lines_in(to: Path) -> list[Line]:
    return [json.loads(line) for path in sorted(to.glob("*/*.jsonl")) for line in path.read_text().splitlines()]


def of(lines: list[Line], task: Task, **about: Any) -> list[Line]:
    return [line for line in lines if line["task"] == task and all(line[name] == said for name, said in about.items())]


def test_every_task_has_lines_and_every_line_says_whose_it_is(output: Output, exported: Path) -> None:
    lines, records = lines_in(exported), standing(output)
    assert len({line["id"] for line in lines}) == len(lines)
    assert {line["item_id"] for line in lines} == {
        id_ for id_, r in records.items() if not r.item.uri.endswith(NOTHING)
    }
    per_image = Counter(line["item_id"] for line in lines)
    assert set(per_image.values()) == {36}
    assert Counter(line["task"] for line in lines).keys() == set(Task)
    for line in lines:
        with Image.open(exported / line["image"]) as image:
            assert image.size == (line["width"], line["height"])  # upright, as its copy is
        assert line["image"].startswith(f"images/{line['split']}/") and line["split"] in SHARES
    one = next(iter(per_image))
    mine = [line for line in lines if line["item_id"] == one]
    sources = {task: [line["source"] for line in of(mine, task)] for task in Task}
    assert sources[Task.CAPTION] == [["human"], ["composer"]]
    assert sources[Task.DETAILED_CAPTION] == [["annotator"]]
    assert sources[Task.OD] == [["detector"]]
    assert sources[Task.DENSE_REGION_CAPTION] == [["annotator", "composer", "detector"]]
    described = [["annotator", "detector"], ["composer", "detector"], ["annotator", "detector"]]
    assert sources[Task.REGION_TO_DESCRIPTION] == described, "each by its own, though two say the same"
    assert sources[Task.REGION_TO_SEGMENTATION] == [["detector", "sam"]] * 2
    assert sources[Task.OCR] == sources[Task.OCR_WITH_REGION] == [["ocr"]]
    assert sources[Task.REGION_TO_OCR] == [["ocr"]] * 2
    assert set(map(tuple, sources[Task.OPEN_VOCABULARY_DETECTION])) == {("detector",)}
    assert ["detector", "grounder", "human"] in sources[Task.CAPTION_TO_PHRASE_GROUNDING]
    referring = {line["prompt"]: line["source"] for line in of(mine, Task.REFERRING_EXPRESSION_SEGMENTATION)}
    assert referring["Locate a dog in the image with mask"] == ["detector", "grounder", "human", "sam"]
    composed = {(line["task"], line["target"][:9]) for line in mine if line["composed"]}
    assert composed >= {("CAPTION", "Two birds"), ("REGION_TO_DESCRIPTION", "a grey ca")}
    assert ("CAPTION", BRIEF[:9]) not in composed and ("OD", "bird<loc_") not in composed


def test_what_no_task_speaks_of_is_counted(output: Output, tmp_path: Path) -> None:
    """Of the taught pictures crowds alone; and of others what florence2.targets turns down, by each of its reasons."""
    summary = run(asked(output, FlorenceFormat(), tmp_path / "taught"))
    known = [record for record in standing(output).values() if record.by_id]
    assert summary["left_out"] == {
        "images": {"images of which no task speaks": 1},
        "annotations": {"regions of which no task speaks": len(known)},
    }
    assert totals_of(summary)["images"] == len(known)
    assert totals_of(summary)["regions"] == sum(len(one.regions) - 1 for one in known)

    silent = write_dataset(pictures(tmp_path / "pictures"), tmp_path / "out", _half_silent)
    count, summary = len(NAMES), run(asked(silent, FlorenceFormat(), tmp_path / "silent"))
    assert summary["left_out"]["annotations"] == {
        "regions of which no task speaks": 3 * count,
        "triplets of which no task speaks": 1 * count,
        "masks of which no task speaks": 1 * count,
    }
    lines = lines_in(tmp_path / "silent")
    assert not [line for line in lines if "speck" in line["target"]] and of(lines, Task.OCR_WITH_REGION)
    spoken = {"images": count, "texts": count, "regions": 2 * count, "triplets": count}
    assert totals_of(summary) == spoken


def _half_silent(record: Record) -> Record:
    """A caption with two phrases, one of which names the line of text; a proposal that another one covers; a line and a
    mask of a few pixels."""
    width, height = record.item.width or 1, record.item.height or 1
    about: dict[str, Any] = {"source": "a"}
    dog = Region(id="0.a.0", kind="object", label="dog", box=(0, 0, width / 2, height), **about)
    covered = Region(id="0.a.1", kind="proposal", box=(0, 0, width / 2, height - 1), **about)
    line = Region(id="0.a.2", kind="text", text="EXIT", box=(width / 2, 0, width, height / 2), **about)
    specks = [
        Region(id="0.a.3", kind="text", text="speck", box=(1, 1, 1.2, 1.2), **about),
        Region(id="0.a.4", kind="object", label="speck", box=(1, 1, 1.2, 1.2), **about),
    ]
    pixels = np.zeros((height, width), bool)
    pixels[1, 1] = True
    mask = Mask(id="0.a.5", region_id="0.a.4", size=(height, width), counts=encode_mask(pixels), **about)
    text = Text(id="0.a.6", detail="brief", text="a dog under a sign", **about)
    triplets = [
        Triplet(id=f"0.a.{n}", text_id=text.id, start=start, stop=stop, region_ids=(region,), **about)
        for n, start, stop, region in ((7, 0, 5, "0.a.0"), (8, 12, 18, "0.a.2"))
    ]
    return record.append([dog, covered, line, *specks, mask, text, *triplets])


def test_a_class_is_exhaustive_unless_an_instance_of_it_stays_behind(output: Output, tmp_path: Path) -> None:
    run(asked(output, FlorenceFormat(), tmp_path / "all"))
    run(asked(output, FlorenceFormat(), tmp_path / "some", selection={"min_score": {"detector": 0.35}}))

    def queries(to: Path) -> set[tuple[str, int]]:
        found = of(lines_in(to), Task.OPEN_VOCABULARY_DETECTION)
        return {(line["prompt"].split()[1], line["target"].count("<loc_") // 4) for line in found}

    assert queries(tmp_path / "all") == {("dog", 1), ("cat", 1), ("bird", 2), ("zebra", 0)}
    assert queries(tmp_path / "some") == {("zebra", 0)}, "one bird of two has left, and neither dog nor cat"
    assert {line["target"][:4] for line in of(lines_in(tmp_path / "some"), Task.OD)} == {"bird"}


def test_classes_are_exhaustive_under_the_names_that_they_leave_with(output: Output, tmp_path: Path) -> None:
    """Of a class of several words only if all are that the set has."""
    classes: dict[str, Any] = {"hound": {"synonyms": ["dog"]}, "beast": {"synonyms": ["bird", "wolf"]}, "cat": {}}
    animals = Vocabulary.model_validate({"classes": classes})
    run(asked(output, FlorenceFormat(), tmp_path, selection={"label_map": animals}))
    found = of(lines_in(tmp_path), Task.OPEN_VOCABULARY_DETECTION)
    counts = {(line["prompt"].split()[1], line["target"].count("<loc_") // 4) for line in found}
    assert counts == {("hound", 1), ("cat", 1)}, "a wolf was said, and nobody marks all wolves"
    classes["beast"]["synonyms"] = ["bird", "lion"]
    animals = Vocabulary.model_validate({"classes": classes})
    selection = {"label_map": animals, "min_score": {"detector": 0.35}}
    run(asked(output, FlorenceFormat(), tmp_path / "some", selection=selection))
    found = of(lines_in(tmp_path / "some"), Task.OPEN_VOCABULARY_DETECTION)
    assert not found, "one bird of two has left, and neither dog nor cat"
    classes["hound"]["synonyms"].append("größe <loc_7>")
    kept = Vocabulary.model_validate({"classes": classes})
    run(asked(output, FlorenceFormat(), tmp_path / "more", selection={"label_map": kept}))
    found = of(lines_in(tmp_path / "more"), Task.OPEN_VOCABULARY_DETECTION)
    assert {line["prompt"].split()[1] for line in found} == {"cat", "beast"}, (
        "the detector may have missed such a hound"
    )


def test_nothing_leaves_of_whom_nobody_asked_for(output: Output, tmp_path: Path) -> None:
    """Nor what is not there by the word of a source, or of a kind, that stays behind."""
    run(asked(output, FlorenceFormat(), tmp_path / "ocr", selection={"sources": frozenset({"ocr"})}))
    assert {tuple(line["source"]) for line in lines_in(tmp_path / "ocr")} == {("ocr",)}
    run(asked(output, FlorenceFormat(), tmp_path / "texts", kinds=["texts"]))
    captions = {Task.CAPTION, Task.DETAILED_CAPTION, Task.MORE_DETAILED_CAPTION}
    assert {line["task"] for line in lines_in(tmp_path / "texts")} == captions


def test_words_that_become_a_line_are_its_sources(tmp_path: Path) -> None:
    def signed(record: Record) -> Record:
        words = [
            ("ROAD", (10, 10, 30, 20), "human"),
            ("CLOSED", (33, 10, 60, 20), "ocr"),
            ("x", (5, 5, 5.1, 5.1), "ocr"),
        ]
        return record.append(
            Region(id=f"0.a.{n}", source=source, kind="text", text=word, box=box)
            for n, (word, box, source) in enumerate(words)
        )

    signs = write_dataset(pictures(tmp_path / "pictures"), tmp_path / "out", signed)
    summary = run(asked(signs, FlorenceFormat(), tmp_path / "to"))
    lines = lines_in(tmp_path / "to")
    assert {line["task"] for line in lines} == {Task.OCR, Task.OCR_WITH_REGION, Task.REGION_TO_OCR}
    assert {tuple(line["source"]) for line in lines} == {("human", "ocr")}
    assert {line["target"].partition("<")[0] for line in lines} == {"ROAD CLOSED"}
    assert totals_of(summary) == {"images": len(NAMES), "regions": 2 * len(NAMES)}
    assert summary["left_out"]["annotations"] == {"regions of which no task speaks": len(NAMES)}


def test_all_that_a_source_has_may_be_exhaustive(tmp_path: Path) -> None:
    output = taught(tmp_path / "set")
    write_text(output.config, "train: {exhaustive: {detector: all}, texts_from: [human]}\n")
    run(asked(output, FlorenceFormat(), tmp_path / "to"))
    lines = lines_in(tmp_path / "to")
    asked_for = {line["prompt"].split()[1] for line in of(lines, Task.OPEN_VOCABULARY_DETECTION)}
    assert asked_for == {"dog", "cat", "bird", "grösse"}, "a wolf was turned down, and nobody looked for zebras"
    assert {line["target"] for line in of(lines, Task.CAPTION)} == {BRIEF}


def test_labels_leave_as_they_are_chosen(output: Output, tmp_path: Path) -> None:
    animals = Vocabulary.model_validate({"classes": {"animal": {"synonyms": ["dog", "cat", "bird"]}}})
    run(asked(output, FlorenceFormat(), tmp_path, selection={"label_map": animals}))
    found = of(lines_in(tmp_path), Task.OD)
    assert {line["target"].split("<")[0] for line in found} == {"animal"}
    assert {line["target"].count("<loc_") for line in found} == {16}


def test_forged_tokens_are_harmless(exported: Path) -> None:
    lines = lines_in(exported)
    for task in (Task.CAPTION, Task.DETAILED_CAPTION, Task.REGION_TO_DESCRIPTION, Task.REGION_TO_CATEGORY, Task.OCR):
        assert of(lines, task)
        for line in of(lines, task):
            assert {piece.kind for piece in pieces_of_text(line["target"])} == {"text"}
    for line in of(lines, Task.OCR_WITH_REGION):
        assert [piece.kind for piece in pieces_of_text(line["target"])] == (["text"] + ["loc"] * 8) * 2
    grounded = next(line for line in of(lines, Task.CAPTION_TO_PHRASE_GROUNDING) if "loc_1" in line["prompt"])
    assert "<" not in grounded["prompt"].replace("< ", "")
    assert grounded["target"].startswith("a < loc_1>< loc_2> < image> dog< /s> < OD><loc_")


# --- transformers ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """transformers' processor, of a small vocabulary."""
    from transformers import AutoProcessor

    folder = tmp_path_factory.mktemp("processor")
    small_processor().save_pretrained(folder)
    return AutoProcessor.from_pretrained(folder, backend="pil")


def test_transformers_takes_prompts_and_targets(exported: Path, native: Any) -> None:
    lines = lines_in(exported)
    assert type(native).__name__ == "Florence2Processor"
    seen = {(line["task"], line["prompt"]): line for line in lines}  # images differ, questions are the same few
    for (task, prompt), line in seen.items():
        with Image.open(exported / line["image"]) as image:
            inputs = native(text=prompt, images=image, return_tensors="pt")
        ids = inputs["input_ids"][0].tolist()
        assert ids.count(native.image_token_id) == native.num_image_tokens
        assert ids[native.num_image_tokens :] == small_tokens().sentence(prompt), task
        answer = native.tokenizer(line["target"])["input_ids"]
        assert answer == small_tokens().sentence(line["target"])


@pytest.mark.parametrize("task", [Task.OD, Task.REGION_PROPOSAL, Task.CAPTION_TO_PHRASE_GROUNDING])
def test_transformers_finds_the_boxes(task: Task, output: Output, exported: Path, native: Any) -> None:
    records = standing(output)
    for line in of(lines_in(exported), task):
        size = line["width"], line["height"]
        read = native.post_process_generation(text=f"<s>{line['target']}</s>", task=f"<{task}>", image_size=size)
        found = read[f"<{task}>"]
        assert len(found["bboxes"]) == line["target"].count("<loc_") // 4 > 0
        regions = [one for one in records[line["item_id"]].regions if one.source == "detector"]
        for box, label in zip(found["bboxes"], found["labels"], strict=True):
            near = [one for one in regions if is_near(one.box, box, size, rounding=1)]
            if task is Task.OD:  # of a label with a "<" transformers reads what is behind it
                assert [(one.label or "").rpartition("<")[2] for one in near] == [label]
            else:
                assert near or task is Task.REGION_PROPOSAL  # which may be around a mask


def is_near(ours: Any, theirs: Any, size: tuple[int, int], rounding: float = 0.0) -> bool:
    """Within half a bin."""
    bins = (size[0] / 2000, size[1] / 2000) * 2
    return all(abs(a - b) <= half + rounding + 1e-4 for a, b, half in zip(ours, theirs, bins, strict=True))


# --- our own trainer -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("one_thread")
def test_our_trainer_learns_from_them(exported: Path) -> None:
    path = sorted(exported.glob("*/*.jsonl"))[0]
    name, rows = "", {}
    for image, example in read_examples(path):
        shortened, cut = fit(example, PROCESSOR.tokens, 120)
        name = name or image
        if image == name and (shortened.answer or not cut):
            rows[example.task] = tokenise(shortened, PROCESSOR.tokens)
    image = torch.tensor(resized(exported / name, 0, (SIDE, SIDE), PROCESSOR.resample)).permute(2, 0, 1)
    batch = Batch.of([image], [list(rows.values())], [name], PROCESSOR)
    assert set(batch.tasks) == set(Task)
    trainer = Trainer(tiny(), recipe(), processor=PROCESSOR)
    first, *_, last = (trainer.step([batch]).loss for _ in range(3))
    assert last < first


def test_examples_come_back_with_what_they_say(exported: Path) -> None:
    path = next(iter(sorted(exported.glob("*/*.jsonl"))))
    lines, read = [json.loads(line) for line in path.read_text().splitlines()], list(read_examples(path))
    for line, (name, example) in zip(lines, read, strict=True):
        assert (name, example.task) == (line["image"], line["task"])
        assert (example.prompt.text, example.answer) == (line["prompt"], line["target"])
        assert example.prompt.form is Task.of(line["task"]).form
        for one in example.annotations:
            assert one.box is None or (one.box[2] <= line["width"] and one.box[3] <= line["height"])
    detections = [example for _, example in read if example.task is Task.OD]
    assert {len(example.annotations) for example in detections} == {5}


@pytest.mark.parametrize(
    "line",
    [
        "not JSON",
        "[1]",
        '{"image": "a", "task": "OD", "prompt": "p"}',
        '{"image": "a", "task": "ODD", "prompt": "p", "target": "t"}',
        "[" * 100_000,
        '{"image": "\\udcff", "task": "OD"}',
        '{"image": 1' + "0" * 5000 + "}",
    ],
)
def test_lines_that_are_none_are_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(f'{{"image": "a", "task": "<OCR>", "prompt": "p", "target": "t"}}\n\n{line}\n')
    examples = read_examples(tmp_path / "x.jsonl")
    assert next(examples)[1].answer == "t"
    with pytest.raises(Florence2Error, match=r"x\.jsonl, line 3: "):
        next(examples)


# --- again and again -------------------------------------------------------------------------------------------------


def test_going_on_leaves_what_an_undisturbed_export_does(output: Output, tmp_path: Path) -> None:
    whole, broken = (asked(output, FlorenceFormat(), tmp_path / name) for name in ("whole", "broken"))
    run(whole)
    shards = broken.dataset.shards()
    setting = _setting(broken, shards, broken.to / ".export" / "plan.json", _digest(broken))
    firsts = {shard: 3 * n for n, shard in enumerate(shards)}
    for shard in (shards[1], shards[3], shards[1]):
        write_part(broken, Run(), setting, firsts, shard)
    run(broken)
    there = [{p.relative_to(to): p.read_bytes() for p in to.glob("*/*.jsonl")} for to in (whole.to, broken.to)]
    assert there[0] == there[1] and sum(map(len, there[0].values())) > 10_000


# --- as an image set -------------------------------------------------------------------------------------------------


def read_back(path: Path, records: dict[str, Record]) -> dict[str, tuple[Record, list[str]]]:
    """What comes along in an export, and what was wrong with it, by item id of the set that was exported."""
    listing = Listing([path])
    found = {}
    ids = {line["image"].rpartition("/")[2]: line["item_id"] for line in lines_in(path)}
    for entry in listing:
        record = records[ids[entry.uri.rpartition("/")[2]]]
        taken, faults = take(record.item, entry.given())
        found[record.item.item_id.hex()] = taken, [fault.kind for fault in faults]
    assert listing.faults.counts == {}
    return found


def test_what_stood_comes_back(output: Output, exported: Path) -> None:
    records = standing(output)
    found = read_back(exported, records)
    assert len(found) == 11
    for id_, (taken, faults) in found.items():
        record = records[id_]
        assert faults == []
        assert record.item.width and record.item.height
        size = record.item.width, record.item.height
        assert Counter((t.detail, t.text) for t in taken.texts) == Counter(
            (t.detail, harmless(t.text)) for t in record.texts
        )
        wanted = [r for r in record.regions if not r.crowd]
        pairs = matched(wanted, taken.regions, size)
        assert len(taken.regions) == len(pairs) == len(wanted)
        for region, back in pairs:
            assert back.kind == region.kind
            assert back.text == (harmless(region.text) if region.text else None)
            assert back.raw_label == (harmless(region.label) if region.label else None)
            assert (back.quad is None) == (region.quad is None)
            if region.quad and back.quad:
                assert is_near(region.quad[:4], back.quad[:4], size) and is_near(region.quad[4:], back.quad[4:], size)
        of_region = {region.id: back.id for region, back in pairs}
        told = {(of_region[t.region_id], harmless(t.text)) for t in record.region_texts}
        assert {(t.region_id, t.text) for t in taken.region_texts} == told
        masks = {mask.region_id: mask for mask in taken.masks}
        assert masks.keys() == {of_region[mask.region_id] for mask in record.masks}
        for mask in record.masks:
            ours, theirs = decode_mask(mask), decode_mask(masks[of_region[mask.region_id]])
            assert (ours & theirs).sum() / (ours | theirs).sum() > 0.85
        assert phrases(taken) == {
            (harmless(words), frozenset(of_region[one] for one in ids)) for words, ids in phrases(record)
        }


def harmless(text: str) -> str:
    """As `florence2.codec` writes it."""
    text = text.strip()
    for token in ("<loc_1>", "<loc_2>", "<loc_7>", "<image>", "</s>", "<OD>", "<and>"):
        text = text.replace(token, f"< {token[1:]}")
    return text


def matched(regions: list[Region], found: Any, size: tuple[int, int]) -> list[tuple[Region, Region]]:
    return [
        (one, other)
        for one in regions
        for other in found
        if one.kind == other.kind and is_near(one.box, other.box, size)
    ]


def phrases(record: Record) -> set[tuple[str, frozenset[str]]]:
    texts = {text.id: text.text for text in record.texts}
    return {(texts[t.text_id][t.start : t.stop], frozenset(t.region_ids)) for t in record.triplets}


USUAL = {"image": "0.png", "prompt": "p", "target": "a dog", "width": 40, "height": 30}
HOSTILE_LINES: dict[str, tuple[Any, str]] = {
    "no object": ([1, 2], "bad_sample"),
    "no image": ({"task": "OD"}, "bad_sample"),
    "zero byte": ({"image": "a\0b.png", "task": "OD"}, "bad_sample"),
    "no target": ({"image": "0.png", "task": "OD", "prompt": "p"}, "bad_sample"),
    "no size": (USUAL | {"task": "OD", "width": "9"}, "bad_sample"),
    "size of half a million digits": (USUAL | {"task": "OD", "width": 10**4000}, "bad_sample"),
    "unknown task": (USUAL | {"task": "DANCE"}, "unknown_task"),
    "three locations": (USUAL | {"task": "OD", "target": "dog<loc_1><loc_2><loc_3>"}, "bad_box"),
    "no label": (USUAL | {"task": "OD", "target": "<loc_1><loc_2><loc_3><loc_4>"}, "bad_box"),
    "seven locations": (USUAL | {"task": "OCR_WITH_REGION", "target": "x" + "<loc_1>" * 7}, "bad_quad"),
    "no region": (USUAL | {"task": "REGION_TO_CATEGORY", "target": "dog"}, "bad_sample"),
    "no outline": (USUAL | {"task": "REFERRING_EXPRESSION_SEGMENTATION"}, "bad_sample"),
    "another caption": (
        USUAL
        | {
            "task": "CAPTION_TO_PHRASE_GROUNDING",
            "prompt": "Locate the phrases in the caption: a dog",
            "target": "a cat<loc_1><loc_2><loc_3><loc_4>",
        },
        "bad_span",
    ),
}


@pytest.mark.parametrize("name", HOSTILE_LINES)
def test_hostile_lines_are_faults(name: str, tmp_path: Path) -> None:
    line, kind = HOSTILE_LINES[name]
    Image.new("RGB", (40, 30)).save(tmp_path / "0.png")
    lines = [USUAL | {"task": "CAPTION"}, line]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines) + "half a li\n")
    listing = Listing([tmp_path / "x.jsonl"])
    (entry,) = listing
    assert [one.text for one in entry.given() if isinstance(one, GivenText)] == ["a dog"]
    assert listing.faults.counts == Counter({kind: 1}) + Counter({"bad_sample": 1})


def test_places_that_lie_outside_or_are_of_another_image_are_told(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "0.png")
    box = "<loc_1><loc_2><loc_903><loc_904>"
    usual = {"image": "0.png", "prompt": "p", "width": 40, "height": 30}
    lines = [
        usual | {"task": "CAPTION", "target": "a dog"},
        usual | {"task": "OD", "target": f"dog{box}", "width": 30, "height": 40},
        usual | {"task": "OCR", "target": "EXIT"},
        usual | {"task": "REGION_PROPOSAL", "target": "<loc_5><loc_5><loc_5><loc_9>"},
        usual | {"task": "CAPTION", "target": "two", "image": "../0.png"},
        usual | {"task": "CAPTION", "target": "three", "image": "1.png"},
    ]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    output = Output(tmp_path / "out")
    ingest(output, Ingest(images=(str(tmp_path / "x.jsonl"),)), "d", lambda done: None)
    (shard,) = output.shards()
    records = read_given(output, shard)
    assert [(r.item.error.kind if r.item.error else None) for r in records] == [None, "outside_root", "missing"]
    assert [text.text for text in records[0].texts] == ["a dog"]
    kinds = Counter(fault.kind for _, fault in read_faults(output, shard))
    assert kinds == {"unread_image": 2, "bad_box": 2, "image_size": 1}  # EXIT, whose place nobody says, and no area

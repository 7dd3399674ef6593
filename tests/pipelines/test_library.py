"""A dataset as others' libraries know one: DataFrames, Ray Data, and a torch dataset that feeds both Florence-2s."""

from __future__ import annotations

import json
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from exporting import SHARES, asked, run
from florence import small_tokens
from PIL import Image
from taught import NOTHING, taught
from torch.utils.data import DataLoader
from training import PROCESSOR, TINY, tiny

from engine.contamination import SCHEMA
from engine.dataset import Dataset, open_dataset
from engine.errors import ConfigError, OutputError, RunError
from engine.layout import Output
from engine.storage import write_table
from florence2.model import Florence2
from florence2.processor import Processor
from florence2.tasks import Task
from pipelines.florence_format import FlorenceFormat
from pipelines.torch_dataset import TorchDataset

TABLES = ("images", "texts", "parses", "regions", "region_texts", "masks", "triplets")
Said = tuple[str, str, str, str]  # image, task, prompt, target


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Output:
    return taught(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def dataset(output: Output) -> Dataset:
    return open_dataset(output.root)


@pytest.fixture(scope="module")
def lines(output: Output, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """All examples, as an export writes them."""
    to = tmp_path_factory.mktemp("export") / "to"
    run(asked(output, FlorenceFormat(), to))
    return [json.loads(line) for path in sorted(to.glob("*/*.jsonl")) for line in path.read_text().splitlines()]


def said(samples: Any) -> Counter[Said]:
    return Counter((one["item_id"], one["task"], one["prompt"], one["target"]) for one in samples)


def in_lines(lines: list[dict[str, Any]], *tasks: Task) -> Counter[Said]:
    return said(line for line in lines if line["task"] in tasks)


# --- tables ----------------------------------------------------------------------------------------------------------


def test_data_frames_have_what_stands(dataset: Dataset) -> None:
    records = {record.item.item_id.hex(): record for record in dataset.records()}
    frames = {name: dataset.to_pandas(name) for name in TABLES}  # type: ignore[arg-type]
    assert frames["images"].set_index("item_id").uri.to_dict() == {id_: r.item.uri for id_, r in records.items()}
    for name in TABLES[1:]:
        rows = list(zip(frames[name].item_id, frames[name].uri, frames[name].id, strict=True))
        wanted = [(id_, r.item.uri, one.id) for id_, r in records.items() for one in getattr(r.standing, name)]
        assert rows == wanted, name
        assert "row" not in frames[name]
    boxes = frames["regions"][["x0", "y0", "x1", "y1"]].to_numpy().tolist()
    assert boxes == [list(region.box) for record in records.values() for region in record.standing.regions]
    assert frames["texts"].groupby("source").composed.mean().to_dict() == {"annotator": 0, "composer": 1, "human": 0}
    assert set(frames["triplets"].phrase) >= {"a dog", "a cat", "two birds"}


def test_what_fell_is_there_where_it_is_asked_for(dataset: Dataset) -> None:
    frame = dataset.to_pandas("regions", standing=False)
    assert set(frame[~frame.stands].label) == {"wolf"}
    assert list(frame.id) == [region.id for record in dataset.records() for region in record.regions]
    assert list(frame[frame.stands].id) == list(dataset.to_pandas("regions").id)


def test_no_such_table_and_nothing_annotated(dataset: Dataset, tmp_path: Path) -> None:
    for method in (dataset.to_pandas, dataset.to_ray):
        with pytest.raises(ConfigError, match=r"expected one of the tables images, texts, .*; got 'boxes'"):
            method("boxes")  # type: ignore[arg-type]
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "manifest.json").write_text('{"partitions": []}')
    with pytest.raises(OutputError, match="nothing annotated in round 0 yet"):
        Dataset(Output(tmp_path)).to_pandas()


def test_ray_streams_a_block_a_shard(dataset: Dataset) -> None:
    import ray.data.dataset

    from engine.config import Run
    from engine.runner import cluster

    with cluster(Run(workers=1)):
        stream = dataset.to_ray("regions", standing=False)
        assert not isinstance(stream, ray.data.dataset.MaterializedDataset)
        blocks = list(stream.iter_batches(batch_size=None, batch_format="pandas"))
        frame = dataset.to_pandas("regions", standing=False)
        assert len(blocks) == len(dataset.shards()) == 4
        assert list(blocks[0].columns) == list(frame.columns)
        found = Counter(item_id + id_ for block in blocks for item_id, id_ in zip(block.item_id, block.id, strict=True))
        assert found == Counter(frame.item_id + frame.id)


# --- examples --------------------------------------------------------------------------------------------------------


def test_samples_are_the_examples_of_an_export(dataset: Dataset, lines: list[dict[str, Any]]) -> None:
    task = [Task.OD, "<CAPTION>", "REGION_TO_SEGMENTATION"]
    samples = list(dataset.to_torch(task))
    assert said(samples) == in_lines(lines, Task.OD, Task.CAPTION, Task.REGION_TO_SEGMENTATION)
    assert len(samples) == 11 * 5
    sizes = {line["item_id"]: (line["width"], line["height"]) for line in lines}
    for sample in samples:
        assert isinstance(sample["image"], Image.Image) and sample["image"].mode == "RGB"
        assert sample["image"].size == sizes[sample["item_id"]], "upright"
    assert sample.keys() == {"image", "task", "prompt", "target", "item_id"}


@pytest.mark.parametrize(("workers", "count"), [(0, 1), (2, 1), (0, 5), (2, 3)])
def test_workers_and_ranks_share_without_doubles_or_losses(
    dataset: Dataset, lines: list[dict[str, Any]], workers: int, count: int
) -> None:
    found: list[Any] = []
    parts = []
    for rank in range(count):
        with distributed(rank, count):
            examples = dataset.to_torch(["OD", "REGION_TO_CATEGORY"])
            part = list(DataLoader(examples, batch_size=None, num_workers=workers))
        parts.append(len(part))
        found += part
    assert said(found) == in_lines(lines, Task.OD, Task.REGION_TO_CATEGORY)
    assert min(parts) > 0, "no rank is idle, though there are more of them than shards"


class distributed:
    """torch.distributed as rank `rank` of `count` has it, without the others."""

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count = rank, count

    def __enter__(self) -> None:
        from torch.testing._internal.distributed.fake_pg import FakeStore

        if self.count > 1:
            torch.distributed.init_process_group("fake", rank=self.rank, world_size=self.count, store=FakeStore())

    def __exit__(self, *error: object) -> None:
        if self.count > 1:
            torch.distributed.destroy_process_group()


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_have_orders_of_their_own(dataset: Dataset, workers: int) -> None:
    examples = dataset.to_torch("REGION_TO_CATEGORY", seed=7, buffer=10)
    loader = DataLoader(examples, batch_size=None, num_workers=workers, persistent_workers=workers > 0)

    def order(epoch: int) -> list[tuple[str, str]]:
        examples.set_epoch(epoch)
        return [(sample["item_id"], sample["prompt"]) for sample in loader]

    first, second, again = order(0), order(1), order(0)
    assert first == again != second
    assert Counter(first) == Counter(second)
    images = [id_ for id_, _ in first]
    assert len({images[n] for n in range(5)}) > 1, "an image's examples do not come together"


def test_without_a_seed_they_come_in_the_order_of_the_set(dataset: Dataset, lines: list[dict[str, Any]]) -> None:
    ids = dict.fromkeys(sample["item_id"] for sample in dataset.to_torch("OD", seed=None))
    there = [record.item for record in dataset.records()]
    assert list(ids) == [item.item_id.hex() for item in there if not item.uri.endswith(NOTHING)]


def test_splits_are_those_of_an_export(dataset: Dataset, lines: list[dict[str, Any]]) -> None:
    splits = {line["item_id"]: line["split"] for line in lines}
    for split in SHARES:
        found = said(dataset.to_torch("OD", split=split, shares=SHARES))
        assert {id_ for id_, *_ in found} == {id_ for id_, of in splits.items() if of == split}
        assert found


def test_images_of_evaluation_sets_are_not_taught(output: Output, dataset: Dataset) -> None:
    ids = [item.item_id for item in dataset.items()]
    rows = [{"item_id": ids[0], "how": "exact", "distance": 0, "against": "val/1.jpg"}]
    write_table(output.contamination, pa.Table.from_pylist(rows, schema=SCHEMA))
    try:
        taught = {one["item_id"] for one in dataset.to_torch(["OD", "CAPTION"], seed=None)}
    finally:
        output.contamination.unlink()
    assert ids[0].hex() in {one["item_id"] for one in dataset.to_torch(["OD", "CAPTION"], seed=None)}
    assert taught and ids[0].hex() not in taught


@pytest.fixture
def gone(output: Output, tmp_path: Path) -> Iterator[str]:
    """One image has been moved away."""
    record = next(record for record in open_dataset(output.root).records() if record.regions)
    shutil.move(record.item.uri, tmp_path / "elsewhere")
    yield record.item.item_id.hex()
    shutil.move(tmp_path / "elsewhere", record.item.uri)


def test_images_that_are_gone_are_counted_or_stop(dataset: Dataset, gone: str) -> None:
    with pytest.warns(UserWarning, match="examples left out: 5 whose image is missing"):
        samples = list(dataset.to_torch("REGION_TO_CATEGORY"))
    assert len(samples) == 10 * 5 and gone not in {sample["item_id"] for sample in samples}
    with pytest.raises(RunError, match=f"image {gone}: no such file: .*missing='skip'"):
        list(dataset.to_torch("OD", missing="stop"))
    with pytest.raises(RunError, match=gone):
        list(DataLoader(dataset.to_torch("OD", missing="stop"), batch_size=None, num_workers=1))


def test_what_can_not_be_is_refused(dataset: Dataset) -> None:
    for options, message in (
        ({"task": "ODD"}, "expected a task, one of CAPTION, .*; got 'ODD'"),
        ({"task": []}, "expected a task"),
        ({"split": "test"}, "expected a split of train, val; got 'test'"),
        ({"missing": "maybe"}, "missing 'skip' or 'stop'"),
        ({"processor": str}, "expected a florence2.Processor or transformers' Florence2Processor; got builtins.type"),
    ):
        with pytest.raises(ConfigError, match=message):
            TorchDataset(dataset, **options)  # type: ignore[arg-type]


# --- both models -----------------------------------------------------------------------------------------------------

ALL = [task.value for task in Task]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, with its processor, that both libraries load."""
    folder = tmp_path_factory.mktemp("model")
    model = tiny()
    model.save_pretrained(folder)
    PROCESSOR.save_pretrained(folder)
    return folder


@pytest.mark.usefixtures("one_thread")
def test_a_step_of_ours_and_of_transformers(dataset: Dataset, saved: Path) -> None:
    """The same examples give both the same loss, and both learn."""
    from transformers import AutoProcessor, Florence2ForConditionalGeneration

    ours = Florence2.from_pretrained(saved).eval()
    theirs = Florence2ForConditionalGeneration.from_pretrained(saved).eval()
    native = AutoProcessor.from_pretrained(saved, backend="pil")
    native.tokenizer.model_max_length = PROCESSOR.positions
    batches = []
    for processor in (PROCESSOR, native):
        examples = dataset.to_torch(["OD", "CAPTION", "REGION_TO_CATEGORY"], processor, seed=3)
        loader = DataLoader(examples, batch_size=8, num_workers=2, collate_fn=examples.collate)
        batches.append(list(loader))
    assert len(batches[0]) == len(batches[1]) > 8
    # A row alone, as prompts of unequal length have pads, in front of which transformers puts its image.
    for mine, other in zip(batches[0][:2], batches[1][:2], strict=True):
        assert torch.equal(mine["labels"], other["labels"])
        torch.testing.assert_close(mine["pixel_values"], other["pixel_values"], atol=0.02, rtol=0)
        features = ours.encode_image(mine["pixel_values"])
        loss = ours.loss(features, mine["input_ids"], mine["attention_mask"], mine["labels"])
        output = theirs(**other)
        assert loss.item() == pytest.approx(output.loss.item(), abs=2e-3)
        for one in (loss, output.loss):
            one.backward()
    for model in (ours, theirs):
        assert sum(float(p.grad.abs().sum()) for p in model.parameters() if p.grad is not None) > 0


def test_tensors_say_what_the_strings_say(dataset: Dataset) -> None:
    examples = dataset.to_torch(ALL, PROCESSOR)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "examples left out")
        samples = list(examples)
    assert len(samples) == 11 * 36
    tokens = small_tokens()
    assert {sample["task"] for sample in samples} == set(Task)
    assert any("< loc_1>" in sample["target"] for sample in samples)
    for sample in samples:
        assert sample["input_ids"].tolist() == tokens.sentence(sample["prompt"])
        assert sample["labels"].tolist() == tokens.sentence(sample["target"])
        assert len(sample["labels"]) <= TINY.text.max_position_embeddings
    batch = examples.collate(samples[:7])
    assert batch["pixel_values"].shape == (7, 3, *PROCESSOR.size)
    for n, sample in enumerate(samples[:7]):
        length = len(sample["labels"])
        assert batch["labels"][n].tolist() == sample["labels"].tolist() + [-100] * (batch["labels"].shape[1] - length)
        assert batch["attention_mask"][n].sum() == len(sample["input_ids"])
        assert set(batch["input_ids"][n, len(sample["input_ids"]) :].tolist()) <= {tokens.pad}


def test_long_lists_are_cut_between_regions(dataset: Dataset) -> None:
    short = Processor(small_tokens(), size=(64, 64), image_tokens=5, positions=32)
    with pytest.warns(UserWarning, match="too long"):
        samples = list(dataset.to_torch(["OD", "CAPTION_TO_PHRASE_GROUNDING"], short))
    found = [sample["target"] for sample in samples if sample["task"] == "OD"]
    assert len(found) == 11
    assert {target.count("<loc_") for target in found} < {4, 8, 12, 16}


def test_without_a_processor_batches_are_lists(dataset: Dataset) -> None:
    examples = dataset.to_torch("CAPTION")
    batch = next(iter(DataLoader(examples, batch_size=3, collate_fn=examples.collate)))
    assert batch["task"] == ["CAPTION"] * 3 and len(batch["image"]) == 3

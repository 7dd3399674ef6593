"""A shard made again by what is known of it: the same as computing it, and nothing is asked that need not be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image
from toys import Brightness, Dark, Looker, Teller

from engine.atomic import write_json
from engine.config import Ingest, Run
from engine.errors import ConfigError
from engine.layout import Output, ShardId
from engine.protocols import Reads, Sample, Specialist, reads_of
from engine.recompute import DECODE, NOTHING, known_of
from engine.records import AnyAnnotation, Decision, Item, Record, Text, digest16
from engine.schema import items_to_table
from engine.storage import read_records, write_table
from engine.testing import check_specialist
from engine.vocabulary import Vocabulary
from engine.worker import Orders, Plan, Worker

SHARD = ShardId(0, 0)
SOURCES = {DECODE: "d", "looker": "l", "teller": "t"}


@pytest.fixture
def output(tmp_path: Path) -> Output:
    """One shard of three images, a twin of the first among them."""
    output = Output(tmp_path / "out")
    items: list[Item] = []
    for number in range(3):
        path = tmp_path / f"{number}.png"
        pixels = np.random.default_rng(max(number, 1)).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((40, 40)).save(path)
        content = digest16(path.read_bytes())
        first = next((item.item_id for item in items if item.content_id == content), None)
        items.append(Item(Item.id_of(str(path)), str(path), content, first, 40, 40))
    write_json(output.manifest, {"partitions": [{"items": 3, "shard_size": 3, "shards": 1}]})
    write_table(output.items(SHARD), items_to_table(items))
    return output


def plan_of(output: Output, **changes: Any) -> Plan:
    diary = str(output.root.parent / "diary")
    plan = Plan(
        output,
        0,
        (Looker(diary=diary), Teller(diary=diary)),
        (Dark(threshold=0.4),),
        "annotate",
        "filter",
        Vocabulary(),
        Ingest(),
        Run(),
        sources=SOURCES,
    )
    return replace(plan, **changes)


def run(plan: Plan) -> tuple[list[Record], set[str]]:
    """What comes of it, and who was loaded or asked."""
    worker = Worker(plan)
    worker.setup()
    for _ in worker.annotate(Orders(SHARD)):
        pass
    diary = plan.output.root.parent / "diary"
    asked = set(diary.read_text().splitlines()) if diary.exists() else set()
    diary.unlink(missing_ok=True)
    return read_records(plan.output, 0, SHARD), asked


def bytes_of(output: Output) -> list[bytes]:
    return [path(SHARD).read_bytes() for path in (output.round(0).annotations, output.round(0).decisions)]


def test_what_is_known_is_replayed_bit_by_bit(output: Output) -> None:
    records, asked = run(plan_of(output))
    assert {line.split()[0] for line in asked} == {"looker", "teller"}
    assert [len(record.decisions) for record in records if not record.item.duplicate_of] == [1, 1]
    before = bytes_of(output)
    for path in output.root.parent.glob("*.png"):
        path.unlink()  # no image is opened, and no specialist loaded
    again, asked = run(plan_of(output, replay=True))
    assert asked == set()
    assert again == records
    assert bytes_of(output) == before


@pytest.mark.parametrize(
    ("sources", "asked"),
    [
        ({"teller": "other"}, {"teller"}),
        ({"looker": "other", "teller": "other"}, {"looker", "teller"}),
        ({DECODE: "other"}, {"looker", "teller"}),
    ],
)
def test_only_those_of_another_digest_are_asked(output: Output, sources: dict[str, str], asked: set[str]) -> None:
    records, _ = run(plan_of(output))
    again, said = run(plan_of(output, replay=True, sources={**SOURCES, **sources}))
    assert {line.split()[0] for line in said} == asked
    assert again == records


def test_without_decisions_nothing_is_known(output: Output) -> None:
    """They have the opinions of specialists, and go before the annotations that they are of are others."""
    records, _ = run(plan_of(output))
    assert known_of(output, 0, SHARD, SOURCES).sources == set(SOURCES)
    output.round(0).decisions(SHARD).unlink()
    assert known_of(output, 0, SHARD, SOURCES) == NOTHING
    again, asked = run(plan_of(output, replay=True))
    assert {line.split()[0] for line in asked} == {"looker", "teller"}
    assert again == records


def test_opinions_come_back_in_their_place(output: Output) -> None:
    records, _ = run(plan_of(output, filters=()))
    assert {d.by for record in records for d in record.decisions} == {"teller"}
    again, _ = run(plan_of(output, filters=(Dark(threshold=1.0),), filter_digest="other", replay=True))
    for before, after in zip(records, again, strict=True):
        assert after.decisions[: len(before.decisions)] == before.decisions
        assert before.item.duplicate_of or {d.by for d in after.decisions[len(before.decisions) :]} == {
            "dark",
            "cascade",
        }


def test_what_was_in_quarantine_runs_whole(output: Output, tmp_path: Path) -> None:
    bad = tmp_path / "0.png.bad"
    bad.touch()
    records, _ = run(plan_of(output))
    assert [record.error is not None for record in records] == [True, False, False]
    bad.unlink()
    again, asked = run(plan_of(output, replay=True))
    assert {line for line in asked if not line.endswith("loaded")} == {"looker 0.png", "teller 0.png"}
    assert [record.error for record in again] == [None] * 3
    assert again[1:] == records[1:]


def test_in_pools_each_replays_its_part(output: Output) -> None:
    records, _ = run(plan_of(output))
    pools = {"one": {"specialists": ["looker"]}, "two": {"specialists": ["teller"]}}
    plan = plan_of(output, replay=True, sources={**SOURCES, "teller": "other"})
    plan = replace(plan, run=Run.model_validate({"pools": pools}))
    first, second = Worker(plan, 0), Worker(plan, 1)
    for worker in (first, second):
        worker.setup()
    *_, half, _ = first.annotate(Orders(SHARD))
    assert not (output.root.parent / "diary").exists()
    for _ in second.annotate(Orders(SHARD), half):  # type: ignore[arg-type]
        pass
    assert "looker" not in (output.root.parent / "diary").read_text()
    assert read_records(output, 0, SHARD) == records


@dataclass
class Miscounting:
    """Answers once too often."""

    name: str = "looker"
    licence: ClassVar[str] = "Apache-2.0"
    version: ClassVar[str] = "1"

    def setup(self) -> None: ...

    def annotate(self, batch: Sequence[Sample]) -> Sequence[Iterable[AnyAnnotation | Decision]]:
        return [[] for _ in range(len(batch) + 1)]


def test_a_wrong_number_of_answers_is_a_fault_in_a_replay_too(output: Output, tmp_path: Path) -> None:
    (tmp_path / "0.png.bad").touch()
    run(plan_of(output))
    plan = plan_of(output, specialists=(Miscounting(), plan_of(output).specialists[1]), replay=True)
    records, _ = run(plan)
    assert records[0].error is not None
    assert "2 answers for 1 images" in records[0].error.message
    assert records[1].error is None


@dataclass
class Odd(Brightness):
    reads: str = "pictures"


def test_a_specialist_that_does_not_say_reads_the_record() -> None:
    image, record, silent = Looker(), Teller(), Brightness()
    assert [reads_of(one) for one in (image, record, silent)] == ["image", "record", "record"]
    odd: Specialist = Odd()
    with pytest.raises(ConfigError, match="`reads` must be one of image, record, not 'pictures'"):
        reads_of(odd)


@dataclass
class Honest(Brightness):
    name: str = "honest"
    reads: ClassVar[Reads] = "image"


@dataclass
class Lying(Honest):
    """Goes by what is in the record, and says that it doesn't."""

    name: str = "lying"

    def annotate(self, batch: Sequence[Sample]) -> Sequence[Iterable[AnyAnnotation]]:
        answers = zip(batch, super().annotate(batch), strict=True)
        return [[] if sample.record.texts else answer for sample, answer in answers]


def test_the_contract_kit_finds_who_reads_more_than_the_image() -> None:
    check_specialist(Honest())
    with pytest.raises(AssertionError, match=r'(?s)reads = "image".*Say reads = "record"'):
        check_specialist(Lying())


def test_what_came_along_is_not_replayed(output: Output) -> None:
    """It is read anew, and stands before the rest, also if its source is called as a specialist is."""
    given = Text(id="0.looker.0", source="looker", text="it came along", detail="brief")
    record = replace(run(plan_of(output))[0][0], texts=(given,), regions=(), decisions=())
    known = known_of(output, 0, SHARD, SOURCES)
    old = known.records[record.item.item_id]
    assert [a.id for a in old.annotations() if a.source == "looker"] == ["0.looker.0"]
    assert known.answer(record, "looker") == ()
    assert known.answer(replace(record, texts=()), "looker") == old.regions

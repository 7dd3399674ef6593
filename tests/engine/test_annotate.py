"""Annotating in one process: items in = records out, and a fault stays with the image it came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from toys import Brightness, Dark

from engine.annotate import annotate
from engine.config import Http, Ingest
from engine.decide import decide
from engine.download import Downloader
from engine.entry import Entry
from engine.errors import RunError
from engine.ingest import item_of
from engine.records import Item, Record, Region

NO_NET = Downloader(Path("nowhere"), Http(), max_bytes=0)


@pytest.fixture
def items(image_set: Callable[..., Path]) -> list[Item]:
    return [item_of(Entry(str(path)), Ingest(), NO_NET) for path in sorted(image_set(4).iterdir())]


def run(items: list[Item], specialist: object, filters: tuple[object, ...] = ()) -> list[Record]:
    return annotate([Record(item, error=item.error) for item in items], [specialist], filters, Ingest(), {})  # type: ignore[list-item, arg-type]


def ready(**parameters: object) -> Brightness:
    specialist = Brightness(**parameters)  # type: ignore[arg-type]
    specialist.setup()
    return specialist


def test_every_item_comes_back_in_order(items: list[Item]) -> None:
    records = run(items, ready())
    assert [record.item for record in records] == items
    assert all(len(record.regions) == 1 and record.error is None for record in records)


def test_one_that_raises_is_quarantined_alone(items: list[Item]) -> None:
    records = run(items, ready(troubles={"0002.png": "raise"}))
    errors = [record.error for record in records]
    assert [error is not None for error in errors] == [False, False, True, False]
    assert errors[2] is not None
    assert (errors[2].stage, errors[2].kind) == ("brightness", "raised")
    assert errors[2].message == "ValueError: can't bear 0002.png"
    assert [len(record.regions) for record in records] == [1, 1, 0, 1]


def test_what_no_image_can_help_ends_the_run(items: list[Item]) -> None:
    with pytest.raises(RunError, match=r"^the budget is spent$"):
        run(items, ready(troubles={"0002.png": "stop"}))


def test_unreadable_items_and_duplicates_are_rows_without_annotations(items: list[Item], tmp_path: Path) -> None:
    missing = item_of(Entry(str(tmp_path / "nowhere.png")), Ingest(), NO_NET)
    duplicate = replace(items[1], item_id=b"d" * 16, duplicate_of=items[0].item_id)
    records = run([missing, items[0], duplicate], ready())
    assert records[0].error is not None
    assert records[0].error.kind == "missing"
    assert [len(record.regions) for record in records] == [0, 1, 0]


def test_an_image_that_changed_since_ingest_is_quarantined(items: list[Item]) -> None:
    Path(items[0].uri).write_bytes(Path(items[1].uri).read_bytes())  # of the same size
    first, second = run(items[:2], ready())
    assert first.error is not None
    assert first.error.kind == "changed"
    assert second.error is None


def test_an_image_that_went_away_since_ingest_is_quarantined(items: list[Item]) -> None:
    Path(items[0].uri).unlink()
    records = run(items, ready())
    assert [record.error.kind if record.error else None for record in records] == ["missing", None, None, None]


@dataclass
class Broken(Brightness):
    """Answers as `how` says it should not."""

    how: str = ""

    def annotate(self, batch):  # type: ignore[no-untyped-def]
        answers = super().annotate(batch)
        match self.how:
            case "too few":
                return answers[:-1]
            case "another's name":
                return [[replace(region, source="somebody") for region in answer] for answer in answers]
            case "id twice":
                return [answer * 2 for answer in answers]
            case "not a number":
                return [[replace(region, box=(0, 0, float("nan"), 1)) for region in answer] for answer in answers]
        return answers


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("too few", "0 answers for 1 images"),
        ("another's name", "'somebody'"),
        ("id twice", "0.brightness.0 twice"),
        ("not a number", "4 finite numbers"),
    ],
)
def test_a_specialist_that_breaks_the_rules_is_told_so(items: list[Item], how: str, says: str) -> None:
    specialist = Broken(how=how)
    specialist.setup()
    for record in run(items, specialist):
        assert record.error is not None
        assert says in record.error.message
        assert not record.regions


def test_filters_see_what_stands_and_keep_what_they_measured(items: list[Item]) -> None:
    (record,) = run(items[:1], ready(), (Dark("first", 2.0), Dark("second", 3.0)))
    (decision,) = record.decisions
    assert decision.by == "first"
    assert decision.value == record.regions[0].scores.label
    assert not record.standing.regions
    assert len(record.regions) == 1


@dataclass(frozen=True)
class Raising:
    name: str = "raising"

    def decide(self, record: Record) -> list[object]:
        raise RuntimeError("no idea")


def test_a_filter_that_raises_sends_the_item_to_quarantine(items: list[Item]) -> None:
    (record,) = run(items[:1], ready(), (Raising(),))
    assert record.error is not None
    assert (record.error.stage, record.error.message) == ("raising", "RuntimeError: no idea")


def test_deciding_again_needs_no_image(items: list[Item]) -> None:
    region = Region(id="0.x.0", source="x", kind="object", box=(0, 0, 1, 1))
    record = Record(replace(items[0], uri="/gone.png")).append([region])
    assert decide(record, [Dark()]).standing.regions == (region,)

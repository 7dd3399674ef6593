"""Flat tables say what records say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from strategies import records

from engine.flat import Flat, flatten
from engine.records import Record, Region
from engine.schema import annotations_to_table, decisions_to_table, items_to_table
from engine.storage import Tables


def tables_of(some: list[Record]) -> Tables:
    """As they would be read of a shard with one round."""
    layer = annotations_to_table(some), decisions_to_table(some)
    return Tables(items_to_table([record.item for record in some]), (layer,), (0,))


def rows(table: pa.Table, *fields: str) -> list[tuple[Any, ...]]:
    return list(zip(table["row"].to_pylist(), *(table[field].to_pylist() for field in fields), strict=True))


def expected(some: list[Record], column: str, *fields: str) -> list[tuple[Any, ...]]:
    return [
        (row, *(getattr(annotation, field) for field in fields))
        for row, record in enumerate(some)
        for annotation in getattr(record.standing, column)
    ]


@given(st.lists(records(max_rounds=1), min_size=1, max_size=4))
def test_tables_have_what_stands(some: list[Record]) -> None:
    flat = flatten(tables_of(some))
    for column, fields in {
        "texts": ("id", "source", "text", "detail"),
        "parses": ("id", "source", "text_id", "objects", "object_complexity"),
        "regions": ("id", "source", "kind", "label", "raw_label", "text", "crowd", "score"),
        "region_texts": ("id", "source", "region_id", "text"),
        "masks": ("id", "source", "region_id", "counts"),
    }.items():
        assert rows(flat[column], *fields) == expected(some, column, *fields), column
    boxes = [(row, *region.box) for row, record in enumerate(some) for region in record.standing.regions]
    assert rows(flat["regions"], "x0", "y0", "x1", "y1") == boxes
    sizes = [(row, *mask.size) for row, record in enumerate(some) for mask in record.standing.masks]
    assert rows(flat["masks"], "height", "width") == sizes
    for name in ("label", "phrase", "box", "mask", "calibrated"):
        scores = [(row, getattr(one.scores, name)) for row, record in enumerate(some) for one in record.standing.texts]
        assert rows(flat["texts"], f"{name}_score") == scores
    errors = [record.item.error or record.error for record in some]
    assert [row["kind"] if row else None for row in flat.images["error"].to_pylist()] == [
        error.kind if error else None for error in errors
    ]
    assert flat.images["item_id"].to_pylist() == [record.item.item_id.hex() for record in some]
    contents = [record.item.content_id for record in some]
    assert flat.images["content_id"].to_pylist() == [content.hex() if content else None for content in contents]


@given(st.lists(records(max_rounds=1), min_size=1, max_size=4))
def test_texts_know_whether_they_are_composed_and_triplets_their_phrase(some: list[Record]) -> None:
    everything = flatten(tables_of(some), standing=False)
    by_id = [record.by_id for record in some]
    for row, id_, composed, stands in rows(everything["texts"], "id", "composed", "stands"):
        assert composed == any(isinstance(by_id[row][one], Region) for one in by_id[row][id_].derived_from)
        assert stands == (id_ not in some[row].fallen)
    for row, id_, phrase in rows(everything["triplets"], "id", "phrase"):
        triplet = by_id[row][id_]
        assert phrase == by_id[row][triplet.text_id].text[triplet.start : triplet.stop]  # type: ignore[union-attr]


@given(st.lists(records(max_rounds=1), min_size=1, max_size=4))
def test_triplets_name_what_stands(some: list[Record]) -> None:
    found = rows(flatten(tables_of(some))["triplets"], "id", "region_ids")
    wanted = []
    for row, record in enumerate(some):
        for triplet in record.standing.triplets:
            named = list(dict.fromkeys(filter(None, (heir(record, id_) for id_ in triplet.region_ids))))
            if not record.fallen.intersection(triplet.region_ids):
                wanted.append((row, triplet.id, list(triplet.region_ids)))
            elif named:
                wanted.append((row, triplet.id, named))
    assert found == wanted


def heir(record: Record, region_id: str) -> str | None:
    """The one that stands in a region's place, one decision after the other."""
    against = {
        d.annotation_id: d.against for d in record.decisions if d.action in ("reject", "supersede") and d.against
    }
    label, seen = record.by_id[region_id].label, set()  # type: ignore[union-attr]
    while region_id in record.fallen:
        if region_id in seen or region_id not in against:
            return None
        seen.add(region_id)
        region_id = against[region_id]
    other = record.by_id[region_id]
    return region_id if isinstance(other, Region) and other.label == label else None


@given(st.lists(records(max_rounds=1), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_what_hangs_on_a_region_goes_with_it(some: list[Record], random: Any) -> None:
    flat = flatten(tables_of(some))
    kept = np.array([random.random() < 0.5 for _ in range(len(flat["regions"]))], bool)
    fewer = flat.without("regions", kept)
    there = set(rows(fewer["regions"], "id"))
    assert fewer["regions"].num_rows == kept.sum()
    known = set(rows(flat["regions"], "id"))  # of what fell before a mask may have been left, with these decisions
    for name in ("masks", "region_texts"):
        hung = [(row, id_) for row, id_, of in rows(flat[name], "id", "region_id") if (row, of) in there]
        left = [(row, id_) for row, id_, of in rows(fewer[name], "id", "region_id") if (row, of) in known]
        assert left == hung
    named = {(row, id_): regions for row, id_, regions in rows(flat["triplets"], "id", "region_ids")}
    still_named = {(row, id_): regions for row, id_, regions in rows(fewer["triplets"], "id", "region_ids")}
    for key, before in named.items():
        still = [id_ for id_ in dict.fromkeys(before) if (key[0], id_) in there]
        if all((key[0], id_) in there for id_ in before):
            assert still_named[key] == before
        elif still:
            assert still_named[key] == still
        else:
            assert key not in still_named


def test_an_empty_shard_has_empty_tables() -> None:
    flat = flatten(Tables(items_to_table([]), ((annotations_to_table([]), decisions_to_table([])),), (0,)))
    assert isinstance(flat, Flat) and len(flat.images) == 0
    assert {name: len(table) for name, table in flat.annotations.items()} == dict.fromkeys(flat.annotations, 0)

"""Parquet tables: DuckDB, pandas and pyarrow read them, and they say what the records say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from exporting import SHARES, asked, run, standing
from known import known

from engine.export.parquet import Parquet
from engine.geometry import decode_mask
from engine.images import probe
from engine.layout import Output
from engine.records import Mask, Record, Region, Triplet

TABLES = ("texts", "regions", "region_texts", "masks", "triplets")
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Output:
    return known(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def exported(output: Output, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("export") / "to"
    run(asked(output, Parquet(), to))
    return to


def by_duckdb(folder: Path) -> Rows:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as connection:
        found = connection.sql(f"SELECT * FROM read_parquet('{folder}/*/*.parquet')")
        return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def by_pandas(folder: Path) -> Rows:
    import pandas

    frames = [pandas.read_parquet(path, dtype_backend="pyarrow") for path in sorted(folder.glob("*/*.parquet"))]
    rows = pandas.concat(frames).to_dict("records")
    return [{name: None if value is pandas.NA else value for name, value in row.items()} for row in rows]


def by_pyarrow(folder: Path) -> Rows:
    files = [str(path) for path in sorted(folder.glob("*/*.parquet"))]  # copies of images may lie beside them
    rows: Rows = ds.dataset(files, format="parquet").to_table().to_pylist()
    return rows


READERS = (by_duckdb, by_pandas, by_pyarrow)


def annotations(record: Record, name: str) -> dict[str, Any]:
    return {one.id: one for one in getattr(record, name)}


@pytest.mark.parametrize("read", READERS)
def test_tables_say_what_the_records_say(output: Output, exported: Path, read: Callable[[Path], Rows]) -> None:
    records = standing(output)
    for name in TABLES:
        rows = read(exported / name)
        told = {item_id: annotations(record, name) for item_id, record in records.items()}
        assert sorted((row["item_id"], row["id"]) for row in rows) == sorted(
            (item_id, id_) for item_id, some in told.items() for id_ in some
        )
        for row in rows:
            check(row, told[row["item_id"]][row["id"]], records[row["item_id"]])


def check(row: dict[str, Any], one: Any, record: Record) -> None:
    assert row["source"] == one.source and row["split"] in SHARES
    assert list(row["derived_from"]) == list(one.derived_from)
    for score in ("label", "phrase", "box", "mask", "calibrated"):
        assert row[f"{score}_score"] == getattr(one.scores, score)
    for field in ("text", "detail", "kind", "raw_label", "crowd", "region_id", "text_id", "start", "stop"):
        if hasattr(one, field):
            assert row[field] == getattr(one, field), field
    if isinstance(one, Region):
        assert (row["x0"], row["y0"], row["x1"], row["y1"]) == one.box
        assert (None if row["quad"] is None else tuple(row["quad"])) == one.quad
        assert row["score"] == one.score
        assert row["label"] == (" ".join(one.raw_label.casefold().split()) if one.raw_label else None)
    elif isinstance(one, Mask):
        again = replace(one, size=(row["height"], row["width"]), counts=bytes(row["counts"]))
        assert np.array_equal(decode_mask(again), decode_mask(one))
    elif isinstance(one, Triplet):
        text = next(text.text for text in record.texts if text.id == one.text_id)
        assert row["phrase"] == text[one.start : one.stop]
        assert tuple(row["region_ids"]) == one.region_ids


@pytest.mark.parametrize("read", READERS)
def test_the_table_of_images(output: Output, exported: Path, read: Callable[[Path], Rows]) -> None:
    records = standing(output)
    rows = read(exported / "images")
    assert sorted(row["item_id"] for row in rows) == sorted(records)
    for row in rows:
        item = records[row["item_id"]].item
        assert (row["uri"], row["width"], row["height"]) == (item.uri, item.width, item.height)
        assert (row["dataset"], row["licence"], tuple(row["labels"])) == (item.dataset, item.licence, item.labels)
        assert row["file"] == item.uri and item.content_id and row["content_id"] == item.content_id.hex()
        assert not {"row", "number", "error", "duplicate_of"} & set(row)


def test_a_question_that_needs_two_tables(output: Output, exported: Path) -> None:
    """Which things a phrase names: texts, regions and triplets belong together by their ids."""
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as connection:
        found = connection.sql(f"""
            SELECT t.item_id, t.phrase, r.label, r.x0, x.text
            FROM (SELECT *, unnest(region_ids) AS region_id FROM '{exported}/triplets/*/*.parquet') t
            JOIN '{exported}/regions/*/*.parquet' r ON r.item_id = t.item_id AND r.id = t.region_id
            JOIN '{exported}/texts/*/*.parquet' x ON x.item_id = t.item_id AND x.id = t.text_id
            WHERE x.text[t.start + 1 : t.stop] = t.phrase
        """).fetchall()
    wanted = []
    for item_id, record in standing(output).items():
        texts, regions = annotations(record, "texts"), annotations(record, "regions")
        for one in record.triplets:
            text = texts[one.text_id].text
            things = [regions[id_] for id_ in one.region_ids]
            wanted += [
                (item_id, text[one.start : one.stop], (r.raw_label or "").casefold(), r.box[0], text) for r in things
            ]
    assert sorted((*row[:2], " ".join(row[2].split()), *row[3:]) for row in found) == sorted(
        (*row[:2], " ".join(row[2].split()), *row[3:]) for row in wanted
    )
    assert len(wanted) == 6 * 7


def test_every_file_of_a_table_has_the_same_columns(exported: Path) -> None:
    for name in ("images", *TABLES):
        schemas = {str(pq.read_schema(path)) for path in exported.glob(f"{name}/*/*.parquet")}
        assert len(schemas) == 1, name


def test_splits_are_folders(exported: Path) -> None:
    for path in exported.glob("*/*/*.parquet"):
        assert set(pq.read_table(path, columns=["split"])["split"].to_pylist()) <= {path.parent.name}


@pytest.mark.parametrize("how", ["copy", "link"])
def test_images_that_come_along_are_found_and_upright(output: Output, tmp_path: Path, how: Any) -> None:
    run(asked(output, Parquet(), tmp_path / "to", how=how))
    rows = by_pyarrow(tmp_path / "to" / "images")
    assert len(rows) == 7
    for row in rows:
        data = (tmp_path / "to" / row["file"]).read_bytes()
        assert probe(data, max_pixels=10**8) == (row["width"], row["height"])
        assert row["file"] == f"images/{row['split']}/{row['item_id']}.{row['file'].rpartition('.')[2]}"
        assert (tmp_path / "to" / row["file"]).is_symlink() == (how == "link" and "turned" not in row["uri"])


def test_kinds_that_are_not_asked_for_are_not_there(output: Output, tmp_path: Path) -> None:
    run(asked(output, Parquet(), tmp_path / "to", kinds=("texts", "lines")))
    folders = {path.name for path in (tmp_path / "to").iterdir() if path.is_dir()}
    assert folders == {"images", "texts", "regions"}
    assert {row["kind"] for row in by_pyarrow(tmp_path / "to" / "regions")} == {"text"}

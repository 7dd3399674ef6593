"""Records go to Arrow and Parquet and come back unchanged, and the schema does not drift unseen."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import records

from engine import schema
from engine.records import Record

GOLDEN = Path(__file__).parents[1] / "golden" / "schema.txt"


def through_parquet(table: pa.Table) -> pa.Table:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return pq.read_table(io.BytesIO(sink.getvalue()))


@given(st.lists(records(), max_size=3))
@settings(max_examples=60, deadline=None)
def test_round_trip(made: list[Record]) -> None:
    tables = [
        through_parquet(schema.items_to_table([record.item for record in made])),
        through_parquet(schema.annotations_to_table(made)),
        through_parquet(schema.decisions_to_table(made)),
    ]
    back = [schema.records_from_tables(*(t.slice(n, 1) for t in tables), made[n].round)[0] for n in range(len(made))]
    assert back == made


def test_tables_have_the_schema_after_parquet() -> None:
    assert through_parquet(schema.items_to_table([])).schema.equals(schema.ITEMS)
    assert through_parquet(schema.annotations_to_table([])).schema.equals(schema.ANNOTATIONS)
    assert through_parquet(schema.decisions_to_table([])).schema.equals(schema.DECISIONS)


def outline(field: pa.Field, depth: int = 0) -> list[str]:
    """A field and what is nested in it, a line each; pyarrow's own rendering changes with its releases."""
    kind = str(field.type).partition("<")[0]
    size = f"[{field.type.list_size}]" if pa.types.is_fixed_size_list(field.type) else ""
    line = f"{'  ' * depth}{field.name}: {kind}{size}{'' if field.nullable else ', required'}"
    inner = [field.type.field(n) for n in range(field.type.num_fields)]
    return [line, *(text for child in inner for text in outline(child, depth + 1))]


def test_schema_is_the_golden_one() -> None:
    """A change here must be a new VERSION: written datasets outlive the code. Rewrite the file only with it."""
    lines = [f"version {schema.VERSION}"]
    for name in ("ITEMS", "ANNOTATIONS", "DECISIONS"):
        lines += ["", name, *(line for field in getattr(schema, name) for line in outline(field))]
    assert lines == GOLDEN.read_text().splitlines()

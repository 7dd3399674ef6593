"""The Arrow schema, versioned and explicit, and the two ways between records and tables.

Three tables, one row an item in each, in the same order: items (the manifest), annotations, decisions; and before
them, where there are any, the annotations that came along with the images. Masks have a
column of their own because Parquet readers can't project inside a list of structs: regions must be readable
without their masks. A change here is a change of VERSION and of the golden file that the tests compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from engine.entry import Fault
from engine.records import (
    Decision,
    Item,
    ItemError,
    Mask,
    Parse,
    Phrase,
    Record,
    Region,
    RegionText,
    Scores,
    Text,
    Triplet,
)

VERSION = 3

_id = pa.binary(16)
_names = pa.list_(pa.string())
_error = pa.struct([("stage", pa.string()), ("kind", pa.string()), ("message", pa.string())])
_scores = pa.struct([(name, pa.float64()) for name in ("label", "phrase", "box", "mask", "calibrated")])


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


_annotation = [
    _required("id", pa.string()),
    _required("source", pa.string()),
    _required("derived_from", _names),
    _required("scores", _scores),
]
_text = pa.struct([*_annotation, _required("text", pa.string()), _required("detail", pa.string())])
_phrase = pa.struct(
    [
        _required("start", pa.int32()),
        _required("stop", pa.int32()),
        _required("head", pa.string()),
        _required("modifiers", _names),
        pa.field("count", pa.int32()),
        _required("expression_start", pa.int32()),
        _required("expression_stop", pa.int32()),
    ]
)
_parse = pa.struct(
    [
        *_annotation,
        _required("text_id", pa.string()),
        *(_required(name, pa.int32()) for name in ("objects", "attributes", "actions", "proper_nouns")),
        *(_required(f"{name}_complexity", pa.float64()) for name in ("object", "action")),
        *(_required(f"max_{name}_complexity", pa.int32()) for name in ("object", "action")),
        _required("phrases", pa.list_(_phrase)),
    ]
)
_region = pa.struct(
    [
        *_annotation,
        _required("kind", pa.string()),
        _required("box", pa.list_(pa.float32(), 4)),
        pa.field(
            "quad", pa.list_(pa.float32())
        ),  # 8 numbers or null; Arrow's fixed-size lists can't be null in Parquet
        pa.field("raw_label", pa.string()),
        pa.field("label", pa.string()),
        pa.field("text", pa.string()),
        _required("crowd", pa.bool_()),
    ]
)
_region_text = pa.struct([*_annotation, _required("region_id", pa.string()), _required("text", pa.string())])
_mask = pa.struct(
    [
        *_annotation,
        _required("region_id", pa.string()),
        _required("size", pa.list_(pa.int32(), 2)),
        _required("counts", pa.binary()),
    ]
)
_triplet = pa.struct(
    [
        *_annotation,
        _required("text_id", pa.string()),
        _required("start", pa.int32()),
        _required("stop", pa.int32()),
        _required("region_ids", _names),
    ]
)
_decision = pa.struct(
    [
        _required("annotation_id", pa.string()),
        _required("action", pa.string()),
        _required("by", pa.string()),
        _required("reason", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("threshold", pa.float64()),
        pa.field("against", pa.string()),
        _required("round", pa.int32()),
    ]
)

ITEMS = pa.schema(
    [
        _required("item_id", _id),
        _required("uri", pa.string()),
        pa.field("content_id", _id),
        pa.field("duplicate_of", _id),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("dataset", pa.string()),
        pa.field("licence", pa.string()),
        _required("labels", _names),
        pa.field("error", _error),
    ]
)
ANNOTATIONS = pa.schema(
    [
        _required("item_id", _id),
        pa.field("error", _error),
        pa.field("perceptual_hash", pa.binary(8)),
        _required("texts", pa.list_(_text)),
        _required("parses", pa.list_(_parse)),
        _required("regions", pa.list_(_region)),
        _required("region_texts", pa.list_(_region_text)),
        _required("masks", pa.list_(_mask)),
        _required("triplets", pa.list_(_triplet)),
    ]
)
ANNOTATION_COLUMNS = tuple(ANNOTATIONS.names[3:])
GIVEN = ANNOTATIONS.append(
    _required("faults", pa.list_(pa.struct([_required(name, pa.string()) for name in ("where", "kind", "message")])))
)
DECISIONS = pa.schema([_required("item_id", _id), _required("decisions", pa.list_(_decision))])


def items_to_table(items: Sequence[Item]) -> pa.Table:
    return pa.Table.from_pylist([_row(item) for item in items], schema=ITEMS)


def items_from_table(table: pa.Table) -> list[Item]:
    return [_item(row) for row in table.to_pylist()]


def annotations_to_table(records: Sequence[Record]) -> pa.Table:
    """The annotation columns of `records`, without their items and decisions."""
    rows = [
        {
            "item_id": record.item.item_id,
            "error": _row(record.error) if record.error else None,
            "perceptual_hash": record.perceptual_hash,
            "texts": [_row(text) for text in record.texts],
            "parses": [_row(parse) for parse in record.parses],
            "regions": [_row(region) for region in record.regions],
            "region_texts": [_row(text) for text in record.region_texts],
            "masks": [_row(mask) for mask in record.masks],
            "triplets": [_row(triplet) for triplet in record.triplets],
        }
        for record in records
    ]
    return pa.Table.from_pylist(rows, schema=ANNOTATIONS)


def given_to_table(taken: Sequence[tuple[Record, Sequence[Fault]]]) -> pa.Table:
    """The annotations that came along with images, with what was wrong with them."""
    table = annotations_to_table([record for record, _ in taken])
    faults = [[_row(fault) for fault in some] for _, some in taken]
    return table.append_column(GIVEN.field("faults"), pa.array(faults, GIVEN.field("faults").type))


def faults_from_table(table: pa.Table) -> list[tuple[bytes, Fault]]:
    return [(row["item_id"], Fault(**fault)) for row in table.to_pylist() for fault in row["faults"]]


def decisions_to_table(records: Sequence[Record]) -> pa.Table:
    rows = [
        {"item_id": record.item.item_id, "decisions": [_row(decision) for decision in record.decisions]}
        for record in records
    ]
    return pa.Table.from_pylist(rows, schema=DECISIONS)


def records_from_tables(
    items: pa.Table, annotations: pa.Table, decisions: pa.Table | None = None, round: int = 0
) -> list[Record]:
    """Records of one shard from its tables. Annotation columns that were not read are empty in the records."""
    rows = annotations.to_pylist()
    decided = decisions.column("decisions").to_pylist() if decisions is not None else [[]] * len(rows)
    return [
        Record(
            item=item,
            texts=tuple(Text(**_annotation_fields(text)) for text in row.get("texts", ())),
            parses=tuple(_parse_of(parse) for parse in row.get("parses", ())),
            regions=tuple(_region_of(region) for region in row.get("regions", ())),
            region_texts=tuple(RegionText(**_annotation_fields(text)) for text in row.get("region_texts", ())),
            masks=tuple(_mask_of(mask) for mask in row.get("masks", ())),
            triplets=tuple(_triplet_of(triplet) for triplet in row.get("triplets", ())),
            decisions=tuple(Decision(**decision) for decision in chosen),
            error=_error_of(row["error"]),
            perceptual_hash=row.get("perceptual_hash"),
            round=round,
        )
        for item, row, chosen in zip(items_from_table(items), rows, decided, strict=True)
    ]


def _row(value: Any) -> dict[str, Any]:
    """A dataclass as a dictionary; nested dataclasses too. `dataclasses.asdict` copies deeply and is 5 times slower."""
    row = {
        name: _row(field) if isinstance(field := getattr(value, name), (Scores, ItemError)) else field
        for name in value.__dataclass_fields__
    }
    if isinstance(value, Parse):
        row["phrases"] = [_row(phrase) for phrase in value.phrases]
    return row


def _item(row: dict[str, Any]) -> Item:
    return Item(**{**row, "labels": tuple(row["labels"]), "error": _error_of(row["error"])})


def _error_of(row: dict[str, str] | None) -> ItemError | None:
    return ItemError(**row) if row else None


def _annotation_fields(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "derived_from": tuple(row["derived_from"]), "scores": Scores(**row["scores"])}


def _parse_of(row: dict[str, Any]) -> Parse:
    phrases = tuple(Phrase(**{**phrase, "modifiers": tuple(phrase["modifiers"])}) for phrase in row["phrases"])
    return Parse(**{**_annotation_fields(row), "phrases": phrases})


def _region_of(row: dict[str, Any]) -> Region:
    fields = _annotation_fields(row)
    fields["box"] = tuple(row["box"])
    fields["quad"] = tuple(row["quad"]) if row["quad"] is not None else None
    return Region(**fields)


def _mask_of(row: dict[str, Any]) -> Mask:
    return Mask(**{**_annotation_fields(row), "size": tuple(row["size"])})


def _triplet_of(row: dict[str, Any]) -> Triplet:
    return Triplet(**{**_annotation_fields(row), "region_ids": tuple(row["region_ids"])})

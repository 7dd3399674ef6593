"""Whether what a shard's annotations and decisions speak of is there. On Arrow's columns: no object an annotation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine.schema import ANNOTATION_COLUMNS

Ints = npt.NDArray[np.int64]
# Column -> the field by which it refers, and the column that it refers to.
REFERS = {
    "region_texts": ("region_id", "regions"),
    "masks": ("region_id", "regions"),
    "triplets": ("text_id", "texts"),
    "parses": ("text_id", "texts"),
}
ANY = "annotations"


@dataclass(frozen=True)
class Fault:
    """What is wrong with one layer (by its place), with how many, and the first: its row and words."""

    layer: int
    kind: str
    count: int
    row: int
    message: str
    in_decisions: bool = False


@dataclass(frozen=True)
class _Ids:
    """A column of annotation ids, or of references to such: each with its row, the column it is of or refers to."""

    layer: int
    what: str
    of: str
    rows: Ints
    ids: pa.Array


def faults(items: pa.Table, layers: Sequence[tuple[pa.Table, pa.Table | None]]) -> Iterator[Fault]:
    """Of layers in order, each annotations and, if they are there, decisions; all of the same rows as `items`."""
    defined: list[_Ids] = []
    used: list[_Ids] = []
    for place, (made, decisions) in enumerate(layers):
        for column in ANNOTATION_COLUMNS:
            rows, values = _values(made, column)
            defined.append(_Ids(place, column, column, rows, values.field("id")))
            used += _references(place, column, rows, values)
        if decisions is not None:
            rows, values = _values(decisions, "decisions")
            used.append(_Ids(place, "decisions", ANY, rows, values.field("annotation_id")))
        yield from _of_boxes(place, made)
        yield from _of_masks(place, made, items)
    keys = _keys([*defined, *used])
    of_defined, of_used = keys[: len(defined)], keys[len(defined) :]
    yield from _doubles(defined, of_defined)
    for ids, own in zip(used, of_used, strict=True):
        known = [k for d, k in zip(defined, of_defined, strict=True) if d.layer <= ids.layer and ids.of in (d.of, ANY)]
        yield from _dangling(ids, own, np.concatenate(known) if known else np.empty(0, np.int64))
    yield from _spans(layers, defined, of_defined)


def _references(place: int, column: str, rows: Ints, values: pa.StructArray) -> Iterator[_Ids]:
    if column in REFERS:
        field, target = REFERS[column]
        yield _Ids(place, column, target, rows, values.field(field))
    for field, target in (("derived_from", ANY), *((("region_ids", "regions"),) if column == "triplets" else ())):
        lists = values.field(field)
        parents = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
        yield _Ids(place, column, target, rows[parents], lists.flatten())


def _values(table: pa.Table, column: str) -> tuple[Ints, pa.StructArray]:
    lists = table.column(column).combine_chunks()
    rows = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False).astype(np.int64)
    return rows, lists.flatten()


def _keys(columns: Sequence[_Ids]) -> list[Ints]:
    """A whole number for each row and id: equal ones for equal pairs, over all columns."""
    arrays = [one.ids.cast(pa.string()) for one in columns]
    codes = pa.concat_arrays(arrays).dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    most = int(codes.max(initial=0)) + 1
    bounds = np.cumsum([len(array) for array in arrays])[:-1]
    return [one.rows * most + part for one, part in zip(columns, np.split(codes, bounds), strict=True)]


def _doubles(defined: Sequence[_Ids], keys: Sequence[Ints]) -> Iterator[Fault]:
    """Ids that an image has twice, blamed on the layer that came later."""
    seen = np.empty(0, np.int64)
    for place in sorted({ids.layer for ids in defined}):
        own = np.concatenate([k for ids, k in zip(defined, keys, strict=True) if ids.layer == place])
        rows = np.concatenate([ids.rows for ids in defined if ids.layer == place])
        names = pa.concat_arrays([ids.ids for ids in defined if ids.layer == place])
        first = np.zeros(len(own), bool)
        first[np.unique(own, return_index=True)[1]] = True
        bad = np.flatnonzero(~first | np.isin(own, seen))
        if len(bad):
            name = names[int(bad[0])].as_py()
            yield Fault(place, "annotation_twice", len(bad), int(rows[bad[0]]), f"its id {name!r} is there twice")
        seen = np.concatenate([seen, own])


def _dangling(ids: _Ids, keys: Ints, known: Ints) -> Iterator[Fault]:
    bad = np.flatnonzero(~np.isin(keys, known))
    if len(bad):
        decided = ids.what == "decisions"
        name, row = ids.ids[int(bad[0])].as_py(), int(ids.rows[bad[0]])
        kind = "dangling_decision" if decided else "dangling_reference"
        yield Fault(ids.layer, kind, len(bad), row, f"{ids.what} speak of {name!r} among its {ids.of}", decided)


def _of_boxes(place: int, annotations: pa.Table) -> Iterator[Fault]:
    rows, values = _values(annotations, "regions")
    boxes = values.field("box").flatten().to_numpy(zero_copy_only=False).reshape(-1, 4)
    x0, y0, x1, y1 = boxes.T
    bad = np.flatnonzero(~((x0 <= x1) & (y0 <= y1) & np.isfinite(boxes).all(axis=1)))
    if len(bad):
        yield Fault(place, "impossible_box", len(bad), int(rows[bad[0]]), f"a box is {boxes[bad[0]].tolist()}")


def _of_masks(place: int, annotations: pa.Table, items: pa.Table) -> Iterator[Fault]:
    rows, values = _values(annotations, "masks")
    sizes = values.field("size").flatten().to_numpy(zero_copy_only=False).reshape(-1, 2)
    sides = [pc.fill_null(items[name], -1).to_numpy()[rows] for name in ("height", "width")]
    wanted = np.stack(sides, axis=1)
    bad = np.flatnonzero((sizes != wanted).any(axis=1) & (wanted >= 0).all(axis=1))
    if len(bad):
        first = int(bad[0])
        message = f"a mask is of {sizes[first].tolist()} pixels, its image of {wanted[first].tolist()}"
        yield Fault(place, "mask_size", len(bad), int(rows[first]), message)


def _spans(
    layers: Sequence[tuple[pa.Table, pa.Table | None]], defined: Sequence[_Ids], keys: Sequence[Ints]
) -> Iterator[Fault]:
    """Spans of triplets and phrases that end behind their text, or are empty."""
    texts = [pc.utf8_length(_values(made, "texts")[1].field("text")) for made, _ in layers]
    lengths = pa.concat_arrays(texts).to_numpy(zero_copy_only=False)
    of_texts = [ids for ids in defined if ids.what == "texts"]
    spans = [span for place, (made, _) in enumerate(layers) for span in _spans_of(place, made)]
    rows, names = np.concatenate([one.rows for one in of_texts]), pa.concat_arrays([one.ids for one in of_texts])
    known, *asked = _keys([_Ids(0, "texts", "texts", rows, names), *(ids for ids, _, _ in spans)])
    if not len(known):
        return  # every reference to a text dangles
    order = np.argsort(known, kind="stable")
    for (ids, starts, stops), own in zip(spans, asked, strict=True):
        place = order[np.minimum(np.searchsorted(known[order], own), len(order) - 1)]
        there, length = known[place] == own, lengths[place]
        bad = np.flatnonzero(there & ((starts < 0) | (starts >= stops) | (stops > length)))
        if len(bad):
            first = int(bad[0])
            message = (
                f"a span of {ids.what} is [{starts[first]}, {stops[first]}), its text has {length[first]} characters"
            )
            yield Fault(ids.layer, "span", len(bad), int(ids.rows[first]), message)


def _spans_of(place: int, table: pa.Table) -> Iterator[tuple[_Ids, Ints, Ints]]:
    rows, values = _values(table, "triplets")
    starts, stops = (values.field(name).to_numpy(zero_copy_only=False) for name in ("start", "stop"))
    yield _Ids(place, "triplets", "texts", rows, values.field("text_id")), starts, stops
    rows, values = _values(table, "parses")
    lists = values.field("phrases")
    parents = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    phrases = lists.flatten()
    starts, stops = (phrases.field(f"expression_{name}").to_numpy(zero_copy_only=False) for name in ("start", "stop"))
    yield _Ids(place, "phrases", "texts", rows[parents], values.field("text_id").take(pa.array(parents))), starts, stops

"""What is known of a shard as flat Arrow tables, an annotation a row: for whatever looks at many of them at once.

The same as `Record.standing`, without an object for each annotation, which takes 50 times as long. Tables: `images`,
`texts`, `parses`, `regions`, `region_texts`, `masks`, `triplets`; each has a column `row`, its image's in the shard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine.storage import Tables

SCORES = ("label", "phrase", "box", "mask", "calibrated")
NAMES = ("texts", "parses", "regions", "region_texts", "masks", "triplets")
REFERS = {"parses": "text_id", "region_texts": "region_id", "masks": "region_id", "triplets": "text_id"}

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Flat:
    """Flat tables by name. Annotations have `row`, `id`, `source`, `derived_from`, the five scores as `label_score`,
    ..., and what is theirs; regions `x0`, `y0`, `x1`, `y1` and a `score` (`Region.score`); texts whether they are
    `composed` from regions; triplets the `phrase` that they are of. Tables whose column was not read are empty."""

    images: pa.Table
    annotations: dict[str, pa.Table]

    def __getitem__(self, name: str) -> pa.Table:
        return self.images if name == "images" else self.annotations[name]

    def of_rows(self, rows: Bools) -> Flat:
        """What is of the images at which `rows` is true; their rows stay as they are."""
        if rows.all():
            return self
        chosen = {name: table.filter(rows[_numbers(table, "row")]) for name, table in self.annotations.items()}
        return Flat(self.images.filter(rows[_numbers(self.images, "row")]), chosen)

    def without(self, name: str, kept: Bools) -> Flat:
        """Only those annotations of a table for which `kept` is true, and of the others what can stand without them: a
        mask, a text of a region and a parse go with what they are of, a triplet with its text or its last region."""
        if kept.all():
            return self
        annotations = {**self.annotations, name: self.annotations[name].filter(kept)}
        flat = replace(self, annotations=annotations)
        if name in ("regions", "texts"):
            own = "region_id" if name == "regions" else "text_id"
            for other, refers in REFERS.items():
                if refers == own:
                    flat = replace(flat, annotations=flat.annotations | {other: flat._supported(other, own, name)})
        if name == "regions":
            flat = replace(flat, annotations=flat.annotations | {"triplets": flat._named()})
        return flat

    def _supported(self, name: str, refers: str, of: str) -> pa.Table:
        table, there = self.annotations[name], self.annotations[of]
        keys, known = _keys((_numbers(table, "row"), table[refers]), (_numbers(there, "row"), there["id"]))
        return table.filter(np.isin(keys, known))

    def _named(self) -> pa.Table:
        """Triplets with the regions of theirs that are there."""
        table, regions = self.annotations["triplets"], self.annotations["regions"]
        parents, ids = _listed(table["region_ids"])
        rows = _numbers(table, "row")[parents]
        keys, known = _keys((rows, ids), (_numbers(regions, "row"), regions["id"]))
        return _linked(table, parents, ids, np.isin(keys, known))


def flatten(tables: Tables, *, standing: bool = True) -> Flat:
    """What stands of what was read of a shard; with `standing` False all of it, with a column `stands`.

    A standing triplet names the regions that stand, and in the place of one that fell the one that was preferred to it,
    if that has the same label.
    """
    return _Flattening(tables).flat(standing)


@dataclass(frozen=True)
class _Flattening:
    tables: Tables

    def flat(self, standing: bool) -> Flat:
        made = {name: getattr(self, name)() for name in NAMES}
        chosen = {}
        for name, table in made.items():
            stands = ~self._fallen(name)
            chosen[name] = table.append_column("stands", pa.array(stands)) if not standing else _filtered(table, stands)
        if standing:
            chosen["triplets"] = self._linked(made["triplets"], chosen["triplets"])
        return Flat(self.images(), chosen)

    def images(self) -> pa.Table:
        """The manifest's columns, ids in hex; `error` is why an image has no annotations, of ingest or annotating."""
        items, errors = self.tables.items, [annotations["error"] for annotations, _ in self.tables.layers]
        error = pc.coalesce(*[_one(column) for column in (items["error"], *reversed(errors))])
        hexed = {name: hexed_ids(items[name]) for name in ("item_id", "content_id", "duplicate_of")}
        columns = {name: hexed.get(name, items[name]) for name in items.column_names if name != "error"}
        return pa.table({"row": pa.array(np.arange(len(items)), pa.int32()), **columns, "error": error})

    def texts(self) -> pa.Table:
        composed = np.zeros(len(self._rows["texts"]), bool)
        composed[self._derived[0][np.isin(self._keys["derived_from"], self._keys["regions"])]] = True
        return self._table("texts", ("text", "detail")).append_column("composed", pa.array(composed))

    def parses(self) -> pa.Table:
        counts = ("objects", "attributes", "actions", "proper_nouns")
        degrees = [f"{most}{of}_complexity" for most in ("", "max_") for of in ("object", "action")]
        return self._table("parses", ("text_id", *counts, *degrees, "phrases"))

    def regions(self) -> pa.Table:
        table = self._table("regions", ("kind", "quad", "raw_label", "label", "text", "crowd"))
        table = self._with_numbers(table, "regions", "box", ("x0", "y0", "x1", "y1"))
        is_proposal = pc.equal(table["kind"], "proposal")
        return table.append_column("score", pc.if_else(is_proposal, table["box_score"], table["label_score"]))

    def region_texts(self) -> pa.Table:
        return self._table("region_texts", ("region_id", "text"))

    def masks(self) -> pa.Table:
        return self._with_numbers(self._table("masks", ("region_id", "counts")), "masks", "size", ("height", "width"))

    def triplets(self) -> pa.Table:
        table = self._table("triplets", ("text_id", "start", "stop", "region_ids"))
        return table.append_column("phrase", self._phrases(table))

    def _linked(self, made: pa.Table, standing: pa.Table) -> pa.Table:
        """Of the standing triplets, which are some of those made, those that have regions left, with these."""
        parents, ids = self._named
        there = np.isin(self._keys["region_ids"], self._keys["regions"][~self._fallen("regions")])
        if there.all():
            return standing
        rows, lost = self._rows["triplets"], np.flatnonzero(~there).tolist()
        heirs = {place: self._heir(int(rows[parents[place]]), ids[place].as_py()) for place in lost}
        stands = ~self._fallen("triplets")
        of_standing = stands[parents]
        kept = np.flatnonzero(of_standing).tolist()
        moved = {new: heir for new, old in enumerate(kept) if (heir := heirs.get(old))}
        places = np.cumsum(stands) - 1
        return _linked(
            standing, places[parents[of_standing]], ids.filter(pa.array(of_standing)), there[of_standing], moved
        )

    # Columns over all layers

    def _table(self, name: str, fields: Sequence[str]) -> pa.Table:
        scores = _one(self._column(name, "scores"))
        columns = {field: self._column(name, field) for field in ("id", "source", "derived_from", *fields)}
        flat_scores = {f"{score}_score": scores.field(score) for score in SCORES}
        return pa.table({"row": pa.array(self._rows[name], pa.int32()), **columns, **flat_scores})

    def _with_numbers(self, table: pa.Table, name: str, field: str, into: Sequence[str]) -> pa.Table:
        """The numbers of a list of fixed length as columns of their own."""
        numbers = _one(self._column(name, field)).flatten().to_numpy(zero_copy_only=False).reshape(-1, len(into))
        for place, column in enumerate(into):
            table = table.append_column(column, pa.array(np.ascontiguousarray(numbers[:, place])))
        return table

    def _column(self, name: str, field: str) -> pa.ChunkedArray:
        kind = _types()[name].field(field).type
        layers = [layer for layer, _ in self.tables.layers if name in layer.column_names]
        return pa.chunked_array([_values(layer, name).field(field) for layer in layers], kind)

    @cached_property
    def _rows(self) -> dict[str, Ints]:
        """The row of each annotation."""
        layers = [layer for layer, _ in self.tables.layers]
        return {name: np.concatenate([_rows(layer, name) for layer in layers]) for name in NAMES}

    @cached_property
    def _keys(self) -> dict[str, Ints]:
        """Of all ids a number for each (row, id): of annotations by their table, of what fell, and of what is referred
        to. Found together, as strings are slow to compare."""
        derived, named = self._derived, self._named
        columns = {name: (self._rows[name], self._column(name, "id")) for name in NAMES}
        columns["falls"] = (self._falls[0], self._falls[1].field("annotation_id"))
        columns["derived_from"] = (self._rows["texts"][derived[0]], derived[1])
        columns["region_ids"] = (self._rows["triplets"][named[0]], named[1])
        columns["text_id"] = (self._rows["triplets"], self._column("triplets", "text_id"))
        return dict(zip(columns, _keys(*columns.values()), strict=True))

    @cached_property
    def _derived(self) -> tuple[Ints, pa.Array]:
        return _listed(self._column("texts", "derived_from"))

    @cached_property
    def _named(self) -> tuple[Ints, pa.Array]:
        return _listed(self._column("triplets", "region_ids"))

    def _phrases(self, triplets: pa.Table) -> pa.Array:
        """The characters [start, stop) of each triplet's text."""
        keys, known = self._keys["text_id"], self._keys["texts"]
        if not len(known):
            return pa.nulls(len(triplets), pa.string())
        order = np.argsort(known, kind="stable")
        places = order[np.searchsorted(known[order], keys).clip(max=len(known) - 1)].tolist()
        texts = self._column("texts", "text").to_pylist()
        spans = zip(places, triplets["start"].to_pylist(), triplets["stop"].to_pylist(), strict=True)
        return pa.array([texts[place][start:stop] for place, start, stop in spans], pa.string())

    # Decisions

    def _fallen(self, name: str) -> Bools:
        """Which annotations of a table a decision rejects or supersedes."""
        return np.isin(self._keys[name], self._keys["falls"])

    @cached_property
    def _falls(self) -> tuple[Ints, pa.StructArray]:
        """Rows and decisions of what fell."""
        rows, falls = [], []
        for _, decisions in self.tables.layers:
            if decisions is None:
                continue
            lists = _one(decisions["decisions"])
            values = lists.flatten()
            fell = pc.is_in(values.field("action"), pa.array(["reject", "supersede"]))
            rows.append(pc.list_parent_indices(lists).filter(fell).to_numpy().astype(np.int64))
            falls.append(values.filter(fell))
        if not falls:
            return np.zeros(0, np.int64), pa.array([], pa.struct([("annotation_id", pa.string())]))
        return np.concatenate(rows), pa.concat_arrays(falls)

    @cached_property
    def _preferred(self) -> dict[tuple[int, str], str]:
        rows, decisions = self._falls
        ids, others = (decisions.field(field).to_pylist() for field in ("annotation_id", "against"))
        against = zip(rows.tolist(), ids, others, strict=True)
        return {(row, id_): other for row, id_, other in against if other}

    @cached_property
    def _labels(self) -> dict[tuple[int, str], str | None]:
        ids, labels = (self._column("regions", field).to_pylist() for field in ("id", "label"))
        return dict(zip(zip(self._rows["regions"].tolist(), ids, strict=True), labels, strict=True))

    @cached_property
    def _gone(self) -> frozenset[tuple[int, str]]:
        rows, decisions = self._falls
        return frozenset(zip(rows.tolist(), decisions.field("annotation_id").to_pylist(), strict=True))

    def _heir(self, row: int, region_id: str) -> str | None:
        """The standing region of the same label that was preferred to one that fell."""
        label, seen, at = self._labels.get((row, region_id)), {region_id}, region_id
        while (row, at) in self._gone:
            at = self._preferred.get((row, at), at)
            if at in seen:
                return None
            seen.add(at)
        return at if self._labels.get((row, at), ...) == label else None


def hexed_ids(ids: pa.ChunkedArray) -> pa.Array:
    """16-byte ids as 32 hex digits; nulls stay."""
    values = _one(ids)
    raw = np.frombuffer(values.buffers()[1] or b"", np.uint8)[16 * values.offset :][: 16 * len(values)]
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    text = np.stack([digits[raw >> 4], digits[raw & 15]], axis=1).reshape(-1)
    starts = np.arange(len(values) + 1, dtype=np.int32) * 32
    whole = pa.StringArray.from_buffers(len(values), pa.py_buffer(starts), pa.py_buffer(text))
    return pc.if_else(values.is_valid(), whole, None) if values.null_count else whole


def _filtered(table: pa.Table, kept: Bools) -> pa.Table:
    return table if kept.all() else table.filter(kept)


def _one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # which copies all of it


def _numbers(table: pa.Table, name: str) -> Ints:
    values: Ints = table[name].to_numpy().astype(np.int64)
    return values


def _types() -> Mapping[str, pa.StructType]:
    from engine.schema import ANNOTATION_COLUMNS, ANNOTATIONS

    return {name: ANNOTATIONS.field(name).type.value_type for name in ANNOTATION_COLUMNS}


def _values(layer: pa.Table, name: str) -> pa.StructArray:
    return _one(layer[name]).flatten()


def _rows(layer: pa.Table, name: str) -> Ints:
    if name not in layer.column_names:
        return np.zeros(0, np.int64)
    rows: Ints = pc.list_parent_indices(_one(layer[name])).to_numpy().astype(np.int64)
    return rows


def _listed(lists: pa.ChunkedArray) -> tuple[Ints, pa.Array]:
    """The values of all lists, and the place of the list that each is in."""
    whole = _one(lists)
    return pc.list_parent_indices(whole).to_numpy().astype(np.int64), whole.flatten()


def _keys(*columns: tuple[Ints, pa.Array | pa.ChunkedArray]) -> list[Ints]:
    """A number for each (row, id), the same wherever both are. Ids repeat over images: few of them are different."""
    arrays = [_one(ids).cast(pa.string()) for _, ids in columns]
    codes = pa.concat_arrays(arrays).dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    most = int(codes.max(initial=0)) + 1
    bounds = np.cumsum([len(array) for array in arrays])[:-1]
    return [rows * most + part for (rows, _), part in zip(columns, np.split(codes, bounds), strict=True)]


def _linked(
    table: pa.Table, parents: Ints, ids: pa.Array, there: Bools, heirs: Mapping[int, str] | None = None
) -> pa.Table:
    """Triplets with those of their regions that are there, or have an heir, each once; without those that have none."""
    if there.all():
        return table
    heirs = heirs or {}
    broken = np.unique(parents[~there]).tolist()  # few: only these become Python's
    lists = table["region_ids"].take(pa.array(broken, pa.int64())).to_pylist()
    starts = dict(zip(*(values.tolist() for values in np.unique(parents, return_index=True)), strict=True))
    mended: dict[int, list[str]] = {}
    for parent, several in zip(broken, lists, strict=True):
        places = range(starts[parent], starts[parent] + len(several))
        left = [id_ if there[place] else heirs.get(place) for place, id_ in zip(places, several, strict=True)]
        named = list(dict.fromkeys(id_ for id_ in left if id_))
        if named:
            mended[parent] = named
    whole = np.ones(len(table), bool)
    whole[broken] = False
    places_ = pa.array(list(mended), pa.int64())
    at, kind = table.column_names.index("region_ids"), table.schema.field("region_ids").type
    others = table.take(places_).set_column(at, "region_ids", pa.array(list(mended.values()), kind))
    order = np.argsort(np.concatenate([np.flatnonzero(whole), np.fromiter(mended, np.int64, len(mended))]))
    return pa.concat_tables([table.filter(whole), others]).take(pa.array(order))

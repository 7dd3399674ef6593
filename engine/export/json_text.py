"""Arrow columns as JSON texts, without an object of Python's for each value: Arrow's kernels take a fifth of the time,
and leave Python's lock to others.

Numbers are the shortest that are the same in their column's type, float32 or float64; those that JSON has not, NaN and
infinities, are null as in orjson.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import orjson
import pyarrow as pa
import pyarrow.compute as pc

AT_A_TIME = 4096  # rows: a text column holds 2 GB
ESCAPED = '[\\x00-\\x1f"\\\\]'  # by https://www.rfc-editor.org/rfc/rfc8259#section-7
WHOLE = "^-?[0-9]+$"
NULL = pa.scalar("null")


def json_of(column: pa.Array | pa.ChunkedArray) -> pa.StringArray:
    """The JSON of each value: of numbers, texts, booleans, and of lists and structs of them."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    kind = array.type
    if pa.types.is_struct(kind):
        fields = {kind.field(n).name: json_of(field) for n, field in enumerate(array.flatten())}
        texts = objects(fields)
    elif pa.types.is_list(kind):
        texts = _lists(array)
    elif pa.types.is_floating(kind):
        texts = pc.if_else(pc.is_finite(array), _decimal(array.cast(pa.string())), NULL)
    elif pa.types.is_string(kind):
        texts = _quoted(array)
    elif pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        texts = array.cast(pa.string())
    else:
        raise TypeError(f"expected numbers, texts, booleans, lists or structs; got {kind}")
    return pc.if_else(array.is_valid(), texts, NULL) if array.null_count else texts


def objects(fields: Mapping[str, pa.StringArray]) -> pa.StringArray:
    """Objects of JSON texts by key, in their order. A key is absent where its text is null; the first never is."""
    pieces = [pa.scalar("{")]
    for n, (key, texts) in enumerate(fields.items()):
        before = f"{',' if n else ''}{orjson.dumps(key).decode()}:"
        piece = pc.binary_join_element_wise(before, texts, "")
        pieces.append(piece.fill_null("") if piece.null_count else piece)
    return pc.binary_join_element_wise(*pieces, "}", "")


def rows_in_json(table: pa.Table, optional: Collection[str] = ()) -> Iterator[pa.StringArray]:
    """Rows as objects, some at a time. A null in an `optional` column is no key at all."""
    for batch in table.to_batches(max_chunksize=AT_A_TIME):
        fields = {name: json_of(batch[name]) for name in batch.schema.names}
        absent = {name: pc.if_else(batch[name].is_valid(), fields[name], None) for name in optional if name in fields}
        yield objects(fields | absent)


def _lists(array: pa.ListArray) -> pa.StringArray:
    first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()  # of a slice that is not all there is
    texts = json_of(array.values.slice(first, last - first))
    inside = pc.binary_join(pa.ListArray.from_arrays(pc.subtract(array.offsets, first), texts), ",")
    return pc.binary_join_element_wise("[", inside, "]", "")


def _decimal(numbers: pa.StringArray) -> pa.StringArray:
    """With a point in whole ones, too: readers take a column's type from its first rows."""
    whole = pc.match_substring_regex(numbers, WHOLE)
    return pc.if_else(whole, pc.binary_join_element_wise(numbers, ".0", ""), numbers)


def _quoted(texts: pa.StringArray) -> pa.StringArray:
    odd = pc.match_substring_regex(texts, ESCAPED).fill_null(False)
    if pc.any(odd).as_py():  # seldom: Python's way is good enough
        escaped = [orjson.dumps(text).decode()[1:-1] for text in texts.filter(odd).to_pylist()]
        texts = pc.replace_with_mask(texts, odd, pa.array(escaped, pa.string()))
    return pc.binary_join_element_wise('"', texts, '"', "")

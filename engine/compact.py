"""Parquet that nobody vouches for. A column of texts or images is a dictionary and places in it: in 50 kB a file may
say one megabyte twenty thousand times. It is kept as it is stored, and what it comes to is asked before it is spelt
out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as types

MOST_BYTES = 1 << 30  # of texts that are spelt out at once


def compact(source: pa.NativeFile) -> pq.ParquetFile:
    """A file whose strings and binaries are read as dictionaries, at any depth: each value is in memory once."""
    metadata = pq.read_metadata(source)
    columns = (metadata.schema.column(number) for number in range(metadata.num_columns))
    texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    return pq.ParquetFile(source, metadata=metadata, read_dictionary=texts)


def check(rows: pa.RecordBatch | pa.Table) -> None:
    """Raises ValueError if the texts of compact rows are too long to be spelt out."""
    arrays = (chunk for column in rows.columns for chunk in getattr(column, "chunks", [column]))
    if (size := sum(map(_spelt_out, arrays))) > MOST_BYTES:
        raise ValueError(f"{rows.num_rows} of its rows come to {size:,} bytes, more than {MOST_BYTES:,}")


@contextmanager
def as_value_error() -> Iterator[None]:
    """Arrow's errors as what they are to everybody else: the file isn't what it should be."""
    try:
        yield
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error
    except OSError as error:
        if type(error) is OSError and error.errno is None:  # Arrow's, of a damaged page: no disk or store said it
            raise ValueError(str(error)) from error
        raise


def _spelt_out(array: pa.Array) -> int:
    """The bytes of an array's texts, each as often as it is said."""
    size = 0
    for texts in _dictionaries(array):
        lengths = pc.binary_length(texts.dictionary)
        size += pc.sum(lengths.cast(pa.int64()).take(texts.indices)).as_py() or 0
    return size


def _dictionaries(array: pa.Array) -> Iterator[pa.DictionaryArray]:
    if types.is_dictionary(array.type):
        yield array
    elif types.is_struct(array.type):
        for field in array.flatten():
            yield from _dictionaries(field)
    elif types.is_list(array.type) or types.is_large_list(array.type):
        yield from _dictionaries(array.flatten())

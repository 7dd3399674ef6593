"""Images that cost next to nothing: noise of 32 x 8 pixels, all different, in a Parquet manifest."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WIDTH, HEIGHT = 32, 8
GROUP = 1024  # rows in a row group, of which a reader holds two


def bitmap(pixels: bytes) -> bytes:
    """A Windows bitmap of rows of BGR."""
    header = struct.pack("<2sIHHI", b"BM", 54 + len(pixels), 0, 0, 54)
    return header + struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 24, 0, len(pixels), 0, 0, 0, 0) + pixels


def write_pictures(path: Path, rows: int) -> Path:
    """The same ones every time."""
    dice = np.random.default_rng(0)
    schema = pa.schema([("bytes", pa.binary())])
    with pq.ParquetWriter(path, schema, compression="none") as writer:
        for start in range(0, rows, GROUP):
            noise = dice.bytes(min(GROUP, rows - start) * WIDTH * HEIGHT * 3)
            size = WIDTH * HEIGHT * 3
            data = [bitmap(noise[at : at + size]) for at in range(0, len(noise), size)]
            writer.write_table(pa.table({"bytes": data}, schema=schema))
    return path

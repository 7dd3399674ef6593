"""One thing found by two sources is one thing; two things found by one source are two."""

from __future__ import annotations

import dataclasses

import pytest

from engine.records import Region
from specialists.distinct import distinct

CUP = Region(id="0", source="a", kind="object", label="cup", box=(0, 0, 10, 10))


@pytest.mark.parametrize(
    ("other", "count"),
    [
        ({"source": "b"}, 1),
        ({"source": "b", "box": (0, 0, 10, 6)}, 1),
        ({"source": "b", "box": (0, 0, 10, 5)}, 2),
        ({"source": "b", "label": "bowl"}, 2),
        ({"source": "b", "crowd": True}, 2),
        ({}, 2),
    ],
)
def test_distinct(other: dict[str, object], count: int) -> None:
    regions = [CUP, dataclasses.replace(CUP, id="1", **other)]  # type: ignore[arg-type]
    assert [region.id for region in distinct(regions)] == ["0", "1"][:count]

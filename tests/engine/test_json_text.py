"""Arrow columns as JSON: what a reader of JSON has of them is what is in them."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from exporting import HOSTILE
from hypothesis import given
from hypothesis import strategies as st

from engine.export.json_text import json_of, objects

KIND = pa.struct(
    [
        ("text", pa.string()),
        ('quo"te\n', pa.bool_()),
        ("number", pa.int64()),
        ("single", pa.float32()),
        ("double", pa.float64()),
        ("several", pa.list_(pa.list_(pa.float32()))),
        ("inside", pa.list_(pa.struct([("words", pa.list_(pa.string())), ("n", pa.int32())]))),
    ]
)
texts = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(HOSTILE)
singles = st.none() | st.floats(width=32)
rows = st.fixed_dictionaries(
    {
        "text": st.none() | texts,
        'quo"te\n': st.none() | st.booleans(),
        "number": st.none() | st.integers(-(2**63), 2**63 - 1),
        "single": singles,
        "double": st.none() | st.floats(),
        "several": st.none() | st.lists(st.none() | st.lists(singles, max_size=4), max_size=3),
        "inside": st.none()
        | st.lists(
            st.none()
            | st.fixed_dictionaries(
                {
                    "words": st.none() | st.lists(st.none() | texts, max_size=3),
                    "n": st.none() | st.integers(-(2**31), 2**31 - 1),
                }
            ),
            max_size=3,
        ),
    }
)


def as_json_has_it(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: as_json_has_it(one) for key, one in value.items()}
    if isinstance(value, list):
        return [as_json_has_it(one) for one in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def as_single(row: Any) -> Any:
    """Numbers of a row that are float32 in Arrow, as those: JSON has the shortest text that is read as the same."""
    return row and row | {"single": single(row["single"]), "several": nested(row["several"])}


def nested(value: Any) -> Any:
    return [nested(one) for one in value] if isinstance(value, list) else single(value)


def single(value: float | None) -> float | None:
    return None if value is None else float(np.float32(value))


@given(st.lists(st.none() | rows, max_size=6), st.integers(0, 6), st.integers(0, 6))
def test_a_reader_finds_what_is_there(there: list[Any], start: int, length: int) -> None:
    array = pa.array(there, KIND).slice(start, length)
    found = [as_single(json.loads(text)) for text in json_of(array).to_pylist()]
    assert found == as_json_has_it(array.to_pylist())
    assert json_of(pa.chunked_array([array, array], KIND)).to_pylist() == json_of(array).to_pylist() * 2


def test_doubles_are_exact_and_numbers_short() -> None:
    numbers = [0.1, 1 / 3, 1e300, -5e-324, 123456789.125, 2.0**53]
    assert list(map(json.loads, json_of(pa.array(numbers)).to_pylist())) == numbers
    assert json_of(pa.array([0.1, 1e10, 0], pa.float32())).to_pylist() == ["0.1", "1e+10", "0.0"]


def test_whole_floats_have_a_point_by_which_readers_know_their_type() -> None:
    """Or who reads the first rows takes all for integers, and cuts the others."""
    assert json_of(pa.array([1.0, -30.0, None])).to_pylist() == ["1.0", "-30.0", "null"]
    assert json_of(pa.array([1, -30])).to_pylist() == ["1", "-30"]


def test_a_key_without_a_text_is_absent() -> None:
    told = {"a": json_of(pa.array([1, 2])), "b": pa.array(["[1]", None], pa.string())}
    assert objects(told).to_pylist() == ['{"a":1,"b":[1]}', '{"a":2}']


def test_what_json_has_no_word_for_is_refused() -> None:
    with pytest.raises(TypeError, match=r"expected numbers, texts.*got binary"):
        json_of(pa.array([b"x"]))

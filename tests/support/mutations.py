"""What becomes of a file on its way: bytes that are gone, doubled or other ones, and JSON whose values are nobody's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

PIECES = (
    *(b"", b"\0", b"\n", b",", b'"', b"'", b"[", b"]", b"{", b"}", b":", b"\\", b"/", b"../", b"-", b"#", b"&a", b"*a"),
    *(b"\xff", b"\xed\xa0\x80", b"\x1b[31m", b"NaN", b"-1", b"1e999", b"9" * 25, b"9" * 5000, b"null", b"true", b"\t"),
)
# Values that no writer of such a file has meant: of another type, out of range, no number, not to be encoded, deep.
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", " ", "0"),
    *(
        "\0",
        "a\0b",
        "\ud800",
        "\u202e",
        "\x1b]0;owned\x07",
        "../../etc/passwd",
        "/etc/passwd",
        "file:///etc/passwd",
        ".",
    ),
    *("..", "/", "x" * 5000, "<loc_1>", "<script>", "http://127.0.0.1:9/a.png", "s3://bucket/a.png", "a.tar#b", "NaN"),
    *(
        [],
        {},
        [None],
        [[]],
        [{}],
        {"": None},
        {"a": {"a": []}},
        [1, 2, 3, 4],
        [0.1] * 9,
        [float("nan")] * 4,
        [10**30] * 4,
    ),
    *(["\ud800"], [True], {"size": [1, 1], "counts": [1]}, {"bytes": None, "path": "a"}, [[[[[[[[[[1]]]]]]]]]]),
)


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with one to four places cut out, doubled, overwritten or written into."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = min(start + draw(st.one_of(st.integers(0, 8), st.integers(0, 2000))), len(data))
        how = draw(st.sampled_from(("cut", "double", "write", "over", "flip", "end")))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=8))
        if how == "cut":
            data = data[:start] + data[stop:]
        elif how == "double":
            data = data[:stop] + data[start:stop] + data[stop:]
        elif how == "write":
            data = data[:start] + piece + data[start:]
        elif how == "over":
            data = data[:start] + piece + data[start + len(piece) :]
        elif how == "end":
            data = data[:start]
        elif start < len(data):
            data = data[:start] + bytes([data[start] ^ 1 << draw(st.integers(0, 7))]) + data[start + 1 :]
    return data


@st.composite
def mutated_json(draw: st.DrawFn, data: bytes) -> bytes:
    """A JSON, or lines of it, in which one to three values, at any depth, are odd ones, or gone, or twice there."""
    lines = data.splitlines() if not _is_json(data) else [data]
    number = draw(st.integers(0, len(lines) - 1))
    value = json.loads(lines[number])
    for _ in range(draw(st.integers(1, 3))):
        value = _changed(draw, value)
    lines[number] = json.dumps(value).encode()
    return b"\n".join(lines)


def _changed(draw: st.DrawFn, value: Any) -> Any:
    places = list(_places(value))
    path = draw(st.sampled_from(places))
    odd = draw(st.sampled_from(ODD))
    if not path:
        return odd if draw(st.integers(0, 9)) == 0 else value
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    key = path[-1]
    how = draw(st.sampled_from(("odd", "odd", "odd", "gone", "renamed" if isinstance(key, str) else "twice")))
    if how == "odd":
        holder[key] = odd
    elif how == "gone":
        del holder[key]
    elif how == "twice":
        holder.insert(key, holder[key])
    else:
        holder[draw(st.sampled_from(("", "id", "\ud800", "x" * 300)))] = holder.pop(key)
    return value


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _places(one, (*path, key))
    elif isinstance(value, list):
        for number, one in enumerate(value[:20]):
            yield from _places(one, (*path, number))


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True

"""Words to lines, and lines to the order in which they are read."""

from __future__ import annotations

from collections import Counter
from math import cos, radians, sin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from florence2.reading_order import lines_in_order
from florence2.scene import Line, Quad


def word(text: str, x: float, y: float, width: float | None = None, height: float = 20) -> Line:
    right = x + (width or 10 * len(text))
    return Line((x, y, right, y, right, y + height, x, y + height), text)


def turned(line: Line, degrees: float) -> Line:
    """About (0, 0), clockwise to the eye."""
    c, s = cos(radians(degrees)), sin(radians(degrees))
    points = zip(line.quad[0::2], line.quad[1::2], strict=True)
    return Line(tuple(v for x, y in points for v in (x * c - y * s, x * s + y * c)), line.text)  # type: ignore[arg-type]


def read(*words: Line) -> list[str]:
    return [line.text for line in lines_in_order(words)]


def test_words_of_a_line() -> None:
    (line,) = lines_in_order([word("grass", 100, 12), word("the", 60, 10), word("on", 30, 11)])
    assert line == Line((30, 10, 150, 10, 150, 32, 30, 32), "on the grass")
    assert read(word("low", 40, 31), word("high", 0, 20)) == ["high", "low"]  # 9 of 20 px are shared
    assert read(word("low", 50, 30), word("high", 0, 20)) == ["high low"]


def test_two_columns_under_a_heading() -> None:
    left = [f"left {n}" for n in range(6)]
    right = [f"right {n}" for n in range(5)]
    page = [
        word("A heading over both columns", 60, 0, 280),
        *(word(text, 0, 40 + 30 * n, 170) for n, text in enumerate(left)),
        *(word(text, 220, 45 + 30 * n, 180) for n, text in enumerate(right)),
        word("and a line below that is as wide", 10, 240, 370),
    ]
    expected = [page[0].text, *left, *right, page[-1].text]
    assert read(*page) == read(*page[::-1]) == expected


def test_columns_of_single_words() -> None:
    """Rows that lie side by side, to the pixel, and words with usual spaces."""
    rows = [("It was", "a dark"), ("and stormy", "night; the"), ("rain fell", "in torrents")]
    page = []
    for n, row in enumerate(rows):
        for column, text in enumerate(row):
            first, second = text.split()
            start = 300 * column
            page += [word(first, start, 30 * n), word(second, start + 10 * len(first) + 7, 30 * n)]
    assert read(*page) == ["It was", "and stormy", "rain fell", "a dark", "night; the", "in torrents"]


def test_signs_apart_have_no_columns() -> None:
    assert read(word("exit", 0, 100), word("stop", 300, 0)) == ["stop", "exit"]


def test_parallel_lines_at_an_angle_stay_apart() -> None:
    up, down = word("the first line of two", 0, 0), word("and the second one", 0, 30)
    tilted = [turned(line, 25) for line in (down, up)]
    assert lines_in_order(tilted) == tilted[::-1]


def test_a_joined_line_leans_as_its_words_do() -> None:
    words = [turned(word("hello", 0, 0), 10), turned(word("world", 60, 0), 10)]
    (line,) = lines_in_order(words)
    assert line.text == "hello world"
    assert line.quad == pytest.approx(turned(word("x", 0, 0, 110), 10).quad)
    (upside_down,) = lines_in_order([turned(w, 170) for w in words])
    assert upside_down.text == "hello world"
    assert upside_down.quad[0] > upside_down.quad[2]  # from the text's own top left


def test_quads_go_clockwise_from_the_corner_that_they_had() -> None:
    quad: Quad = (0, 0, 0, 20, 50, 20, 50, 0)
    (line,) = lines_in_order([Line(quad, "back")])
    assert line.quad == (0, 0, 50, 0, 50, 20, 0, 20)


def test_any_script_and_nothing() -> None:
    assert read() == read(word("", 0, 0, 5), word(" \n", 9, 0)) == []
    assert read(word("犬が", 0, 0, 40), word("שלום", 0, 30), word("🐕", 0, 60, 20)) == ["犬が", "שלום", "🐕"]


coordinates = st.floats(-50, 500) | st.integers(0, 20)


@given(st.lists(st.builds(Line, st.tuples(*[coordinates] * 8), st.text(max_size=3)), max_size=12), st.randoms())
@settings(max_examples=80, deadline=None)
def test_every_word_once_in_any_order_given(words: list[Line], random: object) -> None:
    found = Counter("".join(line.text for line in lines_in_order(words)))
    found[" "] = Counter("".join(word.text.strip() for word in words))[" "]  # others stand between words
    assert +found == Counter("".join(word.text.strip() for word in words))

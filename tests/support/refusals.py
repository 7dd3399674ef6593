"""What an image that can't be used must come out as."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from engine.errors import ImageError


@contextmanager
def refused(kind: str, *words: str) -> Iterator[None]:
    with pytest.raises(ImageError) as caught:
        yield
    assert caught.value.kind == kind, caught.value
    for word in words:
        assert word in caught.value.message

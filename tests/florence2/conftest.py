"""The models of these tests are tiny."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def tiny_models(one_thread: None) -> None:
    """One thread is enough for them all."""

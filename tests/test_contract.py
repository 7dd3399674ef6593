"""Every installed specialist and filter keeps to the contract that `engine.testing` checks for third parties."""

from __future__ import annotations

from pathlib import Path

import contract_filters
import pytest
from tiny.specialists import TABLE, VOCABULARY, tiny

from engine.components import build, installed
from engine.testing import check_filter, check_specialist, samples

# RapidOCR makes every image 736 pixels high at least, NanoDet has its full size, Florence-2 is asked ten questions.
SLOW = {"florence2", "nanodet", "rapidocr"}
FEW = {"scene", "pixel", "flat", "hostile grey", "later portrait"}


@pytest.fixture(scope="module", autouse=True)
def one_thread_each(one_thread: None, request: pytest.FixtureRequest) -> None:
    """What sets itself up asks how many threads it may have."""
    patch = pytest.MonkeyPatch()
    request.addfinalizer(patch.undo)
    patch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.parametrize("use", installed("specialists"))
def test_specialists_keep_the_contract(use: str, tmp_path: Path) -> None:
    assert use in TABLE, f"{use} is declared in pyproject.toml; say in tiny/specialists.py what with"
    shown = [sample for sample in samples() if use not in SLOW or Path(sample.record.item.uri).stem in FEW]
    with tiny(use, tmp_path) as parameters:
        check_specialist(build("specialists", f"tiny_{use}", {"use": use, **parameters}, VOCABULARY), shown)


def test_nothing_is_checked_that_is_not_installed() -> None:
    assert TABLE.keys() == installed("specialists").keys()
    assert contract_filters.TABLE.keys() <= installed("filters").keys()


@pytest.mark.parametrize("use", installed("filters"))
def test_filters_keep_the_contract(use: str) -> None:
    parameters = contract_filters.TABLE.get(use, {})
    check_filter(build("filters", f"some_{use}", {"use": use, **parameters}, VOCABULARY))

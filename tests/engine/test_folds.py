"""Folds: every image in one, look-alikes together, and no image moves when others come."""

from __future__ import annotations

from engine.folds import Folds
from engine.records import Item

ITEMS = [Item(Item.id_of(f"{n}.jpg"), f"{n}.jpg") for n in range(2000)]


def test_folds_and_held_out_are_shares() -> None:
    sizes = [sum(Folds(3).of(item) == fold for item in ITEMS) for fold in range(3)]
    assert sum(sizes) == 2000
    assert all(580 < size < 750 for size in sizes)
    held_out = {item.item_id for item in ITEMS if Folds(3).held_out(item, 0.1)}
    assert 150 < len(held_out) < 250
    assert held_out < {item.item_id for item in ITEMS if Folds(3).held_out(item, 0.2)}
    assert not any(Folds(1).held_out(item, 0) for item in ITEMS)


def test_images_that_look_alike_go_together() -> None:
    """Also a copy of one of them, byte by byte, which is in no group itself."""
    first, others = ITEMS[0].item_id, ITEMS[1:20]
    folds = Folds(7, {item.item_id: first for item in ITEMS[:20]})
    twins = [Item(Item.id_of(f"copy {n}"), f"copy {n}", duplicate_of=item.item_id) for n, item in enumerate(others)]
    assert len({folds.of(item) for item in [*others, *twins]}) == 1
    assert len({folds.held_out(item, 0.5) for item in [*others, *twins]}) == 1

"""What the images and their own annotations are like: those that look the same, and what was wrong with what came."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

from engine.atomic import read_json
from engine.dataset import Dataset
from engine.entry import Fault
from engine.storage import read_faults, read_items

MOST_GROUPS, MOST_IN_GROUP, MOST_FAULTS = 50, 6, 200  # that the page lists


def near_duplicates(dataset: Dataset) -> tuple[int, list[tuple[list[str], int]]]:
    """How many groups of images look the same; of the first ones the uris, and how many more there are in each."""
    groups = dataset.near_duplicates()
    shown = [group[:MOST_IN_GROUP] for group in groups[:MOST_GROUPS]]
    wanted = set(chain.from_iterable(shown))
    uris = {item.item_id: item.uri for item in dataset.items() if item.item_id in wanted} if wanted else {}
    listed = [[uris[id_] for id_ in group if id_ in uris] for group in shown]
    return len(groups), [(some, len(group) - len(some)) for some, group in zip(listed, groups, strict=False)]


def faults(dataset: Dataset) -> tuple[dict[str, int], list[tuple[str, Fault]]]:
    """Faults of what came along with images, by kind; and the first ones, each with the image that it is about."""
    manifest = read_json(dataset.output.manifest)
    of_lists = (("", Fault(**fault)) for fault in manifest["first_faults"])
    return manifest["faults"], list(islice(chain(of_lists, _of_images(dataset)), MOST_FAULTS))


def _of_images(dataset: Dataset) -> Iterator[tuple[str, Fault]]:
    for shard in dataset.output.shards():
        found = read_faults(dataset.output, shard)
        uris = {item.item_id: item.uri for item in read_items(dataset.output, shard)} if found else {}
        yield from ((uris[item_id], fault) for item_id, fault in found)

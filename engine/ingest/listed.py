"""Which images are listed, and a digest by which it is known whether others are by now."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice

from engine.config import Ingest
from engine.entry import Entry
from engine.files import absolute, is_file, stamp
from engine.listing import Listing
from engine.uris import is_url


def listing_of(config: Ingest) -> Listing:
    return Listing(config.images, image_root=config.image_root, class_folders=config.class_folders)


def listed_digest(config: Ingest) -> str:
    """What `listed` in manifest.json would be for the image set as it is now: 12 hex digits over its URIs, and over the
    sizes and times of the files that list them. Parquet manifests are not read for it: at 13 µs an image that would be
    half an hour of 126 million, before each run that goes on."""
    listing, listed = listing_of(config), Listed(config)
    if not listed.is_stamped:
        for _ in listed.through(islice(listing, config.limit)):
            pass
    return listed.digest()


class Listed:
    """The digest, of entries as they go by. `is_stamped`: the names, sizes and times of files say it by themselves."""

    def __init__(self, config: Ingest) -> None:
        self.config = config
        self.is_stamped = bool(config.images) and all(map(_is_manifest, config.images))
        named = f"{[absolute(path) for path in config.images]} {config.limit}\n" if self.is_stamped else ""
        self._said = hashlib.sha256(named.encode())

    def through(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        for entry in entries:
            if not self.is_stamped:
                self._said.update(entry.uri.encode() + b"\n")
            yield entry

    def digest(self) -> str:
        """What comes along may change where the URIs don't."""
        whole = self._said.copy()
        for path in self.config.images:
            if not is_url(path) and is_file(path):
                size, modified = stamp(path)
                whole.update(f"{size} {modified}\n".encode())
        return whole.hexdigest()[:12]


def _is_manifest(path: str) -> bool:
    return not is_url(path) and path.endswith(".parquet") and is_file(path)

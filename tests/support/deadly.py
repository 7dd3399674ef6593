"""A picture that kills whoever prepares it, as a broken decoder does."""

from __future__ import annotations

import os
from dataclasses import dataclass

from engine.records import Record
from pipelines.training.picks import Pick
from pipelines.training.stream import Preparation, Prepared, Unprepared


@dataclass(frozen=True)
class Deadly(Preparation):
    """Dies of the image `victim`."""

    victim: bytes = b""

    def prepared(self, record: Record, pick: Pick) -> Prepared | Unprepared | None:
        if record.item.item_id == self.victim:
            os._exit(1)
        return super().prepared(record, pick)

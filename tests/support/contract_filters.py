"""With which parameters each installed filter turns something down of the contract kit's records; a filter that is not
in here does with its defaults."""

from __future__ import annotations

from typing import Any

TABLE: dict[str, dict[str, Any]] = {
    "agreement": {"sources": ["kit_detector", "kit_second_detector"]},
    "closest": {"by": "kit_judge"},
    "grounded": {"by": ["kit_grounder"]},
    "labels": {"blacklist": ["square"]},
    "objects": {"max_objects": {"brief": 1}},
    "opinion": {"by": "kit_judge", "minimum": {"brief": 0.3, "region_text": 0.8}},
    "phrase_score": {"min_phrase": {"kit_grounder": 0.5}},
    "score": {"thresholds": {"kit_detector": {"object": 0.5, "proposal": 0.5}}},
    "supported": {"sources": ["kit_aggregator"]},
}

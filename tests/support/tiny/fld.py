"""A tiny checkpoint for every model of `pipelines/fld.yaml`, as `tests/pipelines/fld-tiny.yaml` names them.

To see that pipeline run: PYTHONPATH=tests/support python -m tiny.fld FOLDER, and in that folder
engine run --config .../tests/pipelines/fld-tiny.yaml
"""

from __future__ import annotations

import sys
from pathlib import Path

from memorised import memorised, saved

from florence2 import ask
from tiny import contrastives, detectors, grounders, qwen, segmenters

# All that it says; of regions it only knows that it is asked about one.
KNOWN = {
    ask("CAPTION"): "a cup of coffee on a table",
    ask("REGION_TO_DESCRIPTION", (10, 10, 50, 50), (100, 100)): "a small red cup",
    ask("REGION_TO_DESCRIPTION", (40, 5, 95, 95), (100, 100)): "a table",
}


def checkpoints(folder: Path) -> Path:
    """In `folder`, under the names by which the configuration asks for them: tiny/..."""
    there = folder / "tiny"
    detectors.rt_detr_v2(there / "detector")
    grounders.owlv2(there / "open_detector")
    saved(there / "florence", memorised(KNOWN))
    qwen.qwen2_5_vl(there / "annotator")
    qwen.qwen2(there / "aggregator")
    grounders.grounding_dino(there / "grounder")
    segmenters.sam2(there / "segmenter")
    contrastives.siglip2(there / "contrastive")
    return folder


if __name__ == "__main__":
    checkpoints(Path(sys.argv[1]))

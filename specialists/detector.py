"""The embedded detector: NanoDet-g, COCO's 80 classes and class-agnostic proposals from one pass, on a CPU.

Weights and their origin: `specialists/weights/README.md`. The head is that of Generalized Focal Loss
(arXiv:2006.04388): the distance to each side of a box is the expectation of a distribution over 11 bins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from engine.native import native_threads
from engine.protocols import Image, Reads, Sample
from engine.records import Region, Scores
from engine.versions import digest_of
from engine.vocabulary import Vocabulary

Floats = npt.NDArray[np.float32]

WEIGHTS = Path(__file__).parent / "weights" / "nanodet-g-416.onnx"
SIDE = 416  # px: the network's input; images are stretched to it, as in its training
STRIDES = (8, 16, 32)
SCORES = ("Identity", "Identity_1", "Identity_2")  # per stride: [1, cells, 80], after the sigmoid
DISTANCES = ("Identity_3", "Identity_4", "Identity_5")  # per stride: [1, cells, 4 sides x BINS], logits
BINS = 11
MEAN = np.array((103.53, 116.28, 123.675), dtype=np.float32)  # BGR
STD = np.array((57.375, 57.12, 58.395), dtype=np.float32)

# fmt: off
CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)
# fmt: on

Score = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


@dataclass
class NanoDet:
    """Regions of kind "object" (with label and label score) and "proposal" (with box score), the surest first.

    A proposal's score is its cell's highest class score: how sure the network is that there is some thing.
    """

    name: str = "detector"
    min_score: Annotated[Score, Field(description="objects below are not reported")] = 0.2
    min_proposal_score: Annotated[Score, Field(description="proposals below are not reported")] = 0.1
    max_objects: Annotated[Count, Field(description="the surest so many of an image; 0: no objects")] = 100
    max_proposals: Annotated[Count, Field(description="the surest so many of an image; 0: no proposals")] = 50
    iou: Annotated[Score, Field(description="of boxes that overlap more, one is reported; filters may be stricter")] = (
        0.7
    )
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    licence: ClassVar[str] = "Apache-2.0"
    reads: ClassVar[Reads] = "image"
    _session: Any = field(default=None, init=False, repr=False, compare=False)

    @property
    def version(self) -> str:
        return digest_of(__name__, WEIGHTS, packages=("onnxruntime", "opencv-python-headless", "torchvision"))

    def setup(self) -> None:
        import onnxruntime
        import torchvision  # noqa: F401  3 s that are no image's fault

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = native_threads()
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(WEIGHTS, options, providers=["CPUExecutionProvider"])

    def annotate(self, batch: Sequence[Sample]) -> list[list[Region]]:
        return [list(self._regions(sample)) for sample in batch]

    def _regions(self, sample: Sample) -> Iterator[Region]:
        height, width = sample.image.shape[:2]
        outputs = dict(zip((*SCORES, *DISTANCES), self._run(sample.image), strict=True))
        scores = np.concatenate([outputs[name][0] for name in SCORES])
        unit_boxes = np.concatenate(
            [_boxes(outputs[name][0], stride) for name, stride in zip(DISTANCES, STRIDES, strict=True)]
        )
        boxes = unit_boxes * np.array([width, height, width, height], dtype=np.float32)
        ids = sample.record.ids(self.name)

        cells, classes = np.nonzero(scores >= self.min_score)
        for n in _suppressed(boxes[cells], scores[cells, classes], classes, self.iou, self.max_objects):
            word, score = CLASSES[classes[n]], float(scores[cells[n], classes[n]])
            yield Region(
                id=next(ids),
                source=self.name,
                kind="object",
                box=tuple(boxes[cells[n]].tolist()),
                raw_label=word,
                label=self.vocabulary.canonical(word),
                scores=Scores(label=score),
            )

        best = scores.max(axis=1)
        cells = np.flatnonzero(best >= self.min_proposal_score)
        for n in _suppressed(boxes[cells], best[cells], np.zeros_like(cells), self.iou, self.max_proposals):
            box, score = tuple(boxes[cells[n]].tolist()), float(best[cells[n]])
            yield Region(id=next(ids), source=self.name, kind="proposal", box=box, scores=Scores(box=score))

    def _run(self, image: Image) -> list[Floats]:
        import cv2

        pixels = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)[:, :, ::-1]
        blob = ((pixels - MEAN) / STD).transpose(2, 0, 1)[None]
        outputs: list[Floats] = self._session.run([*SCORES, *DISTANCES], {"input_1": np.ascontiguousarray(blob)})
        return outputs


def _boxes(logits: Floats, stride: int) -> Floats:
    """Boxes [cells, 4] with x and y in units of the image's width and height, clipped to the image."""
    bins = np.exp(logits.reshape(-1, 4, BINS) - logits.reshape(-1, 4, BINS).max(axis=2, keepdims=True))
    left, top, right, bottom = (bins @ np.arange(BINS, dtype=np.float32) / bins.sum(axis=2) * stride).T
    y, x = ((np.indices((SIDE // stride, SIDE // stride)).reshape(2, -1) + 0.5) * stride).astype(np.float32)
    boxes = np.stack([x - left, y - top, x + right, y + bottom], axis=1).clip(0, SIDE) / SIDE
    return boxes.astype(np.float32)


def _suppressed(
    boxes: Floats, scores: Floats, classes: npt.NDArray[np.int64], iou: float, limit: int
) -> npt.NDArray[np.int64]:
    """Indices of the boxes that stay after class-aware non-maximum suppression, best first, at most `limit`."""
    import torch
    from torchvision.ops import batched_nms

    kept = batched_nms(*map(torch.from_numpy, (boxes, scores, classes)), iou)
    best: npt.NDArray[np.int64] = kept[:limit].numpy()
    return best

"""A Florence-2 as a specialist: the one that was trained on the round, or any other that a folder or hub has.

It says of an image what it sees, and of what stands there already how likely it finds that. What it is asked is in
`specialists.interview`, what becomes of the answers in `specialists.findings`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field

from engine import geometry, segmentation
from engine.copies import fetched, located
from engine.dataset import Dataset
from engine.errors import ConfigError
from engine.folds import Folds
from engine.layout import Output
from engine.native import native_threads
from engine.protocols import Sample
from engine.records import AnyAnnotation, Decision
from engine.versions import digest_of, digest_of_files
from engine.vocabulary import Vocabulary
from specialists.hub.weights import Precision, Weights, absolute, licence_in

PARTS = ("findings", "interview", "union", "verification")

TaskName = Literal[
    "CAPTION",
    "DETAILED_CAPTION",
    "MORE_DETAILED_CAPTION",
    "OD",
    "DENSE_REGION_CAPTION",
    "REGION_PROPOSAL",
    "OCR_WITH_REGION",
    "OPEN_VOCABULARY_DETECTION",
    "CAPTION_TO_PHRASE_GROUNDING",
    "REGION_TO_SEGMENTATION",
    "REGION_TO_DESCRIPTION",
]
# An outline has a hundred tokens for each object, and so is slower than all the others together; descriptions are of
# what others found.
RARE = ("REGION_TO_SEGMENTATION", "REGION_TO_DESCRIPTION")
USUAL: tuple[TaskName, ...] = tuple(task for task in get_args(TaskName) if task not in RARE)
Share = Annotated[float, Field(ge=0, le=1)]
Overlap = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=0, le=100_000)]
Beams = Annotated[int, Field(ge=1, le=100)]


@dataclass(frozen=True)
class Trained:
    """The models trained on a round: one, or several, each of which never saw the images of its fold."""

    output: Output
    round: int
    folds: int = 1

    @property
    def folders(self) -> list[Path]:
        """On this machine. FileNotFoundError where a store has none."""
        return [fetched(self.output.round(self.round).model(fold, self.folds)) for fold in range(self.folds)]

    def split(self) -> Folds:
        """Which fold an image is in."""
        return Folds(self.folds, Dataset(self.output).leaders() if self.folds > 1 else {})


@dataclass
class Florence:
    """Captions, objects, proposals, texts and phrases by a Florence-2: the round's own, or any other.

    Of a round with several models the one answers that was kept from the image, and has its opinion of what stands;
    of its texts the next one has: no model ranks its own, nor what it was trained on.

    All of an image comes from one encoding, and what was found several times is one region. Scores are the model's own
    probabilities, null where it has none.

    Lists are written greedily: a beam search looks for the likeliest list, and each object more makes it less likely;
    each would cost as much again, too. Captions are single sentences, which beams make better.
    """

    name: str = "florence2"
    model: Annotated[
        str, Field(description="a folder or a hub's id; empty: the model trained on the round, for reannotate alone")
    ] = ""
    tasks: Annotated[
        tuple[TaskName, ...], Field(description="what it is asked; REGION_TO_SEGMENTATION (masks) is slow")
    ] = USUAL
    standing: Annotated[
        bool,
        Field(
            description="also of what stands, whoever found it: phrases of texts (CAPTION_TO_PHRASE_GROUNDING), "
            "outlines and descriptions of objects (REGION_TO_SEGMENTATION, REGION_TO_DESCRIPTION)"
        ),
    ] = False
    caption_beams: Annotated[Beams, Field(description="beams for captions")] = 3
    list_beams: Annotated[Beams, Field(description="beams for lists of objects, phrases, texts; 1: greedy")] = 1
    eos_penalty: Annotated[
        float,
        Field(
            ge=0,
            le=100,
            description="nats taken from the end of a list; 2.3: what is a tenth as likely as the end comes",
        ),
    ] = 2.3
    max_new_tokens: Annotated[int, Field(ge=2, le=100_000, description="of an answer; 512: a hundred objects")] = 512
    constrained: Annotated[bool, Field(description="write whole boxes, quads and polygons only")] = True
    max_queries: Annotated[Count, Field(description="classes of an image that are asked for one by one")] = 20
    min_score: Annotated[Share, Field(description="objects and texts with a lower label score are not reported")] = 0.05
    min_box_score: Annotated[Share, Field(description="boxes with a lower score are not reported")] = 0.0
    iou: Annotated[Overlap, Field(description="of one label, boxes that overlap so much are one object")] = 0.5
    iou_unlabelled: Annotated[
        Overlap, Field(description="a description, proposal or phrase is of what it overlaps so much")
    ] = 0.7
    max_objects: Annotated[Count, Field(description="the surest so many of an image")] = 100
    max_proposals: Annotated[Count, Field(description="the surest so many of an image")] = 50
    noise: Annotated[str, Field(description="the label of noise objects in training; no region gets it")] = "noise"
    verify: Annotated[
        bool, Field(description="say, as decisions to keep, log p per token of the labels and texts that stand")
    ] = True
    rename: Annotated[
        bool,
        Field(
            description="annotating again, say what it would call each object that stands, as a region in its place "
            "where that is another label"
        ),
    ] = True
    at_once: Annotated[
        int, Field(ge=1, le=10_000, description="images encoded together at most; halved until memory holds them")
    ] = 16
    prompts_at_once: Annotated[int, Field(ge=1, le=10_000, description="prompts answered together, likewise")] = 32
    precision: Annotated[
        Precision, Field(description="auto: bfloat16 on a GPU that has it; scores differ in their second digit")
    ] = "float32"
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    accept_licence: Annotated[
        bool, Field(description="use the model although its licence may forbid commercial use")
    ] = False
    models: ClassVar[dict[str, str]] = {
        "microsoft/Florence-2-base": "MIT",
        "microsoft/Florence-2-base-ft": "MIT",
        "microsoft/Florence-2-large": "MIT",
        "microsoft/Florence-2-large-ft": "MIT",
        "florence-community/Florence-2-base": "MIT",
        "florence-community/Florence-2-large": "MIT",
    }
    _trained: Trained | None = field(default=None, init=False, repr=False, compare=False)
    _folds: Folds = field(default_factory=lambda: Folds(1), init=False, repr=False, compare=False)
    _models: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.model = absolute(self.model)  # workers run in another folder

    def of_round(self, trained: Trained) -> Florence:
        """This one with the models of a round, if it names no other."""
        again = copy.copy(self)
        again._trained = None if self.model else trained
        return again

    @property
    def folds(self) -> int:
        """How many models it has, each kept from some images; 1: one that may have seen them all."""
        return self._trained.folds if self._trained else 1

    @property
    def licence(self) -> str:
        if self._trained or not self.model:
            return "that of the weights and of the data that it was trained from"
        return self.models.get(self.model) or licence_in(self._folders()[0])

    @property
    def weights(self) -> Weights:
        return Weights(f"specialists.{self.name}", self.model, self.models, self.accept_licence, ("florence2",))

    def needs(self) -> Iterator[str]:
        """What it still needs on this machine, for a person; ConfigError for what can't be had."""
        if not self.model:
            self._folders()
        elif missing := self.weights.missing():
            yield missing

    @property
    def version(self) -> str:
        weights = [path for folder in self._folders() for path in files_of(folder)]
        return digest_of_files(self._code(), *((path, path.stat().st_mtime_ns) for path in weights))

    def setup(self) -> None:
        import torch

        from specialists.interview import Interviewer

        torch.set_num_threads(native_threads())
        self._models = [Interviewer.of(folder, self) for folder in self._folders()]
        self._folds = self._trained.split() if self._trained else Folds(1)

    def annotate(self, batch: Sequence[Sample]) -> list[list[AnyAnnotation | Decision]]:
        by_fold: dict[int, list[int]] = {}
        for place, sample in enumerate(batch):
            by_fold.setdefault(self._folds.of(sample.record.item), []).append(place)
        answers: dict[int, list[AnyAnnotation | Decision]] = {}
        for fold, places in by_fold.items():
            samples = [batch[place] for place in places]
            some = self._models[fold].annotate(samples)
            if self.verify and len(self._models) > 1:
                other = self._models[(fold + 1) % len(self._models)].opinions(samples, some)
                some = [[*found, *opinions] for found, opinions in zip(some, other, strict=True)]
            answers.update(zip(places, some, strict=True))
        return [answers[place] for place in range(len(batch))]

    def _folders(self) -> list[Path]:
        """The folders of the models. Raises ConfigError where there are none."""
        from florence2 import processor
        from florence2.checkpoint import locate
        from florence2.errors import Florence2Error
        from florence2.hub import is_id, resolve

        if not self.model and not self._trained:
            raise ConfigError(
                f"specialist {self.name}: `model` is empty, which means the model that was trained on the round; that "
                "is for --stage reannotate. Name a folder or a hub's id, such as microsoft/Florence-2-base"
            )
        try:
            named: Sequence[str | Path] = self._trained.folders if self._trained else [located(self.model)]
            for one in named:
                resolve(one, (*processor.FILES, "README.md"))  # of a hub's all files come before any is looked at
            folders = [locate(one) for one in named]
        except (FileNotFoundError, Florence2Error) as error:
            by_hand = f". To fetch it by hand: {self.weights.command}" if self.model and is_id(self.model) else ""
            raise ConfigError(f"specialist {self.name}: {error}{by_hand}") from error
        if not self._trained:
            self.weights.check_licence(self.models.get(self.model) or licence_in(folders[0]))
        return folders

    def _code(self) -> str:
        spec = find_spec("florence2")
        assert spec is not None
        assert spec.origin is not None
        here = Path(__file__)
        parts = [here.with_name(f"{part}.py") for part in PARTS]
        parts += [Path(str(module.__file__)) for module in (geometry, segmentation)]
        parts += sorted(Path(spec.origin).parent.glob("*.py"))
        return digest_of(__name__, *parts, packages=("torch", "tokenizers", "pillow", "pycocotools"))


def files_of(folder: Path) -> list[Path]:
    """The files that a model and its processor are read from, in order."""
    from florence2 import checkpoint, processor

    weights = (checkpoint.SAFE, checkpoint.INDEX, "model-*.safetensors", checkpoint.PICKLE)
    return sorted({path for name in (*weights, *processor.FILES) for path in folder.glob(name)})

"""The configuration: YAML, checked before anything heavy starts. An unknown key or wrong type names its path."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from engine import plain_yaml
from engine.errors import ConfigError
from engine.places import is_local, is_remote_uri
from engine.records import HUMAN, MERGE
from engine.untrusted import shown
from engine.uris import is_url
from engine.validation import validated
from engine.vocabulary import Vocabulary


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Http(_Section):
    """How images at http(s) URLs are fetched. Proxies that the environment names are not used: behind one, nobody could
    check the address of a host."""

    timeout_seconds: float = Field(10, gt=0, le=3600, description="time limit for connecting, and for each read")
    total_seconds: float = Field(
        60, gt=0, le=86_400, description="time limit for one image, with all attempts and the waits between them"
    )
    attempts: int = Field(
        3,
        ge=1,
        le=100,
        description="how often it is asked for; again after time-outs, broken connections, 429 and 5xx",
    )
    backoff_seconds: float = Field(
        1, ge=0, le=3600, description="wait before the second attempt, doubled each time; more if the host asks for it"
    )
    connections: int = Field(32, ge=1, le=1024, description="images fetched at a time")
    user_agent: str = Field(
        "florence-engine/0.1 (collects images for a research dataset)",
        pattern=r"^[!-~]([ -~]*[!-~])?$",
        max_length=500,
        description="what hosts are told about who asks; add an address where you can be reached",
    )
    private_addresses: bool = Field(
        False, description="also ask hosts in private, loopback and link-local networks; only for lists you trust"
    )


def _signature(source: str) -> str:
    if source in (MERGE, "cascade"):
        raise ValueError(f"{source!r} is what the engine itself signs with")
    return source


class Ingest(_Section):
    """Which images, and how they are read."""

    images: tuple[str, ...] = Field(
        (),
        description="folders, images, URLs, .txt, .csv and .tsv lists, .parquet manifests, WebDataset .tar, COCO "
        ".json, Open Images .csv and .jsonl, folders of Hugging Face datasets, exported folders; none: the samples",
    )
    image_root: str | None = Field(
        None, description="the folder of the images that COCO's and Open Images' files name; none: near those"
    )
    class_folders: bool = Field(False, description="an image's label is the name of the folder that it is in")
    source: Annotated[str, AfterValidator(_signature)] = Field(
        HUMAN,
        pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$",
        max_length=60,
        description="who says what came along: human, or the name of whoever made it",
    )
    limit: int | None = Field(None, ge=1, le=10**12, description="take only the first N images of the set")
    shard_size: Annotated[int, Field(ge=1, le=100_000)] | Literal["auto"] = Field(
        "auto", description="images a shard; auto: 1/64 of the partition, at least 4 and at most 1024"
    )
    partition_size: int = Field(1_000_000, ge=1, le=1_000_000, description="images a partition")
    max_pixels: int = Field(
        200_000_000, ge=1, le=10**12, description="a larger image is turned down before it is decoded"
    )
    max_bytes: int = Field(256_000_000, ge=1, le=10**12, description="a larger file is not read, nor downloaded")
    http: Http = Http()


def _gpus(number: float) -> float:
    if (number > 1 and not number.is_integer()) or 0 < number < 0.01:
        raise ValueError("Ray shares out hundredths of one GPU, or whole ones")
    return number


Side = Annotated[int, Field(ge=16, le=8192)]


class PoolOfWorkers(_Section):
    """Workers of one kind, and the specialists that they run."""

    specialists: tuple[str, ...] = Field(
        min_length=1, description="consecutive ones, in the pipeline's order; of `specialists`, `reannotate` or both"
    )
    cpus: float = Field(1, ge=0.01, le=1000, description="CPUs, and native threads, of each worker")
    gpus: Annotated[float, AfterValidator(_gpus)] = Field(
        0, ge=0, le=1000, description="GPUs of each worker; fractions share one"
    )
    memory_mb: int = Field(1500, ge=1, le=10**8, description="memory that each worker may need")
    min: int = Field(1, ge=1, le=100_000, description="workers that start at first")
    max: Annotated[int, Field(ge=1, le=100_000)] | Literal["auto"] = Field(
        "auto", description="workers while images wait for them; auto: as many as the resources allow"
    )

    @model_validator(mode="after")
    def _some_room(self) -> PoolOfWorkers:
        if self.max != "auto" and self.max < self.min:
            raise ValueError(f"max {self.max} is less than min {self.min}")
        return self


class Run(_Section):
    """How the work is spread, guarded and watched. Nothing here changes an annotation."""

    address: str = Field("local", description="local: a Ray of the run's own; auto or an address: an existing cluster")
    workers: Annotated[int, Field(ge=1, le=100_000)] | Literal["auto"] = Field(
        "auto", description="workers; auto: as many as the resources allow"
    )
    cpus_per_worker: float = Field(1, ge=0.01, le=1000, description="CPUs, and native threads, of each worker")
    gpus_per_worker: Annotated[float, AfterValidator(_gpus)] = Field(
        0, ge=0, le=1000, description="GPUs of each worker; fractions share one"
    )
    memory_mb_per_worker: int = Field(
        1500, ge=1, le=10**8, description="memory that each worker may need; bounds how many start"
    )
    pools: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,59}$")], PoolOfWorkers] = Field(
        {},
        description="name -> workers of one kind, for some of the specialists; images go from pool to pool. None: one "
        "pool, as the five settings above say",
    )
    wait_seconds: float = Field(
        300, ge=0, le=86_400, description="how long a run waits for a cluster to bring the resources of one worker"
    )
    batch_size: int = Field(1, ge=1, le=1024, description="images handed to a specialist together")
    item_seconds: float = Field(
        180,
        gt=0,
        le=86_400,
        description="time limit for one image, and so many times that for a batch; whoever outlasts it is quarantined",
    )
    attempts: int = Field(2, ge=1, le=100, description="how often an image may end its worker before it is quarantined")
    failures_in_a_row: int = Field(
        100, ge=1, le=10**6, description="a run stops when so many images in a row go to quarantine"
    )
    max_quarantined: float = Field(
        0.05, ge=0, le=1, description="a larger share of quarantined images ends with code 1"
    )
    min_free_mb: int = Field(200, ge=0, description="free space in the output folder below which a run does not start")


Parameters = dict[str, Any]


class Phase(_Section):
    """A part of a training: what is learned, at which size and pace. A training has one, or its `phases` in turn."""

    steps: int = Field(1000, ge=1, le=10**9, description="optimiser's steps")
    images_per_step: int = Field(32, ge=1, le=10**6, description="images in a step, over all workers together")
    images_at_once: int = Field(
        32, ge=1, le=10**6, description="images of a worker in memory; a step takes as many turns as it needs"
    )
    tasks_per_image: int = Field(
        4, ge=1, le=1000, description="examples of an image, drawn by `mix`; they share one encoding of the image"
    )
    size: tuple[Side, Side] | None = Field(
        None, description="height and width at which the model sees images; none: the start's own, 96 for nano"
    )
    composed: bool | None = Field(
        None, description="learn captions that were composed from regions; none: only from scratch, never on released"
    )
    exclude: tuple[str, ...] = Field((), description="sources whose annotations are not learned")
    exhaustive: dict[str, tuple[str, ...] | Literal["all"]] = Field(
        {},
        description="source -> the classes of which it marks every instance, or all that it has in the round: only of "
        "these an absence is learned",
    )
    texts_from: tuple[str, ...] | None = Field(None, description="the only sources whose texts are learned; none: all")
    eos_weight: float = Field(
        1, ge=0, le=100, description="of the end of a list in the loss; below 1, lists learn less to end early"
    )
    recipe: Parameters = Field(
        {}, description="learning rate, warm-up, precision, freezing, LoRA ...: see docs/training.md"
    )
    mix: Parameters = Field({}, description="task group -> its share of the examples")
    targets: Parameters = Field({}, description="how annotations are written as answers: order of regions, limits ...")
    augment: Parameters = Field({}, description="flips, crops and colours, with boxes, masks and words kept true")


class Train(Phase):
    """How a Florence-2 is trained on what stands in a round."""

    start: str = Field(
        "nano",
        min_length=1,
        description="nano, pico, base, large: from scratch; previous: the model of the round before; a folder; hub id",
    )
    vocabulary_size: int = Field(
        4096, ge=1400, le=10**6, description="tokens of the tokenizer trained on the round's texts, from scratch"
    )
    folds: int = Field(
        1, ge=1, le=100, description="models, each kept from one part of the images; 2 and more: for reannotate"
    )
    held_out: float = Field(0.02, ge=0, lt=1, description="share of the images that judge the model and train none")
    judged_on: int = Field(500, ge=0, le=10**6, description="held-out images that are looked at, at most")
    seed: int = Field(0, ge=0, lt=2**31)
    workers: Annotated[int, Field(ge=1, le=100_000)] | Literal["auto"] = Field(
        "auto", description="Ray Train workers; auto: one for each GPU, or one on CPUs"
    )
    checkpoint_steps: int = Field(200, ge=1, le=10**9, description="steps between checkpoints, and judgements")
    samples: int = Field(4, ge=0, le=100, description="held-out images whose answers are drawn for the report")
    phases: dict[str, Parameters | None] = Field(
        {}, description="name -> what differs there from the values above; in this order"
    )


class Reannotate(_Section):
    """How the model of a round annotates all images again, as the next round."""

    specialists: dict[str, Parameters | None] = Field(
        {"florence2": {}}, description="as `specialists`; the Florence-2 takes the round's model unless told another"
    )
    filters: dict[str, Parameters | None] = Field({}, description="as `filters`: they decide on what is new alone")


class Merge(_Section):
    """How what a round adds and what stood before become one; see docs/refinement.md."""

    iou: float = Field(0.5, gt=0, le=1, description="objects and lines that overlap so much are of one thing")
    iou_proposals: float = Field(0.7, gt=0, le=1, description="likewise, for proposals")
    enter: float = Field(0.8, ge=0, le=1, description="lowest calibrated precision of what is new, where nothing was")
    fall: float = Field(0.2, ge=0, le=1, description="lowest calibrated precision of what stood, and is not seen again")
    min_matches: int = Field(300, ge=1, description="labelled matches that a calibration needs; fewer: uncalibrated")
    uncalibrated_score: float = Field(
        0.5,
        ge=0,
        le=1,
        description="lowest score of what is new and uncalibrated; of a class an image gets no more "
        "than images that have it had before, on average",
    )
    sizes: tuple[float, float] = Field(
        (0.06, 0.17),
        description="a region is small, medium or large by the square root of its share of the image; the defaults are "
        "COCO's 32 and 96 px in an image of 640 x 480",
    )
    text_margin: float = Field(
        0.1,
        gt=0,
        le=1,
        description="steps in which texts' agreement with the regions is compared; of equals the gain decides",
    )
    text_precision: float = Field(
        0.5, ge=0, le=1, description="of a new kind of text, the lowest share of what it names that must be there"
    )
    families: dict[str, str] = Field(
        {}, description="source -> its model family: sources of one family confirm nothing of each other"
    )
    chooser: Parameters = Field(
        {"use": "by_class"}, description="who chooses a region's text among category, descriptions and their phrases"
    )


class Gate(_Section):
    """How it is decided whether a round is better than the one before."""

    labels: tuple[str, ...] = Field(
        (),
        description="annotated sets, as in ingest.images: images of the set that people labelled whole. None of "
        "them is trained on, and by them scores are calibrated and rounds are judged",
    )
    image_root: str | None = Field(None, description="as ingest.image_root, for the labels")
    audit: int = Field(200, ge=1, le=10**6, description="images that `engine audit` draws")
    samples: int = Field(2000, ge=100, le=10**6, description="of the bootstrap")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of the intervals, two-sided")
    margin: float = Field(
        0.03, ge=0, le=1, description="by so much no kind, rare class or size may be worse than before"
    )
    min_instances: int = Field(
        20,
        ge=1,
        description="labelled ones that a class or size needs to be judged by itself; rarer classes are judged "
        "together",
    )
    drift: float = Field(
        0.5,
        ge=0,
        description="of what nobody labelled: by which share counts, sizes and lengths may change, and nats that "
        "the entropy of classes may",
    )
    seed: int = Field(0, ge=0, lt=2**31)


class RoundPlan(_Section):
    """A round of refinement."""

    images: Annotated[int, Field(ge=1, le=10**12)] | Literal["all"] = Field(
        "all", description="how many images it takes, at random; the larger round has those of the smaller"
    )
    train: Parameters = Field({}, description="what differs from `train`")


class Refine(_Section):
    """Rounds of training, annotating again and merging, each judged before it counts."""

    rounds: tuple[RoundPlan, ...] = Field(
        (RoundPlan(), RoundPlan()),
        min_length=1,
        description="in order; of more that are asked for, the last one is repeated",
    )


class Report(_Section):
    """The pages that show a dataset."""

    images: Annotated[int, Field(ge=0)] | Literal["all"] = Field(
        60, description="pictures that it shows, the most disputed first; of more than 100 a folder of pages is made"
    )


class Export(_Section):
    """What leaves the engine, and in which form."""

    format: str = Field("parquet", description="an installed format: see `engine export --help`")
    to: str | None = Field(None, description="the folder; none: export/<format> in the output folder")
    split: dict[str, float] = Field({}, description="name -> share, adding up to 1, such as {train: 0.9, val: 0.1}")
    kinds: tuple[str, ...] = Field(
        (), description="of texts, objects, lines, proposals, region_texts, masks, triplets; none: the format's own"
    )
    sources: tuple[str, ...] = Field((), description="only what these made; none: all")
    min_score: dict[str, float] = Field(
        {}, description="source, or * for the others -> least score of its regions; what has no score stays"
    )
    label_map: str | None = Field(
        None, description="a vocabulary, YAML or one that comes along: only its classes leave, under its names"
    )
    images: Literal["refer", "link", "copy", "inside"] | None = Field(
        None, description="by path, as links, as copies, or inside the format's files; none: the format's own way"
    )
    missing: Literal["stop", "skip"] = Field("stop", description="what to do when an image's bytes are gone")


class Rates(_Section):
    """What machines cost, for `engine plan`."""

    cpu_hour: float = Field(0.04, ge=0, le=10**6, description="of one CPU for an hour")
    gpu_hour: float = Field(1.2, ge=0, le=10**6, description="of one GPU for an hour")
    currency: str = Field("USD", min_length=1, max_length=20, description="of both")


class Config(_Section):
    """A pipeline: what is read, who annotates, who decides, and how it runs. Order is the order of work."""

    ingest: Ingest = Ingest()
    vocabulary: Vocabulary = Vocabulary()
    specialists: dict[str, Parameters | None] = Field(
        {}, description="source key -> `use` (an installed specialist, see `engine specialists`) and its parameters"
    )
    filters: dict[str, Parameters | None] = Field(
        {}, description="filter key -> `use` (an installed filter, see `engine filters`) and its thresholds"
    )
    run: Run = Run()
    train: Train = Train()
    reannotate: Reannotate = Reannotate()
    merge: Merge = Merge()
    gate: Gate = Gate()
    refine: Refine = Refine()
    report: Report = Report()
    export: Export = Export()
    rates: Rates = Rates()

    @model_validator(mode="after")
    def _one_source_a_name(self) -> Config:
        if self.ingest.source in {*self.specialists, *self.reannotate.specialists}:
            raise ValueError(f"ingest.source: {self.ingest.source!r} is one of the specialists; choose another name")
        return self

    @model_validator(mode="after")
    def _pools_of_known_specialists(self) -> Config:
        known = {**self.specialists, **self.reannotate.specialists}
        for name, pool in self.run.pools.items():
            if unknown := [specialist for specialist in pool.specialists if specialist not in known]:
                raise ValueError(
                    f"run.pools.{name}.specialists: {', '.join(unknown)} is no specialist here; there are "
                    f"{', '.join(known) or 'none'}"
                )
        return self


def load_config(path: Path, settings: Sequence[str] = (), overrides: Mapping[str, Any] | None = None) -> Config:
    """The YAML at `path`, with `overrides` (key path -> value) and then `settings` ("key.path=YAML value") over it. If
    those name another `export.format` than the file, its `to`, `kinds` and `images`, which are of that, don't hold.

    A file may begin with `base: FILE`, relative to its folder: it then says only what differs from that one. Raises
    ConfigError, which names the file and the path of each key at fault.
    """
    document = _document(path.absolute())
    given = dict(map(_setting, settings))
    _forget_other_format(document, {**(overrides or {}), **given})
    for key_path, value in (*(overrides or {}).items(), *given.items()):
        _assign(document, key_path, value)
    _resolve(document, Path.cwd(), start=not given.keys().isdisjoint(("train", "train.start")))
    with_ = " with the options" if overrides else " with --set" if settings else ""
    return validated(Config, document, where=f"{path}{with_}")


def _forget_other_format(document: dict[str, Any], given: Mapping[str, Any]) -> None:
    """What a file says of one format of exports is of no other that is named beside it."""
    export = document.get("export")
    if isinstance(export, dict) and given.get("export.format", there := export.get("format", "parquet")) != there:
        document["export"] = {name: value for name, value in export.items() if name not in ("to", "kinds", "images")}


def _document(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What a file says, over what its base says."""
    if path in above:
        raise ConfigError(f"{path} is its own base, by way of {', '.join(map(str, above))}")
    document = _read(path) or {}
    if not isinstance(document, dict):
        raise ConfigError(
            f"{path} must be a mapping (ingest, specialists, filters, ...), not a {type(document).__name__}"
        )
    base = document.pop("base", None)
    _resolve(document, path.parent)
    if base is None:
        return document
    if not isinstance(base, str) or "\0" in base:
        raise ConfigError(f"{path}: base: expected a file's name, not {shown(base)}")
    return merged(_document(Path(os.path.abspath(path.parent / os.path.expanduser(base))), (*above, path)), document)


def read_yaml(path: Path) -> dict[str, Any]:
    """A document that is a mapping. ConfigError if it can't be read, or is none."""
    document = _read(path)
    if not isinstance(document, dict):
        raise ConfigError(f"{path} must be a mapping, not a {type(document).__name__}")
    return document


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` over `base`, section by section: what only the base has comes first."""
    result = dict(base)
    for key, value in changes.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def _read(path: Path) -> Any:
    try:
        return plain_yaml.read(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't read {path}: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error


STARTS = ("nano", "pico", "base", "large", "previous")  # names of train.start that are no folder's


def _resolve(document: dict[str, Any], folder: Path, start: bool = True) -> None:
    """Paths as absolute ones: in a file they are relative to its folder, on the command line to the current. Where
    training starts may be a preset's name or a hub's id, too: without `start` it is what the file made of it."""

    def absolute(path: Any) -> Any:
        is_path = isinstance(path, str) and not is_url(path) and not is_remote_uri(path)
        is_path = is_path and "\0" not in path  # which no file has in its name
        if not is_path or (os.path.isabs(path) and not is_local(folder)):
            return path
        beside = folder / os.path.expanduser(path)
        return os.path.abspath(beside) if is_local(folder) else str(beside)

    ingest = document.get("ingest")
    if isinstance(ingest, dict):
        if isinstance(ingest.get("images"), list):
            ingest["images"] = [absolute(path) for path in ingest["images"]]
        if "image_root" in ingest:
            ingest["image_root"] = absolute(ingest["image_root"])
    gate = document.get("gate")
    if isinstance(gate, dict):
        if isinstance(gate.get("labels"), list):
            gate["labels"] = [absolute(path) for path in gate["labels"]]
        if "image_root" in gate:
            gate["image_root"] = absolute(gate["image_root"])
    export = document.get("export")
    if isinstance(export, dict):
        if "to" in export:
            export["to"] = absolute(export["to"])
        named = export.get("label_map")
        if isinstance(named, str) and named.endswith((".yaml", ".yml")):  # others come along
            export["label_map"] = absolute(named)
    train = document.get("train")
    if start and isinstance(train, dict):
        named = train.get("start")
        if isinstance(named, str) and named not in STARTS and os.path.isdir(absolute(named)):
            train["start"] = absolute(named)


def _setting(setting: str) -> tuple[str, Any]:
    key_path, equals, value = setting.partition("=")
    if not equals or not all(key_path.split(".")):
        raise ConfigError(f"--set takes key.path=value, such as run.workers=2, not {setting!r}")
    try:
        return key_path, plain_yaml.parse(value)
    except ValueError as error:
        raise ConfigError(f"--set {setting}: the value is not valid YAML: {error}") from error


def _assign(document: dict[str, Any], key_path: str, value: Any) -> None:
    *sections, last = key_path.split(".")
    target: Any = document
    for depth, key in enumerate(sections, 1):
        if target.get(key) is None:
            target[key] = {}
        target = target[key]
        if not isinstance(target, dict):
            raise ConfigError(f"--set {key_path}: {'.'.join(sections[:depth])} is a value, not a section")
    target[last] = value

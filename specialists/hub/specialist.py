"""What all specialists over hub models have in common: their parameters, version and licence, and batches that fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import Field

from engine.native import native_threads
from engine.versions import digest_of, digest_of_files
from specialists.hub import weights
from specialists.hub.weights import Precision, Weights

Input = TypeVar("Input")
Answer = TypeVar("Answer")


@dataclass
class HubSpecialist:
    """The parameters that they share.

    A subclass says in `models` which are usual, by hub id, with their licences, in `families` which it can use (by
    model_type; none: any), in `code` and `packages` what makes its answers beside the modules here.
    """

    name: str = "hub"
    model: Annotated[str, Field(description="a folder, or a hub's id (owner/name)")] = ""
    accept_licence: Annotated[
        bool, Field(description="use the model although its licence may forbid commercial use")
    ] = False
    precision: Annotated[
        Precision, Field(description="auto: bfloat16 on a GPU that has it, else float32; scores differ a little")
    ] = "auto"
    at_once: Annotated[
        int, Field(ge=1, le=100_000, description="through the model together at most; halved until memory holds them")
    ] = 16
    models: ClassVar[dict[str, str]] = {}
    families: ClassVar[tuple[str, ...]] = ()
    code: ClassVar[tuple[str, ...]] = ()
    packages: ClassVar[tuple[str, ...]] = ("torch", "torchvision", "transformers", "tokenizers", "pillow")
    _batches: Batches = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.model = weights.absolute(self.model)  # workers run in another folder
        self._batches = Batches(self.at_once)

    @property
    def weights(self) -> Weights:
        return Weights(self.where, self.model, self.models, self.accept_licence, self.families)

    @property
    def where(self) -> str:
        """The section of the configuration that it is built from."""
        return f"specialists.{self.name}"

    @property
    def licence(self) -> str:
        """The weights'; the code is under this project's."""
        return self.weights.licence

    @property
    def version(self) -> str:
        return digest_of_files(self._code, *self.weights.files())

    @property
    def _code(self) -> str:
        """Of all code here, as adapters share much of it, and of the modules elsewhere that a subclass names."""
        here = sorted(Path(__file__).parent.glob("*.py"))
        elsewhere = [Path(str(import_module(name).__file__)) for name in self.code]
        return digest_of(type(self).__module__, *here, *elsewhere, packages=self.packages)

    def needs(self) -> Iterator[str]:
        """What it still needs on this machine, for a person; ConfigError for what can't be had."""
        if missing := self.weights.missing():
            yield missing

    def setup(self) -> None:
        import torch

        torch.set_num_threads(native_threads())
        self._load(self.weights)

    def _load(self, weights: Weights) -> None:
        """Loads model and processor. Of a subclass."""
        raise NotImplementedError

    def in_batches(self, run: Callable[[Sequence[Input]], Sequence[Answer]], inputs: Sequence[Input]) -> list[Answer]:
        """`run` over all inputs, in order, as many together as memory holds; without gradients."""
        import torch

        with torch.inference_mode():
            return self._batches.run(run, inputs)


@dataclass
class Batches:
    """How many inputs go through a model together. Where memory does not hold them, half as many do from then on."""

    at_once: int

    def run(self, run: Callable[[Sequence[Input]], Sequence[Answer]], inputs: Sequence[Input]) -> list[Answer]:
        """What `run` gives, in order. It is called again with a part of what it failed on; raises what it raises."""
        done: list[Answer] = []
        while len(done) < len(inputs):
            some = inputs[len(done) : len(done) + self.at_once]
            answers = self._tried(run, some)
            if answers is None:
                self.at_once = max(len(some) // 2, 1)
            elif len(answers) != len(some):
                raise ValueError(f"{len(answers)} answers for {len(some)} inputs")
            else:
                done += answers
        return done

    def halving(self, run: Callable[[int], Answer]) -> Answer:
        """What `run` gives, which is told how many inputs to take together; from the start with half as many."""
        import torch

        while True:
            try:
                return run(self.at_once)
            except (MemoryError, RuntimeError) as error:
                if self.at_once == 1 or not is_out_of_memory(error):
                    raise
            self.at_once //= 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _tried(self, run: Callable[[Sequence[Input]], Sequence[Answer]], some: Sequence[Input]) -> Any:
        """None if there was not the memory. The error has to be gone by the next try: it holds the tensors."""
        import torch

        try:
            return run(some)
        except (MemoryError, RuntimeError) as error:
            if len(some) == 1 or not is_out_of_memory(error):
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU's or the machine's memory was too small; PyTorch has no type for the latter."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)

"""The command line: `python -m florence2.evaluate --model PATH --benchmark coco-caption --data PATH` prints a table.

Exit codes: 0 done, 1 done but for images that are missing or can't be read (stderr names them), 2 wrong usage,
checkpoint or data, 3 failed as a disk is full or fails, 130 interrupted, 141 nobody reads the output any more.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import torch

from florence2.__main__ import DTYPES, UNREADABLE, Parser, at_least, device, ended, escaped, say
from florence2.annotate import Annotator
from florence2.errors import Florence2Error, refused, unwritable
from florence2.evaluation.asking import Asked, Said, ask_all, progress
from florence2.evaluation.benchmarks import BENCHMARKS, Benchmark, Wanted
from florence2.evaluation.journal import Journal
from florence2.evaluation.photos import paths_of
from florence2.evaluation.table import table
from florence2.model import Florence2
from florence2.processor import Processor
from florence2.tasks import Task
from florence2.training.state import digest

NAMED = 10  # missing images that stderr names; the file of --out has them all
Answers = dict[int | str, Sequence[Said]]


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code. An error that we can explain is a line on stderr."""
    return ended(lambda: run(parser().parse_args(argv)))


def run(options: argparse.Namespace) -> int:
    benchmark = benchmark_of(options)
    every = benchmark.asked
    asked = every[: options.limit]
    paths = paths_of([one.photo for one in asked], options.images or near(options.data))
    if options.out is not None:
        check(options.out, options.answers)
    model = Florence2.from_pretrained(options.model, DTYPES[options.dtype]).to(options.device)
    annotator = Annotator(
        model,
        Processor.from_pretrained(options.model),
        num_beams=options.beams,
        max_new_tokens=options.max_new_tokens,
        batch_size=options.batch,
    )
    decoding = {"beams": options.beams, "max_new_tokens": options.max_new_tokens, "dtype": options.dtype}
    about = {
        "benchmark": options.benchmark,
        "about": benchmark.about,
        "model": {"path": options.model, "digest": digest(model.state_dict())},
        "decoding": decoding | {"no_repeat_ngram_size": annotator.no_repeat_ngram_size},
    }
    started = monotonic()
    answers, missing, now = answered(annotator, asked, paths, options.answers, about)
    seconds = monotonic() - started
    for line in told(missing, len(asked), options.skip_missing):
        print(escaped(line), file=sys.stderr)
    result = benchmark.measure(
        answers, {one.photo.id for one in asked if not (options.skip_missing and one.photo.id in missing)}
    )
    outcome = about | {
        "about": benchmark.about | {"images": len(every), "limit": options.limit},
        "result": result.told(),
        "published": asdict(benchmark.published) | {"note": benchmark.published.note},
        "missing": {str(id): why for id, why in missing.items()},
        "skipped": options.skip_missing,
        "asked": now,
        "kept": len(answers) - now,
        "seconds": seconds,
        "images_per_second": now / max(seconds, 1e-9),
    }
    try:
        if options.out is not None:
            store(outcome, options.out, options.answers)
    finally:  # it is all there is, where the file fails
        for line in table(outcome):
            say(line)
    return UNREADABLE if missing else 0


def benchmark_of(options: argparse.Namespace) -> Benchmark:
    if options.task is not None and options.benchmark != "coco-caption":
        raise Florence2Error("--task is for coco-caption; the other benchmarks ask what they need")
    if options.masks and options.benchmark != "refcoco":
        raise Florence2Error("--masks is for refcoco")
    task = None if options.task is None else Task.of(options.task)
    return BENCHMARKS[options.benchmark](Wanted(options.data, options.split, task, options.masks))


def near(data: Path) -> Path:
    """Where images are looked for unless it is said: in the data's folder, and those below; not in annotations/."""
    folder = data if data.is_dir() else data.parent
    return folder.parent if folder.name == "annotations" else folder


# The file of --out


def check(out: Path, answers: Path | None) -> None:
    """Says what can't be written before the hours, not after them."""
    if answers is not None and os.path.realpath(out) == os.path.realpath(answers):
        raise Florence2Error(f"--out {out}: expected another file than that of --answers")
    if out.is_dir():
        raise Florence2Error(f"--out {out}: expected a file's name, got a folder")
    try:
        if not is_device(out):
            with aside(out) as unfinished:
                unfinished.write_text("{}\n")
    except OSError as error:
        raise refused(f"--out {out}", error) from None


def store(outcome: Mapping[str, Any], out: Path, answers: Path | None) -> None:
    """The file has its name when it is whole. OutputError if it can't be written; what was there before stays."""
    text = json.dumps(outcome, indent=2, allow_nan=False) + "\n"
    try:
        if is_device(out):
            out.write_text(text, encoding="utf-8")
        else:
            with aside(out) as unfinished:
                unfinished.write_text(text, encoding="utf-8")
                unfinished.replace(os.path.realpath(out))
    except OSError as error:
        kept = "no answer is kept without --answers" if answers is None else f"the answers are kept in {answers}"
        raise unwritable(f"--out {out}", error, f"The table is printed, and {kept}") from None


def is_device(out: Path) -> bool:
    """A pipe or a terminal, say, or what stdout was sent to: it is written to as it is."""
    return out.exists() and (not out.is_file() or str(out).startswith(("/dev/", "/proc/")))


@contextmanager
def aside(out: Path) -> Iterator[Path]:
    """A place for what is not finished, on the same disk; gone at the end."""
    with TemporaryDirectory(prefix=".unfinished-", dir=os.path.dirname(os.path.realpath(out))) as folder:
        yield Path(folder, out.name)


# Asking


def answered(
    annotator: Annotator,
    asked: Sequence[Asked],
    paths: Mapping[int | str, Path],
    file: Path | None,
    about: Mapping[str, Any],
) -> tuple[Answers, dict[int | str, str], int]:
    """Answers by image, why there are none to others, and how many images were asked now: `file` may have the rest."""
    missing: dict[int | str, str] = {
        one.photo.id: f"no file {one.photo.file}" for one in asked if one.photo.id not in paths
    }
    if file is None:
        answers: Answers = {}
        answers.update(asking(annotator, [one for one in asked if one.photo.id in paths], paths, missing, None))
        return answers, missing, len(answers)
    with closing(Journal(file, about)) as journal:
        kept = {one.photo.id: said for one in asked if (said := journal.of(one)) is not None}
        left = [one for one in asked if one.photo.id in paths and one.photo.id not in kept]
        new = asking(annotator, left, paths, missing, journal)
    return {**kept, **new}, {id: why for id, why in missing.items() if id not in kept}, len(new)


def asking(
    annotator: Annotator,
    asked: Sequence[Asked],
    paths: Mapping[int | str, Path],
    missing: dict[int | str, str],
    journal: Journal | None,
) -> Answers:
    answers: Answers = {}
    tell = progress(len(asked))
    for one, said in ask_all(annotator, asked, paths, missing):
        answers[one.photo.id] = said
        if journal is not None:
            journal.keep(one, said)
        tell(len(answers))
    return answers


def told(missing: Mapping[int | str, str], images: int, skipped: bool) -> list[str]:
    if not missing:
        return []
    lines = [f"image {id}: {why}" for id, why in list(missing.items())[:NAMED]]
    if len(missing) > NAMED:
        lines.append(f"and {len(missing) - NAMED} more")
    how = "left out" if skipped else "counted as wrong (--skip-missing leaves them out)"
    return [*lines, f"missing or unreadable: {len(missing)} of {images} images, {how}"]


def parser() -> Parser:
    parser = Parser(
        prog="python -m florence2.evaluate",
        usage="%(prog)s --model PATH --benchmark NAME --data PATH [options]",
        description="Measures a Florence-2 on a benchmark's published files.",
        epilog=DATA,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--model", required=True, metavar="PATH", help="a folder, or a hub's id such as microsoft/Florence-2-base"
    )
    parser.add_argument("--benchmark", required=True, choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--data", required=True, type=Path, metavar="PATH", help="see below")
    parser.add_argument("--images", type=Path, metavar="PATH", help="their folder; default: DATA's, or one below it")
    parser.add_argument("--split", metavar="NAME", help="see below")
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="the first N images alone")
    parser.add_argument("--task", metavar="NAME", help="of coco-caption: DETAILED_CAPTION, say; default CAPTION")
    parser.add_argument("--masks", action="store_true", help="of refcoco: masks instead of boxes")
    parser.add_argument("--skip-missing", action="store_true", help="images that aren't there don't count as wrong")
    parser.add_argument(
        "--answers", type=Path, metavar="FILE", help="keeps the answers; the same again goes on from them"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the outcome as JSON, classes and missing images too")
    parser.add_argument("--beams", type=at_least(1), default=3, metavar="N", help="default 3")
    parser.add_argument("--max-new-tokens", type=at_least(2), default=1024, metavar="N", help="default 1024")
    parser.add_argument("--batch", type=at_least(1), default=8, metavar="N", help="prompts at once, default 8")
    parser.add_argument(
        "--device",
        type=device,
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="cpu or cuda; default: cuda where there is one",
    )
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="%(choices)s; default %(default)s")
    return parser


DATA = """data, as it is published (a folder or the first file):
  coco-caption    captions_val2017.json, --split val2017; or Karpathy's dataset_coco.json, --split test, val, train
  coco-detection  instances_val2017.json, --split val2017
  refcoco         refs(unc).p and instances.json, --split val, testA, testB; of RefCOCO, RefCOCO+ or RefCOCOg
  flickr30k       Annotations/*.xml, Sentences/*.txt and test.txt, --split test, val, train

exit codes: 0 done, 1 some image is missing or can't be read, 2 wrong usage, checkpoint or data,
            3 a disk is full or fails"""


if __name__ == "__main__":
    sys.exit(main())

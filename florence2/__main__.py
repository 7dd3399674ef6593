"""The command line: `python -m florence2 IMAGE... --task OD --model PATH` prints JSON, a line an image.

Exit codes: 0 done, 1 done but for images that can't be read (their lines say why), 2 wrong usage or checkpoint,
3 failed as a disk is full or fails, 130 interrupted, 141 nobody reads the output any more.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from PIL import Image, ImageOps

from florence2.annotate import Annotator, Answer, Question
from florence2.codec import Annotation
from florence2.draw import draw
from florence2.errors import Florence2Error, ImageError, OutputError, PromptError, unwritable
from florence2.locations import UNKNOWN
from florence2.model import Florence2
from florence2.processor import Processor, named, opened, to_rgb, unreadable
from florence2.tasks import Box, Form, Prompt, Task, ask

UNREADABLE, WRONG, FAILED = 1, 2, 3
INTERRUPTED, UNREAD = 130, 141  # as shells have them for SIGINT and SIGPIPE
DTYPES = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16")}
FORMS = {form.value.replace(" ", "-"): form for form in Form}
ALL = "all"


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code. An error that we can explain is a line on stderr."""
    return ended(lambda: run(parser().parse_args(joined(sys.argv[1:] if argv is None else argv))))


def ended(call: Callable[[], int]) -> int:
    """The exit code of a command, however it ends."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # as JSON is, whatever the terminal's language
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # twice the size is an error, and is said
            return call()
    except BrokenPipeError:
        return UNREAD
    except KeyboardInterrupt:
        return INTERRUPTED
    except (Florence2Error, OSError) as error:
        print(escaped(f"florence2: {' '.join(str(error).split())}"), file=sys.stderr)
        return FAILED if isinstance(error, OutputError) else WRONG


def say(text: str) -> None:
    """A line on stdout, at once. BrokenPipeError if nobody reads it, OutputError if there is no room for it."""
    try:
        print(escaped(text), flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains of it when it ends
        if isinstance(error, BrokenPipeError):
            raise
        raise unwritable("what it prints", error, "What stands there is right") from None


def run(options: argparse.Namespace) -> int:
    questions = questions_of(options)
    check(options.images)
    pictures = pictures_of(options.images, options.draw) if options.draw is not None else {}
    processor = Processor.from_pretrained(options.model)
    model = Florence2.from_pretrained(options.model, DTYPES[options.dtype]).to(options.device)
    annotator = Annotator(
        model,
        processor,
        num_beams=options.beams,
        max_new_tokens=options.max_new_tokens,
        eos_penalty=options.eos_penalty,
        constrained=options.constrained,
        batch_size=options.batch_size,
    )
    code = 0
    for seen in look(annotator, options.images, questions):
        say(json.dumps(line(seen), ensure_ascii=False))
        if isinstance(seen.image, ImageError):
            code = UNREADABLE
        elif pictures:
            save(draw(seen.image, seen.answers), pictures[seen.path])
    return code


# What is asked


def questions_of(options: argparse.Namespace) -> list[Question]:
    """The tasks and then the free prompts, each once. PromptError where something is missing or surplus."""
    given = {"--input": options.input, "--region": options.region, "--label": options.label}
    used = {"--label"} if options.prompt else set()
    questions: list[Question] = []
    for task in dict.fromkeys(task for name in options.task for task in tasks_of(name)):
        input = None
        if takes := options_of(task):
            option = next((name for name in takes if given[name] is not None), None)
            if option is None:
                raise PromptError(f"{task} needs {' or '.join(takes)}")
            input = given[option]
            used.add(option)
        ask(task, input, UNKNOWN)  # what is wrong with it is said before a model is loaded
        question: Question = task if input is None else (task, input)
        questions.append(question)
    for text in dict.fromkeys(options.prompt):
        questions.append(Prompt(text, FORMS[options.form or "text"], labels=tuple(options.label or ())))
    if options.form and not options.prompt:
        raise PromptError("--form says how to read the answer to a --prompt, and there is none")
    if surplus := [name for name, value in given.items() if value is not None and name not in used]:
        raise PromptError(f"nothing that is asked takes {surplus[0]}")
    if not questions:
        raise PromptError(f"expected --task (one of {', '.join(Task)}; or {ALL}) or --prompt; got neither")
    return questions


def tasks_of(name: str) -> list[Task]:
    return [task for task in Task if not task.takes_input] if name.lower() == ALL else [Task.of(name)]


def options_of(task: Task) -> tuple[str, ...]:
    """Those that a task's input may come from; the first that is given counts."""
    if not task.takes_input:
        return ()
    if task.takes_region:
        return ("--region",)
    return ("--label", "--input") if task is Task.OPEN_VOCABULARY_DETECTION else ("--input",)


# Images in, pictures out


def check(paths: Sequence[str]) -> None:
    for path in paths:
        if os.path.isdir(path):
            raise ImageError(f"{path}: expected an image, got a folder; name those in it, as in {path}/*.jpg")
        if not os.path.exists(path):
            raise ImageError(f"{path}: no such file")


def pictures_of(paths: Sequence[str], draw: str) -> dict[str, Path]:
    """Where the picture of each image goes: the file `draw`, or if it is a folder or the images are several, into it.

    An image is never written over. Florence2Error where that can't be, or nothing can be written there.
    """
    if not draw or "\0" in draw:
        raise Florence2Error(f"--draw {draw!r}: expected a picture's name or a folder's")
    out, images = Path(draw), {os.path.realpath(path) for path in paths}
    if len(set(paths)) == 1 and not out.is_dir():
        if not writable(Image.registered_extensions().get(out.suffix.lower(), "")):
            raise Florence2Error(f"--draw {draw}: expected a picture's name that Pillow can write, as in picture.png")
        if not out.parent.is_dir() or os.path.realpath(out) in images:
            raise Florence2Error(f"--draw {draw}: {'is an image itself' if out.exists() else 'no such folder'}")
        return {paths[0]: out}
    try:
        out.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise Florence2Error(f"--draw {draw}: expected a folder for pictures of several images, got a file") from None
    pictures: dict[str, Path] = {}
    for path in dict.fromkeys(paths):
        names = (out / f"{Path(path).stem}{'' if n == 1 else f'-{n}'}.png" for n in range(1, 2 * len(paths) + 2))
        pictures[path] = next(p for p in names if p not in pictures.values() and os.path.realpath(p) not in images)
    return pictures


def writable(format: str) -> bool:
    """Whether Pillow can write a picture's colours in it; for several it has a writer that always fails."""
    try:
        Image.new("RGB", (1, 1)).save(io.BytesIO(), format)
    except (KeyError, OSError, ValueError):
        return False
    return True


def save(picture: Image.Image, path: Path) -> None:
    """OutputError if it can't be; then nothing of it stays."""
    try:
        picture.save(path)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise unwritable(f"--draw {path}", error, "What is printed is right") from None


class Seen(NamedTuple):
    """An image, upright and with its answers, or why it can't be read."""

    path: str
    image: Image.Image | ImageError
    answers: Sequence[Answer] = ()


def look(annotator: Annotator, paths: Sequence[str], questions: Sequence[Question]) -> Iterator[Seen]:
    """In the order of the paths; what can't be read takes nothing from the others."""
    waiting: deque[Seen] = deque()

    def images() -> Iterator[Image.Image]:
        for number, path in enumerate(paths):
            try:
                image = upright(path, number)
            except ImageError as error:
                waiting.append(Seen(path, error))
            else:
                waiting.append(Seen(path, image))
                yield image

    for answers in annotator.stream(images(), questions):
        while isinstance(waiting[0].image, ImageError):
            yield waiting.popleft()
        yield waiting.popleft()._replace(answers=answers)
    yield from waiting


def upright(path: str, number: int) -> Image.Image:
    """The image as its EXIF says that it is to be seen, and as the model sees it. ImageError if it can't be read."""
    with opened(path, number) as image:
        try:
            return to_rgb(ImageOps.exif_transpose(image))
        except Exception as error:  # decoders raise whatever they stumble over
            raise unreadable(named(path, number), error) from error


# What is printed


def line(seen: Seen) -> dict[str, Any]:
    if isinstance(seen.image, ImageError):
        return {"image": seen.path, "error": str(seen.image)}
    return {"image": seen.path, "size": seen.image.size, "answers": [answer_fields(a) for a in seen.answers]}


def answer_fields(answer: Answer) -> dict[str, Any]:
    fields: dict[str, Any] = {} if answer.task is None else {"task": answer.task}
    fields |= {"prompt": answer.prompt.text, "text": answer.text}
    fields |= {"score": significant(answer.score), "complete": answer.complete}
    if answer.prompt.form is not Form.TEXT:
        fields["annotations"] = [annotation_fields(annotation) for annotation in answer.annotations]
    return fields


def annotation_fields(annotation: Annotation) -> dict[str, Any]:
    """Those that are there."""
    fields: dict[str, Any] = {"label": annotation.label} if annotation.label else {}
    for name in ("box", "quad"):
        if place := getattr(annotation, name):
            fields[name] = [round(value, 2) for value in place]
    if annotation.polygons:
        fields["polygons"] = [[round(value, 2) for value in ring] for ring in annotation.polygons]
    scores = {name: getattr(annotation, name) for name in ("score", "raw", "label_score")}
    return fields | {name: significant(value) for name, value in scores.items() if value is not None}


def significant(value: float) -> float:
    """To four digits."""
    return float(f"{value:.4g}")


def escaped(text: str) -> str:
    """As JSON has it, what moves the cursor or turns the text around: files and models may say anything."""
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


# Options


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(WRONG, escaped(f"florence2: {message}; --help says more") + "\n")


def joined(words: Sequence[str]) -> list[str]:
    """--region and its value as one word: argparse takes -10,-5,30,40 for an option."""
    rest = iter(words)
    return [f"{word}={next(rest, '')}" if word == "--region" else word for word in rest]


def parser() -> Parser:
    parser = Parser(
        prog="python -m florence2",
        usage="%(prog)s IMAGE... --task NAME --model PATH [options]",
        description="Asks a Florence-2 about images. Prints JSON, a line an image; coordinates are in pixels of the "
        "upright image.",
        epilog=epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="files")
    parser.add_argument(
        "--model", required=True, metavar="PATH", help="a folder, or a hub's id such as microsoft/Florence-2-base"
    )
    parser.add_argument(
        "--draw", metavar="PATH", help="draw the answers into this picture; of several images, into this folder"
    )
    add_questions(parser.add_argument_group("what is asked"))
    add_decoding(parser.add_argument_group("how it is answered"))
    return parser


def add_questions(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--task", action="append", default=[], metavar="NAME", help=f"see below; several times for several; or {ALL}"
    )
    group.add_argument("--input", metavar="TEXT", help="the text of tasks that take one")
    group.add_argument("--region", type=region, metavar="X0,Y0,X1,Y1", help="the box of tasks that take one, in pixels")
    group.add_argument("--label", action="append", metavar="TEXT", help="what to detect; several times for several")
    group.add_argument(
        "--prompt", action="append", default=[], metavar="TEXT", help="free words, for a fine-tuned checkpoint"
    )
    group.add_argument("--form", choices=FORMS, metavar="FORM", help=f"of the prompts' answers: {', '.join(FORMS)}")


def add_decoding(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--beams", type=at_least(1), default=3, metavar="N", help="default 3")
    group.add_argument("--max-new-tokens", type=at_least(2), default=1024, metavar="N", help="default 1024")
    group.add_argument(
        "--constrained", action="store_true", help="only whole boxes, quads and polygons; only the labels asked for"
    )
    group.add_argument(
        "--eos-penalty", type=finite, default=0.0, metavar="NATS", help="above 0: longer lists; 0.5, say"
    )
    group.add_argument(
        "--batch-size", type=at_least(1), default=8, metavar="N", help="prompts at once, default 8; 1: soonest a line"
    )
    group.add_argument(
        "--device",
        type=device,
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="cpu or cuda; default: cuda where there is one",
    )
    group.add_argument("--dtype", choices=DTYPES, default="float32", help="%(choices)s; default %(default)s")


def epilog() -> str:
    kinds: dict[tuple[str, ...], list[Task]] = {}
    for task in Task:
        kinds.setdefault(options_of(task), []).append(task)
    tasks = "".join(
        f"  {' or '.join(takes) or 'without input'}:\n" + "".join(f"    {task}\n" for task in kinds[takes])
        for takes in kinds
    )
    return (
        f"tasks:\n{tasks}\nexamples:\n"
        "  python -m florence2 cat.jpg --task OD --task CAPTION --model microsoft/Florence-2-base --draw seen.png\n"
        "  python -m florence2 *.jpg --task OPEN_VOCABULARY_DETECTION --label cat --label dog --model ./mine\n"
        "  python -m florence2 page.png --task REGION_TO_OCR --region 40,60,300,90 --model ./mine\n\n"
        "exit codes: 0 done, 1 some image can't be read, 2 wrong usage or checkpoint, 3 a disk is full or fails"
    )


def region(text: str) -> Box:
    try:
        x0, y0, x1, y1 = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected X0,Y0,X1,Y1, four numbers; got {text!r}") from None
    return x0, y0, x1, y1


def at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} up; got {text!r}")
        return int(text)

    return number


def finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number; got {text!r}")
    return value


def device(text: str) -> torch.device:
    name, _, number = text.partition(":")
    count = {"cpu": 1, "cuda": torch.cuda.device_count()}.get(name, 0)
    if not 0 <= int(number if number.isdecimal() else 0 if text == name else -1) < count:
        raise argparse.ArgumentTypeError(f"expected cpu{' or cuda' * torch.cuda.is_available()} here; got {text!r}")
    return torch.device(text)


if __name__ == "__main__":
    sys.exit(main())

"""The command line. It sits on top: the one module of `engine` that knows the pipelines."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.components import Group, installed, load, parameters_of
from engine.config import Config, Ingest, load_config
from engine.dataset import open_dataset
from engine.errors import ConfigError, EngineError, OutputError
from engine.storage import Output
from engine.validation import section_of
from pipelines.build import EMBEDDED, Pipeline, build_pipeline, shipped
from pipelines.compatible import config_there, is_decided
from pipelines.manifests import accepted, print_verdict
from pipelines.samples import sample_photos
from pipelines.stages import STAGES, Stages

QUARANTINED, FAILED, INTERRUPTED, UNREAD = 1, 3, 130, 141  # the last two as shells have them for SIGINT and SIGPIPE
STOPS = (signal.SIGTERM, signal.SIGHUP)  # a batch system's stop and a closed terminal, to be treated as Ctrl-C

app = typer.Typer(
    help="An open data engine after Florence-2's: photos in, an annotated vision-language dataset out.",
    epilog="Exit codes: 0 done, 1 done but too many images in quarantine, 2 wrong usage or configuration, 3 failed, "
    "130 interrupted, 141 nobody reads the output any more.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Unread(SystemExit):
    """Nobody reads the output any more, as in `engine run | head`."""


class Terminal(Console):
    """Rich's own way out is code 1, which has another meaning here."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())
        raise Unread(UNREAD)


console = Terminal()
errors = Terminal(stderr=True)

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="Pipeline YAML, or one that comes along, by name: little_data. Default: that of --out where there is one, "
        "else the embedded pipeline.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", metavar="KEY.PATH=VALUE", help="Change one value of the configuration. Can be repeated."
    ),
]
ImagesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--images",
        "-i",
        metavar="PATH",
        help="Folder, image, URL, list, manifest or annotated set: see the README. Can be repeated. Default: sample "
        "photos.",
    ),
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Output folder. A run continues what is there.")]
RoundOption = Annotated[
    int,
    typer.Option("--round", min=0, max=10_000, help="The round to look at or to merge; reannotate makes the next one."),
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Take only the first N images.")]


@app.command()
def run(
    stage: Annotated[str, typer.Option("--stage", help=f"One of {', '.join(STAGES)}.")] = "annotate",
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH", help="More images, as --images; what * gives in a shell.")
    ] = None,
    images: ImagesOption = None,
    out: OutOption = Path("out"),
    config: ConfigOption = None,
    settings: SetOption = None,
    limit: LimitOption = None,
    round: RoundOption = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start afresh: removes what a run left in --out.")
    ] = False,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Check all that can be checked without weights, and run nothing.")
    ] = False,
) -> None:
    """Run a stage, and first whatever it needs and is missing."""
    if dry:
        from pipelines.checking import dry_run  # spaCy and PyTorch take seconds to import

        given = [*(images or ()), *(paths or ())]
        dry_run(_pipeline(config, settings, given, limit, Output(out.absolute())), console)
        return
    _run(stage, [*(images or ()), *(paths or ())], out, config, settings, limit, round, overwrite)


@app.command()
def refine(
    rounds: Annotated[
        int | None, typer.Option("--rounds", min=1, max=1000, help="How many. Default: those in the configuration.")
    ] = None,
    images: ImagesOption = None,
    out: OutOption = Path("out"),
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Round after round: train, annotate again, merge, and judge whether it is better."""
    _run("refine", images or [], out, config, settings, rounds=rounds)


def _run(
    stage: str,
    images: list[str],
    out: Path,
    config: Path | None,
    settings: list[str] | None,
    limit: int | None = None,
    round: int = 0,
    overwrite: bool = False,
    rounds: int | None = None,
) -> None:
    """A stage with all that a person sees of it."""
    if stage not in STAGES:
        raise ConfigError(f"--stage {stage}: no such stage; there are {', '.join(STAGES)}")
    if stage not in Stages.RUNNABLE:
        raise ConfigError(f"--stage {stage} is not there yet; this version runs {', '.join(Stages.RUNNABLE)}")
    output = Output(out.absolute())
    pipeline = _pipeline(config, settings, images, limit, output)
    for stop in STOPS:
        if signal.getsignal(stop) != signal.SIG_IGN:  # as `nohup` has it
            signal.signal(stop, signal.default_int_handler)
    try:
        summary = Stages(pipeline, output, console, round, rounds).run(stage, overwrite=overwrite)
    except (KeyboardInterrupt, Unread) as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # people press Ctrl-C twice
        words = shlex.join(word for word in sys.argv[1:] if word != "--overwrite")
        errors.print(Text(f"Stopped. What is done is safe; to go on: engine {words}"), soft_wrap=True)
        raise typer.Exit(UNREAD if isinstance(error, Unread) else INTERRUPTED) from None
    if stage == "train":
        _report_models(summary)
        return
    if stage in ("refine", "all"):
        _report_rounds(summary, out)
        return
    if stage == "merge":
        _report_merge(summary)
        return
    _report(summary, stage, out, round + (stage == "reannotate"))
    share, allowed = _quarantined(summary) / max(summary["items"], 1), pipeline.config.run.max_quarantined
    if share > allowed:
        message = f"{share:.1%} of the images are quarantined, more than run.max_quarantined, {allowed:.1%}."
        errors.print(message, style="yellow", highlight=False)
        raise typer.Exit(QUARANTINED)


@app.command("specialists")
def specialists_() -> None:
    """List the installed specialists: what they do, their licences and parameters."""
    _describe("specialists")


@app.command("filters")
def filters_() -> None:
    """List the installed filters: what they do and their thresholds."""
    _describe("filters")


@app.command("config")
def config_(
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Pipeline YAML, or the name of one that comes along. Default: embedded."),
    ] = None,
    settings: SetOption = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of configurations instead.")] = False,
) -> None:
    """Print the resolved configuration as YAML: a file to edit and to give to --config."""
    if schema:
        console.out(json.dumps(_schema(), indent=2))
        return
    resolved = load_config(shipped(config) if config else EMBEDDED, settings or ())
    build_pipeline(resolved)
    console.out(yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False, allow_unicode=True), end="")


@app.command()
def show(
    out: Annotated[Path, typer.Argument(help="Output folder of a run.")],
    image: Annotated[str, typer.Argument(help="An image: its id, its path, or the end of its path.")],
    save: Annotated[Path | None, typer.Option("--save", help="Draw boxes, quads and masks into this picture.")] = None,
    fallen: Annotated[bool, typer.Option("--fallen", help="Draw what fell, too, in grey.")] = False,
    round: RoundOption = 0,
) -> None:
    """Show one image: every annotation, who made it, what stands, what fell and why."""
    from engine.annotate import open_image
    from engine.draw import draw
    from engine.show import find_record, print_record

    shown = find_record(open_dataset(out, round), image)
    print_record(shown, console)
    if save:
        there = config_there(Output(out))
        picture = open_image(shown.record.item, there.ingest if there else Ingest(), Output(out).downloads)
        try:
            draw(picture, shown.record, fallen=fallen).save(save)
        except (ValueError, OSError) as error:
            raise ConfigError(f"--save {save}: {error}") from error
        console.print(Text(f"Drawn into {save}"), soft_wrap=True)


@app.command()
def diff(
    out: Annotated[Path, typer.Argument(help="Output folder of a run.")],
    before: Annotated[int, typer.Argument(min=0, help="A round.")],
    after: Annotated[int, typer.Argument(min=0, help="A later round.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, with every class.")] = False,
) -> None:
    """Show what a round changed: what was added, changed and dropped, by kind, source and reason."""
    from engine.diff import diff as difference
    from engine.diff import nested, print_diff

    if before >= after:
        raise ConfigError(f"diff goes from an earlier round to a later one, not from {before} to {after}")
    rounds = [open_dataset(out, number) for number in (before, after)]
    for number in (before, after):
        if not is_decided(Output(out), number):
            raise OutputError(f"{out} has no whole round {number} yet: go on with what makes it, then compare")
        if number and not Output(out).round(number).manifest.exists():
            told = f"! Round {number} is not merged and judged yet (engine run --stage merge --round {number})"
            Console(stderr=True).print(told, style="yellow", highlight=False, soft_wrap=True)
    found = difference(*rounds)
    if as_json:
        console.out(json.dumps(nested(found), indent=2, ensure_ascii=False))
    else:
        print_diff(found, console)


@app.command()
def audit(
    out: Annotated[Path, typer.Argument(help="Output folder of a run.")],
    to: Annotated[Path, typer.Option("--to", help="New folder for the images and the files to label them in.")],
    count: Annotated[int | None, typer.Option("--images", min=1, help="How many. Default: gate.audit.")] = None,
) -> None:
    """Draw random images to be labelled by people: rounds are judged by them."""
    from engine.audit import draw, export

    dataset = open_dataset(out)
    there = config_there(Output(out)) or Config()
    items = draw(dataset, count or there.gate.audit, there.gate.seed)
    export(dataset, items, there, to)
    console.print(Text(f"{len(items)} images in {to}; README.txt there says how to go on"), soft_wrap=True)


@app.command()
def new(
    kind: Annotated[str, typer.Argument(help="specialist or filter.")],
    name: Annotated[str, typer.Argument(help="What it is called in pipelines: a word such as bright_spot.")],
    to: Annotated[Path | None, typer.Option("--to", help="New folder for the package. Default: ./NAME.")] = None,
) -> None:
    """Write a package with a small specialist or filter of your own that works, and its test."""
    from engine.new import write

    written, commands = write(kind, name, to)
    for line in ("Written:", *(f"  {path}" for path in written), "To go on:", *(f"  {line}" for line in commands)):
        console.print(Text(line), soft_wrap=True)


@app.command()
def report(
    out: Annotated[Path, typer.Argument(help="Output folder of a run.")] = Path("out"),
    pictures: Annotated[int | None, typer.Option("--pictures", min=0, help="How many pictures it shows.")] = None,
    round: RoundOption = 0,
) -> None:
    """Write one HTML page about a dataset: pictures with what was found, the texts, what fell and why."""
    open_dataset(out, round)  # or nothing was run there, and a run begins with `engine run`
    output = Output(out.absolute())
    settings = [] if pictures is None else [f"report.images={pictures}"]
    Stages(_pipeline(None, settings, [], None, output), output, console, round).run("report")


def main() -> None:
    """The `engine` command: errors that the engine can explain end in a sentence, not in a traceback."""
    try:
        app()
    except (EngineError, OSError) as error:
        with suppress(OSError):  # there may be no room for this either
            errors.print(Text.assemble(("Error: ", "bold red"), str(error)), soft_wrap=True)
        sys.exit(error.exit_code if isinstance(error, EngineError) else FAILED)
    except Exception:  # a fault of ours, or of a component: with all that is known, and the code that says failed
        errors.print_exception()
        sys.exit(FAILED)


def _pipeline(
    config: Path | None, settings: list[str] | None, images: list[str], limit: int | None, output: Output
) -> Pipeline:
    overrides: dict[str, Any] = {}
    if images:
        overrides["ingest.images"] = [*images]
    if limit:
        overrides["ingest.limit"] = limit
    there = output.config if os.path.exists(output.config) else EMBEDDED
    path = shipped(config) if config else there
    resolved = load_config(path, settings or (), overrides)
    if not resolved.ingest.images:
        ingest = resolved.ingest.model_copy(update={"images": sample_photos()})
        resolved = resolved.model_copy(update={"ingest": ingest})
    return build_pipeline(resolved)


def _quarantined(summary: dict[str, Any]) -> int:
    if "errors" in summary:
        return sum(summary["errors"].values())
    return sum(count for kinds in summary["quarantined"].values() for count in kinds.values())


def _report(summary: dict[str, Any], stage: str, out: Path, round: int) -> None:
    """The short table at the end: what was found, what fell and why, and where it is."""
    if stage != "ingest":
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name, justify in (("source", "left"), ("kind", "left"), ("made", "right"), ("standing", "right")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        for source, kinds in summary["annotations"].items():
            for kind, count in kinds.items():
                table.add_row(Text(source), kind, str(count["made"]), str(count["standing"]))
        console.print(table)
        for by, reasons in summary["fallen"].items():
            falls = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
            console.print(Text(f"turned down by {by}: {falls}"))
    quarantined = _quarantined(summary)
    console.print(f"{summary['items']} images, {quarantined} quarantined", highlight=False)
    where = out / "images" if stage == "ingest" else out / f"round-{round}"
    command = f"engine show {shlex.quote(str(out))} NAME --save picture.png" + (f" --round {round}" if round else "")
    console.print(Text(f"In {where}. One image: {command}"), soft_wrap=True)


def _report_models(summary: dict[str, Any]) -> None:
    for model, made_by in zip(summary["models"], summary["made_by"], strict=True):
        loss = made_by["held_out_loss"]
        judged = "no image was held out" if loss is None else f"loss {loss:.3f} on held-out images"
        console.print(Text(f"{model}: step {made_by['step']}, {judged}"), soft_wrap=True)
    command = f"python -m florence2 --model {shlex.quote(summary['models'][0])} --task OD IMAGE"
    console.print(Text(f"Ask it: {command}"), soft_wrap=True)


def _report_rounds(summary: dict[str, Any], out: Path) -> None:
    """What is to be used now, and how to see what changed."""
    last, where = summary["rounds"][-1], shlex.quote(str(out))
    changed = f"engine diff {where} 0 {last['round']}"
    console.print(Text(f"The round to use: {accepted(Output(out))}. What the rounds changed: {changed}"))


def _report_merge(summary: dict[str, Any]) -> None:
    for action, reasons in summary["decisions"].items():
        console.print(Text(f"{action}: {', '.join(f'{reason} {count}' for reason, count in reasons.items())}"))
    print_verdict(summary, console)


def _describe(group: Group) -> None:
    for name in installed(group):
        component = load(group, name, where=group)
        models: dict[str, str] = getattr(component, "models", {})
        fields = parameters_of(component).model_fields
        stated = getattr(component, "licence", None)
        licence = stated if isinstance(stated, str) else models.get(fields["model"].default) if models else None
        summary = (component.__doc__ or "").strip().splitlines()[0]
        console.print(
            Text.assemble((name, "bold"), f" ({licence})" if licence else "", f"\n  {summary}"), soft_wrap=True
        )
        for model, its_licence in models.items():
            console.print(Text.assemble(("    e.g. ", "dim"), f"{model}  {its_licence}"), soft_wrap=True)
        _describe_fields(fields, "    ")


def _describe_fields(fields: dict[str, Any], indent: str) -> None:
    for parameter, field in fields.items():
        about = f"  {field.description}" if field.description else ""
        default = "" if field.is_required() else f" = {field.get_default(call_default_factory=True)!r}"
        console.print(Text(f"{indent}{parameter}{default}{about}"), soft_wrap=True)
        if section := section_of(field.annotation):
            _describe_fields(section.model_fields, f"{indent}{parameter}.")


def _schema() -> dict[str, Any]:
    """The JSON schema of a configuration, with the parameters of every installed component, and of training."""
    schema = Config.model_json_schema()
    for group in ("specialists", "filters"):
        variants = []
        for name in installed(group):
            parameters = parameters_of(load(group, name, where=group)).model_json_schema()
            parameters["properties"] = {"use": {"const": name}, **parameters.get("properties", {})}
            variants.append(parameters | {"title": name})
        schema["properties"][group]["additionalProperties"] = {"anyOf": [*variants, {"type": "null"}]}
    from pipelines.training.settings import add_schema  # PyTorch takes seconds to import

    add_schema(schema["$defs"])
    return schema

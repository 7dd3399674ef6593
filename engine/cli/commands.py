"""The commands, and how they end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from engine import process
from engine.cli import FAILED, begin, exchange, look, make, plan, status, verify
from engine.cli import run as running
from engine.cli.terminal import UNREAD, Unread, errors
from engine.errors import EngineError, unwritable


class Commands(TyperGroup):
    def invoke(self, context: Any) -> Any:
        try:
            begin()
            return super().invoke(context)
        except KeyboardInterrupt:  # where a command has nothing to say on how to go on
            errors.print("Stopped.")
            raise typer.Exit(process.STOPPED) from None


app = typer.Typer(
    cls=Commands,
    help="An open data engine after Florence-2's: photos in, an annotated vision-language dataset out.",
    epilog="Exit codes: 0 done, 1 done but images could not be read, 2 wrong usage or configuration, 3 failed, "
    "130 interrupted, 141 nobody reads the output any more.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Run": {"run": running.run, "refine": running.refine, "retry-failed": running.retry_failed},
    "Operate": {"plan": plan.plan, "status": status.status, "verify": verify.verify},
    "Look": {"show": look.show, "diff": look.diff, "stats": look.stats, "report": look.report},
    "Exchange": {
        "export": exchange.export,
        "import": exchange.import_,
        "evaluate": exchange.evaluate,
        "decontaminate": exchange.decontaminate,
    },
    "Make": {
        "specialists": make.specialists,
        "filters": make.filters,
        "config": make.config_,
        "new": make.new,
        "audit": make.audit,
    },
}
for panel, commands in COMMANDS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=panel)(command)


def run() -> None:
    """The command that was given: errors that the engine can explain end in a sentence, not in a traceback."""
    try:
        app()
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # typer prints help and wrong usage itself, and says 1 to it
            raise Unread(UNREAD) from None
        raise
    except (EngineError, OSError, MemoryError) as error:
        with suppress(OSError):  # there may be no room for this either
            errors.print(Text.assemble(("Error: ", "bold red"), _said(error)), soft_wrap=True)
        sys.exit(error.exit_code if isinstance(error, EngineError) else FAILED)
    except Exception:  # a fault of ours, or of a component: with all that is known, and the code that says failed
        errors.print_exception()
        sys.exit(FAILED)


def _said(error: EngineError | OSError | MemoryError) -> str:
    if isinstance(error, MemoryError):
        return "there is not enough memory. What is done is safe; make room and run the same again"
    explained = unwritable(error, _place(error)) if isinstance(error, OSError) else ""
    return explained or str(error)


def _place(error: OSError) -> str:
    """The folder of what can't be written, as far as it is known."""
    named = isinstance(error.filename, str | bytes | os.PathLike)
    return os.path.dirname(os.path.abspath(os.fsdecode(error.filename))) if named else f"its output ({error.strerror})"

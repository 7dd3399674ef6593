"""Where the command line speaks, and the codes it ends with."""

from __future__ import annotations

import os
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from engine.untrusted import plain

QUARANTINED, UNREAD = 1, 141  # the last as shells have it for SIGPIPE


class Unread(SystemExit):
    """Nobody reads the output any more, as in `engine run | head`."""


class Terminal(Console):
    """Whatever is printed may come from files and models that nobody vouches for: none of it reaches the terminal as a
    command to it. Rich's own way out is code 1, which has another meaning here."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())
        raise Unread(UNREAD)


console = Terminal()
errors = Terminal(stderr=True)

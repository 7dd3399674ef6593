"""A process to be killed: `python -m asking URL CACHE FIRST LAST` asks so many questions, one by one; `python -m asking
CACHE NAME` keeps answers as fast as it can, and says under which keys."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

from specialists.chat.ledger import Ledger
from specialists.chat.question import Question
from specialists.chat.server import Server
from specialists.chat.settings import ServerSettings


def ask(url: str, cache: str, first: int, last: int) -> None:
    server = Server(ServerSettings(url=url, cache=cache, in_flight=1), "model", max_tokens=10, scope="both")
    server.setup()
    server.ask([Question(f"question {n}") for n in range(first, last)])


def keep(cache: str, name: str) -> None:
    ledger = Ledger(Path(cache), "both")
    for n in count():
        ledger.settle(ledger.reserve(10, 60), (1, 1), f"{name} {n}".encode(), "answer")
        print(name, n, flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case [url, cache, first, last]:
            ask(url, cache, int(first), int(last))
        case [cache, name]:
            keep(cache, name)

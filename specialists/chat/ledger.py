"""What answers were paid for: each is kept, so that it is paid once, and what all of them cost is counted.

One SQLite file for all processes of a machine; its write-ahead log is no good on network drives. Whatever ends a
process, an answer is there together with its price, or not at all.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from tenacity import retry, retry_if_exception, stop_after_delay, wait_random

from engine.errors import RunError

FILE = "answers.sqlite3"
APPLICATION, VERSION = 0x464C4443, 1  # nobody else's files have these in their heads
PATIENCE = 60.0  # seconds that one process may keep the file from another
LATE = 30.0  # seconds beyond a request's time limit after which its process must have ended
PAUSE = 0.05

TABLES = (
    "CREATE TABLE answers (key BLOB PRIMARY KEY, text TEXT NOT NULL)",
    "CREATE TABLE spent (scope TEXT PRIMARY KEY, requests INTEGER NOT NULL, input INTEGER NOT NULL, "
    "output INTEGER NOT NULL, usd REAL NOT NULL)",
    "CREATE TABLE flights (id INTEGER PRIMARY KEY AUTOINCREMENT, scope TEXT NOT NULL, input INTEGER NOT NULL, "
    "output INTEGER NOT NULL, usd REAL NOT NULL, until REAL NOT NULL)",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {VERSION}",
)
SUMS = "count(*), coalesce(sum(input), 0), coalesce(sum(output), 0), coalesce(sum(usd), 0.0)"
COUNT = """INSERT INTO spent (scope, requests, input, output, usd) VALUES (?, ?, ?, ?, ?) ON CONFLICT (scope) DO UPDATE
SET requests = requests + excluded.requests, input = input + excluded.input, output = output + excluded.output,
usd = usd + excluded.usd"""

Flight: TypeAlias = int


@dataclass(frozen=True)
class Spent:
    """Requests, the tokens that went in and came out with them, and what they cost."""

    requests: int = 0
    input: int = 0
    output: int = 0
    usd: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        requests, input, output = self.requests + other.requests, self.input + other.input, self.output + other.output
        return Spent(requests, input, output, self.usd + other.usd)

    @property
    def tokens(self) -> int:
        return self.input + self.output


@dataclass(frozen=True)
class Terms:
    """What tokens cost, in dollars a million, and how many tokens and dollars may be spent."""

    usd_input: float = 0.0
    usd_output: float = 0.0
    tokens: int | None = None
    usd: float | None = None

    def priced(self, input: int, output: int) -> Spent:
        return Spent(1, input, output, (input * self.usd_input + output * self.usd_output) / 1e6)

    def allow(self, spent: Spent) -> bool:
        return (self.tokens is None or spent.tokens <= self.tokens) and (self.usd is None or spent.usd <= self.usd)

    def refusal(self, scope: str, spent: Spent, asked: Spent) -> RunError:
        if self.tokens is not None and (spent + asked).tokens > self.tokens:
            budget, raised = f"{self.tokens:,} tokens", "budget_tokens"
            done, next_ = f"{spent.tokens:,}", f"{asked.tokens:,}"
        else:
            budget, raised = f"${self.usd:,.6g}", "budget_usd"
            done, next_ = f"${spent.usd:,.6g}", f"${asked.usd:,.6g}"
        return RunError(
            f"the budget{f' of {scope}' if scope else ''} is reached: {done} of {budget} spent, and the next request "
            f"may take {next_}. What is done is safe; raise {raised} and run the same again to go on."
        )


@dataclass
class Ledger:
    """The file in `folder`, for many threads. RunError says what is wrong with it.

    Money is counted by `scope`, over all processes and runs. A request is in flight from before it is sent until its
    price is known, at what it may take: all the output that it may have, and the input that requests took so far on
    average. So a budget is passed by no more than what the inputs in flight have above that average (which is 0 until
    the first is paid), and what a server counts and does not tell. What was in flight in a process that was killed
    counts as spent, at that expectation.
    """

    folder: Path
    scope: str = ""
    terms: Terms = Terms()
    _db: sqlite3.Connection = field(init=False, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        with self._faults():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._db = _opened(self.folder / FILE)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def answer(self, key: bytes) -> str | None:
        """The text that was kept under `key`."""
        with self._lock, self._faults():
            found = self._db.execute("SELECT text FROM answers WHERE key = ?", (key,)).fetchone()
        return None if found is None else str(found[0])

    def spent(self) -> Spent:
        with self._lock, self._faults():
            return self._spent()

    def reserve(self, output: int, seconds: float) -> Flight:
        """Takes off with a request that may have so many tokens of output and so much time.

        Waits while it depends on those in flight whether the budget allows that. Raises RunError if it does not.
        """
        while (flight := self._reserved(output, seconds)) is None:
            time.sleep(PAUSE)
        return flight

    def settle(
        self, flight: Flight, usage: tuple[int, int] | None = None, key: bytes | None = None, text: str | None = None
    ) -> None:
        """Counts the tokens, in and out, of a request that has ended: the expected ones, if nobody knows them. Keeps a
        `text` under its `key`."""
        with self._transaction() as db:
            expected = db.execute("SELECT input, output, usd FROM flights WHERE id = ?", (flight,)).fetchone()
            if expected is not None:  # else it was late, and is counted
                self._count(Spent(1, *expected) if usage is None else self.terms.priced(*usage))
                db.execute("DELETE FROM flights WHERE id = ?", (flight,))
            if key is not None:
                db.execute("INSERT OR REPLACE INTO answers (key, text) VALUES (?, ?)", (key, text))

    def cancel(self, flight: Flight) -> None:
        """Of a request for which the server takes no money."""
        with self._transaction() as db:
            db.execute("DELETE FROM flights WHERE id = ?", (flight,))

    def _reserved(self, output: int, seconds: float) -> Flight | None:
        with self._transaction() as db:
            now = time.time()
            _land(db, now)
            spent = self._spent()
            asked = self.terms.priced(spent.input // max(spent.requests, 1), output)
            if not self.terms.allow(spent + asked):
                raise self.terms.refusal(self.scope, spent, asked)
            flying = Spent(*db.execute(f"SELECT {SUMS} FROM flights WHERE scope = ?", (self.scope,)).fetchone())
            if not self.terms.allow(spent + flying + asked):
                return None
            added = db.execute(
                "INSERT INTO flights (scope, input, output, usd, until) VALUES (?, ?, ?, ?, ?)",
                (self.scope, asked.input, asked.output, asked.usd, now + seconds + LATE),
            )
            return added.lastrowid

    def _spent(self) -> Spent:
        columns = "SELECT requests, input, output, usd FROM spent WHERE scope = ?"
        return Spent(*(self._db.execute(columns, (self.scope,)).fetchone() or ()))

    def _count(self, spent: Spent) -> None:
        self._db.execute(COUNT, (self.scope, spent.requests, spent.input, spent.output, spent.usd))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._faults():
            self._db.execute("BEGIN IMMEDIATE")
            with self._db:  # commits, or rolls back
                yield self._db

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            raise RunError(
                f"the answers that were paid for can't be kept in {self.folder}: {error}. Make room there, or name a "
                "folder on a drive of this machine as `cache`, and run the same again to go on."
            ) from error
        except sqlite3.DatabaseError as error:
            raise RunError(
                f"{self.folder / FILE} is broken, or not what answers are kept in: {error}. Remove it and those beside "
                "it whose names begin like that, which forgets what was paid for; or name another folder as `cache`."
            ) from error


def _opened(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # nobody else is to read answers
    db = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        _prepare(db)
    except BaseException:
        db.close()
        raise
    return db


def _is_locked(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


# SQLite does not wait for others before it switches to a write-ahead log.
@retry(retry=retry_if_exception(_is_locked), stop=stop_after_delay(PATIENCE), wait=wait_random(0, PAUSE), reraise=True)
def _prepare(db: sqlite3.Connection) -> None:
    if _has_tables(db) and not _is_ours(db):
        raise sqlite3.DatabaseError("it is another program's, or another version's")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("BEGIN IMMEDIATE")
    with db:
        if not _has_tables(db):
            for statement in TABLES:
                db.execute(statement)


def _has_tables(db: sqlite3.Connection) -> bool:
    return bool(db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def _is_ours(db: sqlite3.Connection) -> bool:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return bool((application, version) == (APPLICATION, VERSION))


def _land(db: sqlite3.Connection, now: float) -> None:
    """Counts as spent what is late."""
    for late in db.execute(f"SELECT scope, {SUMS} FROM flights WHERE until < ? GROUP BY scope", (now,)).fetchall():
        db.execute(COUNT, late)
    db.execute("DELETE FROM flights WHERE until < ?", (now,))

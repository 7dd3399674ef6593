"""A language model behind an OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pydantic import BaseModel
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from engine.errors import RunError
from specialists.chat.answers import parsed, words
from specialists.chat.ledger import Ledger, Terms
from specialists.chat.question import Question, Unanswered
from specialists.chat.request import Request
from specialists.chat.settings import ServerSettings
from specialists.chat.wire import Lost, Reply, Trouble, TurnedDown, Wire

LONGEST_WAIT = 60.0  # seconds, of back-off, and of what a server asks for on top
IN_A_ROW = 10  # questions turned down, after which it is not they that are at fault
SAFE = "What is done is safe; run the same again to go on."


@dataclass
class Server:
    """A Chat. `model` is what the server calls it; `max_tokens` are those of an answer; `scope` has the budget.

    A server that is busy, broken or not there is asked again, and ends the run with a RunError when `attempts` are used
    up; so does a key, model or URL that it turns down. An answer of no use is paid, and asked for again; after as many
    attempts the question is Unanswered. So is one that the server turns down though it has answered others; but not the
    first of all, nor the tenth in a row: then it would turn down all of them, and the run ends.
    """

    settings: ServerSettings
    model: str
    max_tokens: int = 512
    scope: str = ""
    _wire: Wire = field(init=False, repr=False, compare=False)
    _ledger: Ledger = field(init=False, repr=False, compare=False)
    _structured: bool = field(init=False, repr=False, compare=False)
    _unanswered: dict[bytes, str] = field(default_factory=dict, init=False, repr=False, compare=False)  # key -> why
    _may_turn_down: int = field(default=0, init=False, repr=False, compare=False)  # of the questions that come next

    def setup(self) -> None:
        """Reads the key and opens the ledger. What the server is like, the first question shows."""
        settings = self.settings
        self._wire = Wire(settings)
        self._ledger = Ledger(
            settings.folder,
            self.scope,
            Terms(
                settings.usd_per_million_input or 0.0,
                settings.usd_per_million_output or 0.0,
                settings.budget_tokens,
                settings.budget_usd,
            ),
        )
        self._structured = settings.structured != "none"

    def ask(self, questions: Sequence[Question]) -> list[str | BaseModel]:
        """As a Chat does, `in_flight` at a time. A RunError keeps what is not asked yet from being asked; beside one
        that is Unanswered, the others are answered, and kept."""
        ends: list[RunError] = []

        def answer(question: Question) -> str | BaseModel:
            if ends:
                raise ends[0]
            try:
                return self._answer(Request(self.settings, self.model, self.max_tokens, question))
            except RunError as error:
                ends.append(error)
                raise

        with ThreadPoolExecutor(self.settings.in_flight, thread_name_prefix="chat") as pool:
            answers = [pool.submit(answer, question) for question in questions]
        if ends:
            raise ends[0]
        return [answer.result() for answer in answers]

    def _answer(self, request: Request) -> str | BaseModel:
        try:
            answer = self._kept(request) or self._heard(request)
        except TurnedDown as error:
            raise self._verdict(error) from error
        self._may_turn_down = IN_A_ROW - 1
        return answer

    def _kept(self, request: Request) -> str | BaseModel | None:
        text = self._ledger.answer(request.key)
        try:
            return None if text is None else _read(Reply(text), request.question)
        except Unanswered:  # by what is asked for now
            return None

    def _heard(self, request: Request) -> str | BaseModel:
        """The first answer that is of use."""
        if (known := self._unanswered.get(request.key)) is not None:
            raise Unanswered(known)  # a batch that fails comes again, one by one: that is paid for once
        reason = ""
        for attempt in range(self.settings.attempts):
            try:
                return _read(self._reply(request, attempt), request.question)
            except Unanswered as error:
                self._may_turn_down = IN_A_ROW - 1
                reason = str(error)
        told = f"{self.model} has no usable answer, asked {self.settings.attempts} time(s): {reason}"
        self._unanswered[request.key] = told
        raise Unanswered(told)

    def _reply(self, request: Request, attempt: int) -> Reply:
        """Whatever the model says. What asks for JSON in a way that the server does not take is asked without that."""
        if request.question.schema is None or not self._structured:
            return self._sent(request, attempt, structured=False)
        try:
            return self._sent(request, attempt, structured=True)
        except TurnedDown:
            if self.settings.structured != "auto":
                raise
        reply = self._sent(request, attempt, structured=False)
        self._structured = False
        return reply

    def _sent(self, request: Request, attempt: int, *, structured: bool) -> Reply:
        patient = Retrying(
            stop=stop_after_attempt(self.settings.attempts),
            wait=self._wait,
            retry=retry_if_exception_type(Trouble),
            reraise=True,
        )
        try:
            return patient(self._once, request, attempt, structured)
        except Trouble as error:
            raise RunError(
                f"the server at {self.settings.url} does not answer: {error} (asked {self.settings.attempts} time(s)). "
                f"{SAFE}"
            ) from error

    def _once(self, request: Request, attempt: int, structured: bool) -> Reply:
        ledger = self._ledger
        flight = ledger.reserve(self.max_tokens, self.settings.timeout_seconds)
        try:
            reply = self._wire.post(request.body(attempt, structured=structured))
        except Lost:
            ledger.settle(flight)
            raise
        except Exception:
            ledger.cancel(flight)
            raise
        try:
            _read(reply, request.question)
        except Unanswered:
            ledger.settle(flight, reply.usage)
        else:
            ledger.settle(flight, reply.usage, request.key, reply.text)
        return reply

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked_for = error.wait if isinstance(error, Trouble) else 0
        seconds = self.settings.backoff_seconds
        backoff = wait_exponential(multiplier=seconds, max=LONGEST_WAIT) + wait_random(0, seconds)
        return backoff(state) + min(asked_for, LONGEST_WAIT)

    def _verdict(self, error: TurnedDown) -> RunError | Unanswered:
        """Whether it is the question, or all of them would be turned down."""
        if self._may_turn_down:
            self._may_turn_down -= 1
            return Unanswered(f"the server turns it down: {error}")
        return RunError(
            f"the server at {self.settings.url} turns down every question: {error}. Its model may be another than "
            f"{self.model!r}, or see no images, or none of image_side = {self.settings.image_side} pixels. {SAFE}"
        )


def _read(reply: Reply, question: Question) -> str | BaseModel:
    """An answer as it was asked for. Raises Unanswered."""
    if reply.fault:
        raise Unanswered(reply.fault)
    try:
        reply.text.encode()
    except UnicodeEncodeError:
        raise Unanswered("the answer is no valid Unicode") from None
    return words(reply.text) if question.schema is None else parsed(reply.text, question.schema)

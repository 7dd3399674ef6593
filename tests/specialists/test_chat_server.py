"""A real OpenAI-compatible server with a tiny model, one that fails in every way, and what is kept of what was paid."""

from __future__ import annotations

import base64
import io
import json
import logging
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from pydantic import BaseModel, ConfigDict, ValidationError
from web import Handler, Page, Web, page, serving

from engine.errors import ConfigError, RunError
from engine.validation import validated
from specialists.chat.ledger import FILE, LATE, Ledger, Spent, Terms
from specialists.chat.question import Question, Unanswered
from specialists.chat.request import data_url
from specialists.chat.schemas import strict_schema
from specialists.chat.server import IN_A_ROW, Server
from specialists.chat.settings import ServerSettings

PATH = "/v1/chat/completions"
KEY = "sk-secret/qxzw+456"
RED, BLUE = (np.full((40, 60, 3), colour, dtype=np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    count: int = 1


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    word: str
    things: list[Inner] = []


Make = Callable[..., Server]
GOOD = '{"word": "dog", "things": []}'
DOG = Answer(word="dog")
WORDS, JSON = Question("What is it?", system="You see."), Question("What is it?", schema=Answer)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A Server that is set up, and does not wait."""

    def made(at: Web | str, *, model: str = "tiny", max_tokens: int = 10, scope: str = "", **settings: Any) -> Server:
        url = at if isinstance(at, str) else at.url("/v1")
        chosen: dict[str, Any] = {"cache": str(tmp_path / "cache"), "backoff_seconds": 0, "in_flight": 1} | settings
        server = Server(ServerSettings(url=url, **chosen), model, max_tokens, scope)
        server.setup()
        return server

    return made


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as web:
        yield web


def said(content: str | None, input: int = 20, output: int = 10, finish: str = "stop", **message: Any) -> Page:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content} | message}
    usage = {"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output}
    return page(json.dumps({"choices": [choice], "usage": usage}).encode())


def fault(status: int, message: str = "no", **headers: str | int) -> Page:
    return page(json.dumps({"error": {"message": message, "type": "x"}}).encode(), status, **headers)


def plays(web: Web, *pages: Page) -> list[dict[str, Any]]:
    """The server answers with each page in turn, and goes on with the last; gives the bodies that it is asked with."""
    turns, bodies = chain(pages, repeat(pages[-1])), list[dict[str, Any]]()

    def turn(handler: Handler) -> None:
        bodies.append(json.loads(handler.body))
        next(turns)(handler)

    web.pages[PATH] = turn
    return bodies


def numbered(count: int) -> list[Question]:
    return [Question(f"question {n}") for n in range(count)]


# A real server


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """URL and model."""
    from tiny.chats import vision_chat
    from tiny.served import served

    folder = vision_chat(tmp_path_factory.mktemp("served") / "model")
    with served(folder) as url:
        yield url, str(folder)


def test_a_real_server_sees_and_answers(make: Make, real: tuple[str, str], tmp_path: Path) -> None:
    url, model = real
    asked = [Question("Describe it.", "You see.", image) for image in (None, RED, BLUE, BLUE[:1] // 2)]
    answers = make(url, model=model, max_tokens=60, in_flight=4).ask(asked)
    assert len({*map(str, answers)}) == 4, "what it sees changes what it says"
    assert all(answer and answer == str(answer).strip() for answer in answers)
    again = [make(url, model=model, max_tokens=60, cache=str(tmp_path / f"{n}")) for n in range(2)]
    assert [again[0].ask([asked[0]]), again[1].ask([asked[1]])] == [answers[:1], answers[1:2]]
    without, with_image = (server._ledger.spent() for server in again)
    assert with_image.input == without.input + 16, "the tokens of an image"
    assert 0 < without.output < 60


def test_a_real_server_of_a_model_that_knows_no_json(make: Make, real: tuple[str, str]) -> None:
    url, model = real
    server = make(url, model=model, max_tokens=60, attempts=2)
    with pytest.raises(Unanswered, match=r"no usable answer, asked 2 time\(s\): .*Answer"):
        server.ask([JSON])
    assert server._ledger.spent().requests == 2


def test_a_real_server_with_another_model(make: Make, real: tuple[str, str]) -> None:
    with pytest.raises(RunError, match=r"turns down every question: status 400: Server is pinned to .*model"):
        make(real[0], model="other").ask([WORDS])


# What is sent, and what is taken


def test_what_is_sent(make: Make, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", f" {KEY}\n")
    bodies = plays(web, said("a dog"), said(GOOD))
    server = make(web, key_from="MINE", seed=3, temperature=0.25, image_side=50)
    assert server.ask([Question("What?", "You see.", np.zeros((200, 60, 3), np.uint8))]) == ["a dog"]
    assert server.ask([JSON]) == [DOG]
    assert web.headers[0]["Authorization"] == f"Bearer {KEY}"
    first, second = bodies
    (system, user) = first.pop("messages")
    assert first == {"model": "tiny", "max_tokens": 10, "seed": 3, "temperature": 0.25}
    assert system == {"role": "system", "content": "You see."}
    shown, words = user["content"]
    assert words == {"type": "text", "text": "What?"}
    head, _, data = shown["image_url"]["url"].partition(",")
    assert (shown["type"], head) == ("image_url", "data:image/jpeg;base64")
    assert Pillow.open(io.BytesIO(base64.b64decode(data))).size == (15, 50)
    assert second["messages"] == [{"role": "user", "content": "What is it?"}]
    schema = {"name": "Answer", "strict": True, "schema": strict_schema(Answer)}
    assert second["response_format"] == {"type": "json_schema", "json_schema": schema}


def test_without_a_key_none_is_sent(make: Make, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    plays(web, said("a dog"))
    make(web).ask([WORDS])
    assert "Authorization" not in web.headers[0]


@pytest.mark.parametrize(
    ("size", "sent"),
    [((1, 1), (1, 1)), ((300, 1), (64, 1)), ((1, 300), (1, 64)), ((90, 60), (64, 43)), ((9, 64), (9, 64))],
)
def test_an_image_is_made_smaller_alone(size: tuple[int, int], sent: tuple[int, int]) -> None:
    left = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    left[:, : size[0] // 2] = 255, 0, 0
    picture = Pillow.open(io.BytesIO(base64.b64decode(data_url(left, 64).partition(",")[2])))
    assert (picture.format, picture.size) == ("JPEG", sent)
    if min(size) > 50:
        red = np.asarray(picture)[..., 0] > 128
        assert red[:, :28].all()
        assert not red[:, 36:].any()


def test_schemas_are_strict() -> None:
    schema = strict_schema(Answer)
    assert schema["required"] == ["word", "things"]
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Inner"] == {
        "additionalProperties": False,
        "properties": {"count": {"title": "Count", "type": "integer"}},
        "required": ["count"],
        "title": "Inner",
        "type": "object",
    }

    class Loose(BaseModel):
        inner: Inner

    with pytest.raises(ValueError, match='Loose must forbid extra keys: model_config extra="forbid"'):
        strict_schema(Loose)


@pytest.mark.parametrize("content", [GOOD, f" {GOOD}\n", f"```json\n{GOOD}\n```"])
def test_json_is_taken_as_it_was_asked_for(make: Make, web: Web, content: str) -> None:
    plays(web, said(content))
    assert make(web).ask([JSON]) == [DOG]


NOT_USABLE = [
    said(""),
    said(" \n"),
    said(None),
    said(None, tool_calls=[]),
    said("a dog", finish="length"),
    said("a dog", finish="content_filter"),
    said("a dog", refusal="I can't help with that."),
    said("\ud800"),
]
NO_FIT = [
    said("a dog"),
    said(f"It is {GOOD}"),
    said('{"word": "dog", "things": [], "more": 1}'),
    said('{"word": "dog", "things": [{"count": "1"}]}'),
    said('{"word": "dog", "things": [{"count": 1, "more": 2}]}'),
    said('{"things": []}'),
    said(GOOD[:-1]),
    said('{"word": "\\ud800", "things": []}'),
    said("[" * 100_000),
]


@pytest.mark.parametrize(
    ("question", "bad"), [*((WORDS, bad) for bad in NOT_USABLE), *((JSON, bad) for bad in NOT_USABLE + NO_FIT)]
)
def test_what_is_no_answer_is_asked_again(make: Make, web: Web, question: Question, bad: Page) -> None:
    bodies = plays(web, bad, said(GOOD))
    server = make(web)
    assert server.ask([question]) == [GOOD if question is WORDS else DOG]
    first, second = bodies
    assert (first["seed"], second["seed"]) == (0, 1)
    assert (first["temperature"], second["temperature"]) == (0, 0.7), "else it would say the same again"
    assert ("JSON schema" in second["messages"][-1]["content"]) == (question is JSON)
    assert server._ledger.spent() == Spent(2, 40, 20), "both are paid"
    assert server.ask([question]) == [GOOD if question is WORDS else DOG]
    assert len(bodies) == 2, "the good one is kept, though it came to the second attempt"


def test_what_stays_no_answer_is_unanswered_and_others_of_its_batch_are_kept(make: Make, web: Web) -> None:
    plays(web, said("a dog"), *[said("no dog")] * 3, said("a cat"))
    server = make(web, attempts=3)
    with pytest.raises(Unanswered, match=r"tiny has no usable answer, asked 3 time\(s\): expected JSON .*Answer"):
        server.ask([WORDS, JSON, Question("And now?")])
    assert web.asked[PATH] == 5
    assert server.ask([WORDS, Question("And now?")]) == ["a dog", "a cat"]
    assert web.asked[PATH] == 5


def test_a_refusal_is_told(make: Make, web: Web) -> None:
    plays(web, said(None, refusal="I can't\x1b[2J help\nwith that."))
    with pytest.raises(Unanswered, match=r"asked 1 time\(s\): the model refuses: I can't.\[2J help with that\.$"):
        make(web, attempts=1).ask([WORDS])


# A server that fails


def drip(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.gone.wait(0.05):
        handler.wfile.write(b" ")


FAILS = {
    "429": fault(429),
    "429 later": fault(429, Retry_After=0),
    "429 by a date": fault(429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"),
    "429 by nonsense": fault(429, Retry_After="soon"),
    "408": fault(408),
    "500": page(b"Internal Server Error", 500),
    "503": fault(503),
    "slow": Handler.silence,
    "dripping": drip,
    "cut off": page(b'{"choices": [', Content_Length=1000),
    "reset": Handler.reset,
    "no HTTP": lambda handler: handler.wfile.write(b"\x00\x01\x02\r\n\r\n"),
    "no JSON": page(b"<html>"),
    "no Unicode": page(b"\xff"),
    "too deep": page(b"[" * 100_000),
    "empty": page(b""),
    "no envelope": page(b"[]"),
    "no choices": page(b'{"choices": []}'),
    "no message": page(b'{"choices": [{"message": null}]}'),
    "an error with 200": page(b'{"error": {"message": "overloaded"}}'),
}


@pytest.mark.parametrize("how", FAILS)
def test_what_may_be_gone_in_a_moment_is_asked_again(make: Make, web: Web, how: str) -> None:
    plays(web, FAILS[how], said("a dog"))
    slow = {"timeout_seconds": 0.4} if how in ("slow", "dripping") else {}
    assert make(web, attempts=2, **slow).ask([WORDS]) == ["a dog"]


@pytest.mark.parametrize("how", ["429", "500", "slow", "cut off", "no JSON", "an error with 200"])
def test_what_stays_ends_the_run(make: Make, web: Web, how: str) -> None:
    plays(web, FAILS[how])
    server = make(web, attempts=2, **({"timeout_seconds": 0.4} if how == "slow" else {}))
    lost = {"slow": "timeout_seconds", "cut off": "broke off", "no JSON": "no JSON", "an error with 200": "overloaded"}
    what = lost.get(how, how)
    says = rf"the server at http://127.* does not answer: .*{what}.* \(asked 2 time\(s\)\)\. What is done is safe"
    with pytest.raises(RunError, match=says):
        server.ask([WORDS])
    assert web.asked[PATH] == 2
    assert server._ledger.spent().output == (20 if how in lost else 0), "what may be paid counts as if it were"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://no.such.host.invalid/v1"])
def test_no_server_ends_the_run(make: Make, url: str) -> None:
    with pytest.raises(RunError, match=rf"the server at {url} does not answer: no connection: .* \(asked 2"):
        make(url, attempts=2).ask([WORDS])


def test_a_server_can_ask_for_time(make: Make, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second on top of the back-off; never an hour."""
    plays(web, fault(429, Retry_After=1), said("a dog"))
    start = time.monotonic()
    make(web, attempts=2).ask([WORDS])
    assert time.monotonic() - start >= 1
    monkeypatch.setattr("specialists.chat.server.LONGEST_WAIT", 0.0)
    plays(web, fault(429, Retry_After=3600), said("a dog"))
    assert make(web, attempts=2).ask([Question("Again?")]) == ["a dog"]


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405, 410])
def test_what_no_second_attempt_cures_ends_the_run(make: Make, web: Web, status: int) -> None:
    plays(web, fault(status, f"no\x1b[31m\nway {'x' * 1000}"))
    with pytest.raises(RunError) as caught:
        make(web).ask(numbered(5))
    says = str(caught.value)
    assert f"{web.url('/v1')} turns requests down: status {status}: no␛[31m way xxx" in says
    assert len(says) < 700
    assert says.isprintable()
    assert web.asked[PATH] == 1


def test_structured_output_that_is_turned_down_is_done_without(make: Make, web: Web) -> None:
    def picky(handler: Handler) -> None:
        without = b"response_format" not in handler.body
        (said(GOOD) if without and b"JSON schema" in handler.body else fault(400, "response_format?"))(handler)

    web.pages[PATH] = picky
    server = make(web)
    assert server.ask([JSON]) == [DOG]
    assert server.ask([Question("And this?", schema=Answer)]) == [DOG]
    assert web.asked[PATH] == 3, "it is turned down once"
    assert make(web, structured="none").ask([Question("Third?", schema=Answer)]) == [DOG]
    assert web.asked[PATH] == 4
    with pytest.raises(RunError, match=r"turns down every question: status 400: response_format\?"):
        make(web, structured="json_schema").ask([Question("Fourth?", schema=Answer)])


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_question_that_is_turned_down_is_unanswered_where_others_are_not(make: Make, web: Web, status: int) -> None:
    plays(web, said("a dog"), fault(status, "the image is too small"), said("a cat"))
    server = make(web)
    server.ask([WORDS])
    with pytest.raises(Unanswered, match=f"the server turns it down: status {status}: the image is too small"):
        server.ask(numbered(1))
    assert server.ask(numbered(1)) == ["a cat"]


def test_a_server_that_turns_down_all_questions_ends_the_run(make: Make, web: Web) -> None:
    turned_down = fault(400, "no images")
    plays(web, turned_down)
    with pytest.raises(RunError, match=r"turns down every question: status 400: no images\. Its model"):
        make(web).ask([WORDS])
    plays(web, said("a dog"), turned_down)
    server = make(web)
    server.ask([WORDS])
    for question in numbered(IN_A_ROW - 1):
        with pytest.raises(Unanswered):
            server.ask([question])
    with pytest.raises(RunError, match="turns down every question"):
        server.ask(numbered(1))
    assert server.ask([WORDS]) == ["a dog"], "what is kept needs no server, and shows that it was of use"
    with pytest.raises(Unanswered):
        server.ask(numbered(1))


# The key


@pytest.mark.parametrize("status", [200, 302, 400, 401, 500])
def test_the_key_stands_nowhere(
    make: Make,
    web: Web,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    echo = f"no such key: {KEY}, {KEY.replace('/', '%2F').replace('+', '%2B')}, Bearer {KEY}"
    plays(web, said(echo) if status == 200 else fault(status, echo, X_Echo=KEY))
    server = make(web, attempts=1)
    with pytest.raises((RunError, Unanswered)) as caught:
        server.ask([WORDS])
    assert web.headers[0]["Authorization"] == f"Bearer {KEY}"
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    told = "".join(traceback.format_exception(caught.value)) + repr(server) + repr(vars(server)) + caplog.text
    before = pickle.dumps(Server(server.settings, "tiny")).decode(errors="replace")
    dumped = server.settings.model_dump_json() + repr(server.settings)
    for text in (told, before, dumped, written.decode(errors="replace")):
        assert "qxzw" not in text
    if status != 200:
        assert str(caught.value).count("[key]") == 3


def test_a_key_that_no_header_holds_is_not_shown(make: Make, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret\nX: y")
    with pytest.raises(RunError, match="the environment variable OPENAI_API_KEY has characters") as caught:
        make(web)
    assert "secret" not in str(caught.value)


# Settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "https://me:sk-qxzw@host/v1"},
        {"url": "https://sk-qxzw@host/v1"},
        {"url": "https://host/v1?key=sk-qxzw"},
        {"url": "https://host/v1#sk-qxzw"},
        {"url": "https://host/v1", "key_from": "sk-qxzw"},
    ],
)
def test_settings_that_may_hold_a_secret_are_refused_without_showing_it(wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="environment variable") as caught:
        validated(ServerSettings, wrong, where="config")
    assert "qxzw" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"url": "ftp://host/v1"},
        {"url": "host:8000/v1"},
        {"url": "http:///v1"},
        {"url": "http://host:99999/v1"},
        {"url": "http://host/v1\n"},
        {"url": "http://host/v1/chat/completions"},
        {"url": "http://host/v1", "budget_usd": 1.0},
        {"url": "http://host/v1", "budget_usd": 1.0, "usd_per_million_input": 1.0},
        {"url": "http://host/v1", "budget_tokens": 0},
        {"url": "http://host/v1", "other": 1},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ServerSettings(**wrong)


def test_what_changes_no_answer_is_no_part_of_the_digest() -> None:
    settings = ServerSettings(url="http://host/v1/", budget_tokens=5, cache="c", key_from="MINE", in_flight=2)
    assert settings.model_dump() == {
        "url": "http://host/v1",
        "structured": "auto",
        "image_side": 1024,
        "temperature": 0,
        "seed": 0,
    }


def test_where_answers_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    url = "http://host/v1"
    assert ServerSettings(url=url).folder == tmp_path / ".cache" / "florence-engine"
    assert ServerSettings(url=url, cache="~/mine").folder == tmp_path / "mine"
    assert ServerSettings(url=url, cache="mine").folder == tmp_path / "mine"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert ServerSettings(url=url).folder == tmp_path / "xdg" / "florence-engine"


# What is paid, and kept


def test_what_was_asked_before_is_not_asked_again(make: Make, web: Web) -> None:
    plays(web, said("a dog"))
    shown = Question("What is it?", image=RED)
    make(web, scope="a").ask([WORDS, shown])
    other = make(web, scope="b", timeout_seconds=9, in_flight=3)
    assert other.ask([shown, WORDS]) == ["a dog"] * 2
    assert web.asked[PATH] == 2
    assert other._ledger.spent() == Spent()


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "other"},
        {"max_tokens": 11},
        {"seed": 1},
        {"temperature": 0.5},
        {"image_side": 30},
        {"url": "/v2"},
        {"question": Question("What is this?", image=RED)},
        {"question": Question("What is it?", image=BLUE)},
        {"question": Question("What is it?", "You see.", RED)},
    ],
)
def test_another_question_is_asked(make: Make, web: Web, changed: dict[str, Any]) -> None:
    plays(web, said("a dog"))
    web.pages["/v2/chat/completions"] = web.pages[PATH]
    shown = Question("What is it?", image=RED)
    make(web).ask([shown])
    question = changed.pop("question", shown)
    at = web.url(changed.pop("url")) if "url" in changed else web
    make(at, **changed).ask([question])
    assert sum(web.asked.values()) == 2


def test_a_schema_that_grew_is_asked_for_again(make: Make, web: Web) -> None:
    class Grown(Answer):
        colour: str

    plays(web, said(GOOD), said('{"word": "dog", "things": [], "colour": "brown"}'))
    server = make(web)
    assert server.ask([JSON]) == [DOG]
    (grown,) = server.ask([Question("What is it?", schema=Grown)])
    assert isinstance(grown, Grown)


def asking(*arguments: object) -> subprocess.Popen[bytes]:
    """Without a buffer, in which `readline` would keep what `communicate` then misses."""
    return subprocess.Popen([sys.executable, "-m", "asking", *map(str, arguments)], stdout=subprocess.PIPE, bufsize=0)


def killed(process: subprocess.Popen[bytes]) -> list[bytes]:
    """The whole lines that it has said by then: a full pipe takes a part of one."""
    process.send_signal(signal.SIGKILL)
    return process.communicate(timeout=60)[0].split(b"\n")[:-1]


def test_a_killed_run_pays_nothing_twice(make: Make, web: Web, tmp_path: Path) -> None:
    """Two processes ask at once; one is killed with a request in flight."""
    fourth = Question("question 3").prompt.encode()

    def stuck(handler: Handler) -> None:
        (Handler.silence if fourth in handler.body else said("a dog"))(handler)

    web.pages[PATH] = stuck
    first, second = (asking(web.url("/v1"), tmp_path / "cache", n, n + 8) for n in (0, 8))
    assert second.wait(60) == 0
    while web.asked[PATH] < 12:
        assert first.poll() is None
        time.sleep(0.02)
    killed(first)
    plays(web, said("a cat"))
    server = make(web, model="model", scope="both")
    assert server.ask(numbered(16)) == ["a dog"] * 3 + ["a cat"] * 5 + ["a dog"] * 8
    assert web.asked[PATH] == 12 + 5
    assert server._ledger.spent() == Spent(16, 16 * 20, 16 * 10)


def test_a_kill_loses_nothing(tmp_path: Path) -> None:
    processes = [asking(tmp_path, name) for name in ("a", "b")]
    begun = [process.stdout.readline().rstrip() for process in processes for _ in range(30) if process.stdout]
    assert [process.poll() for process in processes] == [None, None], "neither is in the other's way"
    keys = [*begun, *chain.from_iterable(map(killed, processes))]
    ledger = Ledger(tmp_path, "both")
    assert ledger._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert len(keys) >= 60
    assert all(ledger.answer(key) == "answer" for key in keys)
    ((kept,),) = ledger._db.execute("SELECT count(*) FROM answers")
    assert ledger.spent().requests == kept >= len(keys)


# Budgets


def test_a_budget_of_tokens_ends_the_run_and_a_larger_one_goes_on(make: Make, web: Web) -> None:
    plays(web, said("a dog"))
    server = make(web, scope="out annotator", budget_tokens=100)
    says = (
        r"^the budget of out annotator is reached: 90 of 100 tokens spent, and the next request may take 30\. "
        r"What is done is safe; raise budget_tokens and run the same again to go on\.$"
    )
    with pytest.raises(RunError, match=says):
        server.ask(numbered(8))
    assert web.asked[PATH] == 3
    with pytest.raises(RunError, match=says):  # another process, or run
        make(web, scope="out annotator", budget_tokens=100).ask(numbered(8))
    assert web.asked[PATH] == 3
    make(web, scope="out annotator", budget_tokens=240).ask(numbered(8))
    assert web.asked[PATH] == 8


def test_a_budget_of_money_is_counted_by_scope(make: Make, web: Web) -> None:
    plays(web, said("a dog", input=1000, output=100))
    rates = {"usd_per_million_input": 2.0, "usd_per_million_output": 10.0}  # $0.003 a question
    for scope in ("a", "b"):
        server = make(web, scope=scope, max_tokens=100, budget_usd=0.007, **rates)
        questions = [Question(f"{scope} {n}") for n in range(4)]
        with pytest.raises(RunError, match=r"\$0\.006 of \$0\.007 spent, .* take \$0\.003\. .* raise budget_usd and"):
            server.ask(questions)
    assert web.asked[PATH] == 4


def test_requests_in_flight_count(make: Make, web: Web) -> None:
    """Each of them may take 100 tokens of 120, and takes 5: of eight threads seven wait, and none gives up."""
    alone = threading.Lock()

    def slowly(handler: Handler) -> None:
        is_alone = alone.acquire(blocking=False)
        time.sleep(0.02)
        said("a dog" if is_alone else "", input=0, output=5)(handler)
        alone.release()

    web.pages[PATH] = slowly
    server = make(web, in_flight=8, max_tokens=100, budget_tokens=120, attempts=1)
    assert server.ask(numbered(5)) == ["a dog"] * 5
    with pytest.raises(RunError, match="25 of 120 tokens spent, and the next request may take 100"):
        server.ask([Question("A sixth?")])
    assert web.asked[PATH] == 5


def test_what_a_server_does_not_count_counts_as_expected(make: Make, web: Web) -> None:
    for usage in ("null", '{"prompt_tokens": -1, "completion_tokens": 1}', '{"prompt_tokens": 1e99}', "[]"):
        plays(web, page(b'{"choices": [{"message": {"content": "a dog"}}], "usage": %b}' % usage.encode()))
        server = make(web, scope=usage)
        server.ask([Question(usage)])
        assert server._ledger.spent() == Spent(1, 0, 10)


def test_what_was_in_flight_in_a_process_that_ended_counts_as_expected(tmp_path: Path) -> None:
    terms = Terms(tokens=25)
    ledger = Ledger(tmp_path, "a", terms)
    late = ledger.reserve(10, -LATE - 1)
    ledger.settle(ledger.reserve(5, 60), (1, 2))
    assert ledger.spent() == Spent(2, 1, 12)
    ledger.settle(late, (7, 7), b"key", "text")
    assert ledger.spent() == Spent(2, 1, 12), "it is counted once"
    Ledger(tmp_path, "b", terms).reserve(20, 60)
    Ledger(tmp_path, "c", terms).reserve(20, 60)
    assert ledger.answer(b"key") == "text"
    with pytest.raises(RunError, match="13 of 25 tokens spent"):
        ledger.reserve(20, 60)


@pytest.mark.parametrize("kind", ["rubbish", "foreign", "another version"])
def test_a_file_that_is_no_ledger_is_named(make: Make, web: Web, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "cache" / FILE
    file.parent.mkdir()
    if kind == "rubbish":
        file.write_bytes(b"\x07" * 5000)
    else:
        with sqlite3.connect(file) as db:
            db.execute("CREATE TABLE answers (key, text)" if kind == "foreign" else "PRAGMA user_version = 7")
            db.execute("CREATE TABLE other (a)")
        db.close()
    before = file.read_bytes()
    with pytest.raises(RunError, match=rf"{file} is broken, or not what answers are kept in: .* Remove it"):
        make(web)
    assert file.read_bytes() == before


def test_a_ledger_that_breaks_under_way_is_named(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for n in range(200):
        ledger.settle(ledger.reserve(1, 60), (1, 1), n.to_bytes(16, "big"), "x" * 100)
    ledger.close()
    file = tmp_path / FILE
    file.write_bytes(file.read_bytes()[:4096] + b"\x07" * (file.stat().st_size - 4096))
    with pytest.raises(RunError, match=rf"{file} is broken"):
        Ledger(tmp_path).answer(b"key")


def test_a_folder_that_can_not_be_used_is_named(make: Make, web: Web, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"can't be kept in .*file/cache: .*Not a directory"):
        make(web, cache=str(tmp_path / "file" / "cache"))

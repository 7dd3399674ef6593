"""One request to an OpenAI-compatible server, and what comes of it: a reply, or an error that says whose fault it is.

Trouble        the server's or the net's, which may be gone in a moment; nothing is paid
└── Lost       likewise, but the request was under way, and may be paid for
TurnedDown     the request's
RunError       the settings': asking again makes no sense

The key leaves this module in the header of a request alone.
"""

from __future__ import annotations

import json
import logging
import os
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import quote

import httpcore
import httpx
from pydantic import SecretStr

from engine.errors import ImageError, RunError
from engine.network import Lines, Network, retry_after
from engine.untrusted import printable
from specialists.chat.settings import ServerSettings

BUSY = {408, 425, 429}
UNFIT = {400, 413, 422}  # what servers say to an image, a prompt or a field that they don't take
MOST_BYTES = 20_000_000  # of a reply
MOST_TOKENS = 10**9  # that a reply can have used
SHOWN = 300  # characters of what a server says
TELLING = 8  # characters of a key that stands nowhere by chance


class Trouble(Exception):
    """It may be gone in a moment, and not before `wait` seconds if the server said so."""

    def __init__(self, message: str, wait: float = 0) -> None:
        super().__init__(message)
        self.wait = wait


class Lost(Trouble):
    """What came of a request is not known."""


class TurnedDown(Exception):
    """A request that the server does not take, and others it may."""


@dataclass(frozen=True)
class Reply:
    """What a model said, why that is of no use (""), and the tokens that went in and came out, if the server tells."""

    text: str
    fault: str = ""
    usage: tuple[int, int] | None = None


@dataclass
class Wire:
    """For many threads. Proxies that the environment names are not used."""

    settings: ServerSettings
    _key: SecretStr = field(init=False, repr=False, compare=False)
    _lines: Lines = field(default_factory=Lines, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Reads the key. RunError for one that no header can hold."""
        logging.getLogger("httpcore.http11").setLevel(logging.INFO)  # else it logs what a server echoes
        name = self.settings.key_from
        key = os.environ.get(name, "").strip()
        if not re.fullmatch("[!-~]*", key):
            raise RunError(f"the key in the environment variable {name} has characters that no key has")
        self._key = SecretStr(key)

    def post(self, body: dict[str, Any]) -> Reply:
        """Asks for a chat completion. Raises what the module says."""
        settings = self.settings
        network = Network(self._lines, time.monotonic() + settings.timeout_seconds, private=True)
        url, content = f"{settings.url}/chat/completions", json.dumps(body).encode()
        with (
            _faults(),
            httpcore.ConnectionPool(ssl_context=_tls(), network_backend=network) as pool,
            pool.stream("POST", url, headers=self._headers(), content=content) as response,
        ):
            data = _read(response)
        if 200 <= response.status < 300:
            return self._reply(data)
        raise self._refusal(response, data)

    def clean(self, text: str) -> str:
        """What a server said, on one line, shortened, without the key and without control characters."""
        said, key = printable(text), self._key.get_secret_value()
        for spelling in {key, quote(key, safe="")} - {""}:
            said = said.replace(spelling, "[key]")
        said = " ".join(said.split())
        return said if len(said) <= SHOWN else f"{said[:SHOWN]}..."

    def _headers(self) -> list[tuple[bytes | str, bytes | str]]:
        key = self._key.get_secret_value()
        authorization = [("Authorization", f"Bearer {key}")] if key else []
        return [("Content-Type", "application/json"), ("Accept-Encoding", "identity"), *authorization]

    def _refusal(self, response: httpcore.Response, data: bytes) -> Exception:
        """The error for a status that is no success."""
        said = self.clean(_message(data))
        told = f"status {response.status}{f': {said}' if said else ''}"
        if response.status in BUSY or response.status >= 500:
            return Trouble(told, wait=retry_after(response))
        if response.status in UNFIT:
            return TurnedDown(told)
        return RunError(
            f"the server at {self.settings.url} turns requests down: {told}. What is done is safe; see to the url, the "
            f"model, and the key in {self.settings.key_from}, and run the same again to go on."
        )

    def _reply(self, data: bytes) -> Reply:
        try:
            envelope = json.loads(data)
            choice = envelope["choices"][0]
            message = choice["message"]
            text, refusal, finish = message.get("content"), message.get("refusal"), choice.get("finish_reason")
        except (ValueError, RecursionError) as error:
            raise Lost(f"the reply is no JSON: {self.clean(str(error))}") from None
        except (KeyError, IndexError, TypeError, AttributeError):
            raise Lost(f"the reply has no choices with a message: {self.clean(_message(data))}") from None
        text = text if isinstance(text, str) else ""
        return Reply(text, self._fault(text, refusal, finish), _usage(envelope))

    def _fault(self, text: str, refusal: Any, finish: Any) -> str:
        key = self._key.get_secret_value()
        if isinstance(refusal, str) and refusal:
            return f"the model refuses: {self.clean(refusal)}"
        if finish == "content_filter":
            return "the server's content filter held the answer back"
        if finish == "length":
            return "the answer is cut off: it has more tokens than it may have"
        if len(key) >= TELLING and key in text:
            return "the answer has the key in it"
        return ""


@cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except (httpcore.ConnectError, httpcore.ConnectTimeout, ImageError) as error:
        raise Trouble(f"no connection: {error}") from error
    except httpcore.TimeoutException as error:
        raise Lost("it takes longer than timeout_seconds") from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise Lost(f"the connection broke off: {error or type(error).__name__}") from error


def _read(response: httpcore.Response) -> bytes:
    data = b""
    for piece in response.iter_stream():
        data += piece
        if len(data) > MOST_BYTES:
            raise Lost(f"the reply has more than {MOST_BYTES:,} bytes")
    return data


def _message(data: bytes) -> str:
    """What an error's body says, by the layouts that servers have for it."""
    text = data.decode(errors="replace")
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return text
    for key in ("error", "detail", "message"):
        if isinstance(said, dict) and key in said:
            said = said[key]
    return said if isinstance(said, str) else text


def _usage(envelope: dict[str, Any]) -> tuple[int, int] | None:
    usage = envelope.get("usage")
    if not isinstance(usage, dict):
        return None
    counts = [usage.get(key) for key in ("prompt_tokens", "completion_tokens")]
    given = [count for count in counts if type(count) is int and 0 <= count <= MOST_TOKENS]
    return (given[0], given[1]) if len(given) == 2 else None

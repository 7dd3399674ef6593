"""Where an OpenAI-compatible server is, how it is asked, and how much it may cost.

What changes no answer is excluded when the settings are dumped, and so is no part of a run's digest: a run that stopped
at its budget goes on with a larger one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from engine.errors import ConfigError


def _url(url: str) -> str:
    try:
        there = urlsplit(url)
        host, port = there.hostname, there.port
    except ValueError as error:
        raise ValueError(f"expected a URL: {error}") from None
    if there.username is not None or there.password is not None or there.query or there.fragment:
        # No ValueError: that would be shown with the value.
        raise ConfigError(
            f"the url of the server at {host} has a user, a password, a query or a fragment in it, which would be "
            "written down with the configuration; a key goes into the environment variable that key_from names"
        )
    if there.scheme not in ("http", "https") or not host or port == 0 or not re.fullmatch("[!-~]+", url):
        raise ValueError("expected an http:// or https:// URL")
    if there.path.rstrip("/").endswith("/completions"):
        raise ValueError("expected the base URL, without /chat/completions")
    return url.rstrip("/")


def _variable(name: str) -> str:
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]{0,99}", name):
        # It may be the key itself: see above.
        raise ConfigError("key_from: expected the name of an environment variable, such as OPENAI_API_KEY")
    return name


def _absolute(folder: str | None) -> str | None:
    return None if folder is None else os.path.abspath(os.path.expanduser(folder))  # workers run in another folder


class ServerSettings(BaseModel):
    """The parameters of a server that several specialists may share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, AfterValidator(_url)] = Field(description="base URL of its API: http://localhost:8000/v1")
    structured: Literal["auto", "json_schema", "none"] = Field(
        "auto",
        description="ask for JSON by response_format; auto: until the server turns that down; else only in the prompt",
    )
    image_side: int = Field(1024, ge=16, le=16_384, description="longest side, in pixels, of the JPEG that is sent")
    temperature: float | None = Field(0, ge=0, le=2, description="of sampling; none: the server's own")
    seed: int = Field(0, ge=0, lt=2**31)
    key_from: Annotated[str, AfterValidator(_variable)] = Field(
        "OPENAI_API_KEY", exclude=True, description="environment variable with the key; without one, none is sent"
    )
    in_flight: int = Field(8, ge=1, le=1024, exclude=True, description="requests of each worker at a time")
    timeout_seconds: float = Field(
        50, gt=0, le=86_400, exclude=True, description="time limit of a request; with all attempts, of run.item_seconds"
    )
    attempts: int = Field(
        3,
        ge=1,
        le=100,
        exclude=True,
        description="how often a question is asked: while the server is busy or broken, and while answers don't fit",
    )
    backoff_seconds: float = Field(
        1,
        ge=0,
        le=60,
        exclude=True,
        description="wait before the second attempt, doubled each time; more if the server asks for it",
    )
    budget_tokens: int | None = Field(
        None, ge=1, exclude=True, description="tokens, in and out, that a source may spend on a dataset; none: any"
    )
    budget_usd: float | None = Field(None, gt=0, exclude=True, description="likewise, dollars; needs both rates")
    usd_per_million_input: float | None = Field(None, ge=0, exclude=True, description="price of tokens sent")
    usd_per_million_output: float | None = Field(None, ge=0, exclude=True, description="price of tokens answered")
    cache: Annotated[str | None, AfterValidator(_absolute)] = Field(
        None, exclude=True, description="folder of the paid answers; none: florence-engine in the user's cache folder"
    )

    @model_validator(mode="after")
    def _budget_has_rates(self) -> ServerSettings:
        if self.budget_usd is not None and None in (self.usd_per_million_input, self.usd_per_million_output):
            raise ValueError("budget_usd needs usd_per_million_input and usd_per_million_output")
        return self

    @property
    def folder(self) -> Path:
        """Of the cache, in full."""
        caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        return Path(self.cache) if self.cache else Path(caches).expanduser() / "florence-engine"

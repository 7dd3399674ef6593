"""Where an output folder is, or an input: on this machine, or on an object store (s3://, gs://, hf://).

A path on a store is a `upath.UPath`, which has the methods of a `pathlib.Path`; annotations call both `Path`. Who may
read and write there is for the environment to say, as each store's own tools have it (AWS_ACCESS_KEY_ID, AWS_PROFILE,
AWS_ENDPOINT_URL; GOOGLE_APPLICATION_CREDENTIALS; HF_TOKEN): no file and no message of ours holds a credential.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from engine.errors import ConfigError, EngineError, RunError, StoreAway, is_no_space

# By scheme what has to be installed. "memory" is for tests: it is gone with its process.
STORES = {"s3": "florence-engine[s3]", "gs": "florence-engine[gcs]", "hf": "huggingface_hub", "memory": "fsspec"}
REMOTE = re.compile(rf"({'|'.join(STORES)})://([^/]*)(.*)", re.DOTALL | re.IGNORECASE)
LOCAL = re.compile(r"file:(?://(?:localhost)?(?=/)|(?!//))(/.*)", re.DOTALL | re.IGNORECASE)  # of this machine
SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
PATTERN = re.compile(r"[*?\[\]#\x00-\x1f]|::")  # which libraries would take for patterns, or for chains of stores
# A request is tried that often, with pauses that double up to 20 s; AWS_MAX_ATTEMPTS says otherwise.
ATTEMPTS = 6
CONNECT_SECONDS, READ_SECONDS = 10, 60
# Their errors have no base in common, and are OSErrors only in part.
LIBRARIES = {
    *("aiobotocore", "aiohttp", "botocore", "fsspec", "gcsfs", "google", "s3fs"),
    *("httpx", "httpx2", "huggingface_hub"),  # by its version one or the other
}
for library in LIBRARIES:  # what they log of a fault, with tracebacks, they also raise: it is told once, by `reached`
    if (logger := logging.getLogger(library)).level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)
# Words by which stores say that it is us whom they don't know, not that the thing is not for us.
UNKNOWN_US = ("ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "RequestTimeTooSkewed")


def is_remote_uri(text: str) -> bool:
    """Whether it leads to an object store."""
    return REMOTE.match(text) is not None


def is_local(path: Path) -> bool:
    return isinstance(path, Path)


def place(text: str | Path) -> Path:
    """The absolute path of a folder on this machine, or a UPath of one on a store. Raises ConfigError for what is
    neither, for credentials in it, and where the store's package isn't installed."""
    if not isinstance(text, str):
        return text.absolute()
    if file := LOCAL.fullmatch(text):
        return Path(os.fsdecode(unquote_to_bytes(file[1])))
    if is_remote_uri(text):
        from upath import UPath

        scheme, bucket, key = checked(text)
        if PATTERN.search(bucket + key):
            raise ConfigError(
                f"{without_secrets(text)!r}: a folder on a store can't have *, ?, [, ], # or :: in its name"
            )
        return cast(Path, UPath(f"{scheme}://{bucket}{key.rstrip('/')}", **options(scheme)))
    if other := SCHEME.match(text):
        is_web = other[1].lower() in ("http", "https")
        why = "a web server can't be listed or written to" if is_web else f"{other[1]}:// isn't known"
        raise ConfigError(
            f"{without_secrets(text)} can't be a folder: {why}. Name a folder on this machine, or one at s3://, gs:// "
            "or hf://"
        )
    return Path(os.path.abspath(os.path.expanduser(text)))


def checked(uri: str) -> tuple[str, str, str]:
    """Scheme, bucket and the rest of a URI on a store. Raises ConfigError for credentials in it, and where the store's
    package isn't installed."""
    match = REMOTE.fullmatch(uri)
    assert match is not None
    scheme, bucket, key = match[1].lower(), match[2], match[3]
    if "@" in bucket:
        raise ConfigError(
            f"{without_secrets(uri)}: credentials don't belong in a URI, which ends up in files and messages. Give "
            "them by the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, ...)"
        )
    if not bucket:
        raise ConfigError(f"{uri!r} names no bucket: expected {scheme}://bucket/folder")
    _check_installed(scheme)
    return scheme, bucket, key


def store_of(uri: str) -> str | None:
    """The bucket that a URI leads to, as "s3://bucket", or on the hub the repository; None for what is on no store."""
    match = REMOTE.fullmatch(uri)
    if match is None:
        return None
    scheme, bucket, key = match[1].lower(), match[2], match[3]
    if scheme != "hf":
        return f"{scheme}://{bucket}"
    depth = 3 if bucket in ("datasets", "spaces", "buckets") else 2
    return f"hf://{'/'.join((bucket + key).split('/')[:depth]).partition('@')[0]}"


def without_secrets(uri: str) -> str:
    """As it can be shown: without user, password and query."""
    return re.sub(r"//[^/@\s]*@", "//", re.sub(r"\?[^\s]*", "", uri))


def options(scheme: str) -> dict[str, Any]:
    """How a store's file system is made. Listings are never kept: others write there, too."""
    if scheme != "s3":
        return {} if scheme == "memory" else {"use_listings_cache": False}
    # Without these, a client of S3 tries four times under "legacy" rules, which don't know of every passing fault.
    attempts = {} if "AWS_MAX_ATTEMPTS" in os.environ else {"total_max_attempts": ATTEMPTS}
    config = {
        "retries": {"mode": "standard", **attempts},
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
    }
    return {"use_listings_cache": False, "config_kwargs": config}


def filesystem(where: Path | str) -> tuple[Any, str]:
    """The fsspec file system of a place on a store, and the place's path in it. One for all threads of a process, which
    share its connections; none outlives a fork, after which its own thread is gone."""
    scheme, bucket, key = checked(str(where))
    inside = f"{bucket}{key}".strip("/")
    if scheme == "hf":  # a thread's own, and it keeps listings whatever `options` say
        store = _filesystem(scheme, os.getpid(), threading.get_ident())
        store.dircache.clear()
        return store, inside
    return _filesystem(scheme, os.getpid()), f"/{inside}" if scheme == "memory" else inside


@lru_cache
def _filesystem(scheme: str, process: int, thread: int = 0) -> Any:
    import fsspec  # type: ignore[import-untyped]

    kind = _s3() if scheme == "s3" else fsspec.get_filesystem_class(scheme)
    return kind(**options(scheme), skip_instance_cache=True)


def _s3() -> Any:
    """What s3fs has, which begins a request five times, and for a read each of these five times again: 150 attempts of
    its client, six minutes of a store that is gone. Here what has failed five times has failed."""
    from botocore.exceptions import ConnectionError, HTTPClientError  # type: ignore[import-untyped]
    from s3fs import S3FileSystem  # type: ignore[import-untyped]

    class Store(S3FileSystem):  # type: ignore[misc]
        async def _call_s3(self, *arguments: Any, **named: Any) -> Any:
            try:
                return await super()._call_s3(*arguments, **named)
            except HTTPClientError as error:
                raise ConnectionError(error=error) from None

    return Store


def _check_installed(scheme: str) -> None:
    import fsspec

    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise ConfigError(f"{scheme}:// needs a package that isn't there: pip install '{STORES[scheme]}'") from error


@contextmanager
def sent_folder(path: Path) -> Iterator[Path]:
    """A folder of this machine to write to that is, or on a store becomes, the folder `path`: what lies deepest is sent
    first, so that the page which leads to the others is there last. What was there before is gone."""
    if is_local(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="engine-") as name:
        folder = Path(name) / path.name
        folder.mkdir()
        yield folder
        with reached(path):
            store, inside = filesystem(path)
            with suppress(FileNotFoundError):
                store.rm(inside, recursive=True)
            files = [file for file in folder.rglob("*") if file.is_file()]
            for file in sorted(files, key=lambda file: (-len(file.parts), file)):
                store.put_file(str(file), f"{inside}/{file.relative_to(folder).as_posix()}")


@contextmanager
def reached(where: Path | str) -> Iterator[None]:
    """Turns what a store fails at, or refuses, into a RunError that says where and what to do; into a StoreAway where
    the store fails. What is not there stays a FileNotFoundError, unless it is the bucket."""
    try:
        yield
    except EngineError:
        raise
    except Exception as error:
        if (
            isinstance(error, IsADirectoryError)
            or not is_remote_uri(str(where))
            or not is_of_store(error)
            or is_no_space(error)
        ):
            raise
        if isinstance(error, FileNotFoundError) and not is_no_bucket(error):
            raise
        ours = isinstance(error, FileNotFoundError) or _is_denied(error)
        raise (RunError if ours else StoreAway)(f"{without_secrets(str(where))} {fault(error)}") from error


def is_of_store(error: BaseException) -> bool:
    """Whether it comes from a store, or from the library that speaks to it."""
    return isinstance(error, OSError) or _library(error) in LIBRARIES or "timeout" in type(error).__name__.lower()


def is_no_bucket(error: FileNotFoundError) -> bool:
    """Whether what isn't there is the bucket itself."""
    return "NoSuchBucket" in _said(error) or "bucket does not exist" in str(error)


def is_refusal(error: BaseException) -> bool:
    """Whether a store says that this one thing is not for us, though it knows who we are."""
    return isinstance(error, PermissionError) and not any(word in _said(error) for word in UNKNOWN_US)


def fault(error: BaseException) -> str:
    """What went wrong on a store, and what to do about it."""
    said = _said(error)
    if isinstance(error, FileNotFoundError):
        return f"is in a bucket that isn't there ({said}). Create it, or name another"
    if _is_denied(error):
        return (
            f"can't be used with the credentials of the environment ({said}). Set those that may read and write there "
            "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE; GOOGLE_APPLICATION_CREDENTIALS; HF_TOKEN), and "
            "run the same again"
        )
    return f"can't be reached or fails, after several attempts ({said}). What is done is safe: run the same again"


def _is_denied(error: BaseException) -> bool:
    return isinstance(error, PermissionError) or "Credential" in type(error).__name__ or "Forbidden" in _said(error)


def _said(error: BaseException) -> str:
    """Errors and their causes in words: the code that S3 gave is in the cause."""
    parts: list[str] = []
    seen = error
    while seen is not None and len(parts) < 3:
        parts.append(f"{type(seen).__name__}: {seen}" if str(seen) else type(seen).__name__)
        seen = cast(BaseException, seen.__cause__)
    return without_secrets("; ".join(dict.fromkeys(parts))[:400].replace("\n", " "))


def _library(error: BaseException) -> str:
    return type(error).__module__.partition(".")[0]

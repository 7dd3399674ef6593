"""Configurations that went wrong: a Config, or a ConfigError that says which file, and is short enough to be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from limits import deadline, memory_of
from mutations import ODD, mutated

from engine.config import Config, load_config
from engine.errors import ConfigError
from engine.untrusted import plain
from specialists.hub.weights import UNSTATED, licence_in

LONGEST = 200_000  # characters of an error
SECONDS = 20
GOOD = b"""\
ingest: {images: [photos, "https://example.org/a.png"], limit: 10, http: {attempts: 2}}
vocabulary: {classes: {dog: {synonyms: [puppy]}}, ignore: [noise]}
specialists: {detector: {use: detector, min_score: 0.3}, ocr: }
filters: {nms: {iou: 0.5}}
run: {workers: 2, batch_size: 4, item_seconds: 30}
train: {start: nano, steps: 100, phases: {warm: {steps: 10}}}
merge: {iou: 0.5, sizes: [0.06, 0.17]}
gate: {labels: [labels.json], confidence: 0.9}
refine: {rounds: [{images: 100}, {images: all}]}
export: {format: coco, split: {train: 0.9, val: 0.1}}
"""


def loaded(path: Path, *settings: str) -> Config | None:
    with deadline(SECONDS):
        try:
            return load_config(path, settings)
        except ConfigError as error:
            assert any(named in str(error) for named in (str(path), "--set", "/dev/zero"))
            assert len(str(error)) < LONGEST
            plain(str(error)).encode()
            return None


def nines(count: int) -> bytes:
    """A list of lists of lists ... of 9 ** `count` letters, in a few lines."""
    lines = ["x0: &x0 [a, b]"]
    lines += [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]" for n in range(1, count)]
    return "\n".join([*lines, f"ingest: {{limit: *x{count - 1}}}"]).encode()


@given(content=mutated(GOOD))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@example(nines(9))
@example(b"ingest: {limit: 0x" + b"9" * 100_000 + b"}")
@example(b"ingest: {limit: " + b":".join([b"59"] * 50_000) + b"}")
@example(b"ingest: {limit: " + b"a" * 1_000_000 + b"}")
@example(b"run: {item_seconds: " + b":".join([b"59"] * 1000) + b".5}")
@example(b'base: "a\\0b"')
@example(b"base: /dev/zero")
@example(b'ingest: {images: ["~a\\0"], image_root: "~a\\0"}')
@example(b"a: !!bool maybe")
@example(b'a: !!int ""')
@example(b"a: !!timestamp soon")
@example(b"specialists: &s {a: *s}")
@example(b"a: !!python/object/apply:os.system ['false']")
@example(b"? {a: 1}\n: 2")
@example(b"a: " + b"[" * 20_000)
@example(b"a: \xff")
@example('"\ud800\x1b[31m": 1'.encode("utf-8", "surrogatepass"))
def test_a_damaged_configuration(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("c") / "pipeline.yaml"
    path.write_bytes(content)
    loaded(path)


@pytest.mark.parametrize("content", [nines(9), b"specialists: &s {a: *s}", b"a: !!python/name:os.system"])
def test_what_is_more_than_it_says_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    megabytes, told = memory_of(load_config, tmp_path / "c.yaml")
    assert "ConfigError" in told
    assert megabytes < 50


@given(key=st.sampled_from(list(Config.model_fields)), value=st.sampled_from(ODD), inner=st.booleans())
@settings(max_examples=150, deadline=None)
def test_odd_values_everywhere(tmp_path_factory: pytest.TempPathFactory, key: str, value: object, inner: bool) -> None:
    """As values of --set, which is YAML, too."""
    path = tmp_path_factory.getbasetemp() / "good.yaml"
    path.write_bytes(GOOD)
    field = Config.model_fields[key].annotation
    names = list(getattr(field, "model_fields", {})) if inner else []
    for name in [f"{key}.{name}" for name in names] or [key]:
        loaded(path, f"{name}={json.dumps(value)}")


def test_a_model_card_is_no_bomb_either(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"---\nlicense: mit\n" + nines(9) + b"\n---\n")
    assert licence_in(tmp_path) == UNSTATED
    (tmp_path / "README.md").write_bytes(b"---\nlicense: mit\na: &a {b: 1}\nc: {<<: [*a, *a]}\n---\n")
    with deadline(SECONDS):
        licence_in(tmp_path)

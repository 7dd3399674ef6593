"""What all embedded specialists keep to: light to import, silent, at home in no one's home, offline."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EMBEDDED = [
    "detector:NanoDet",
    "ocr:RapidOcr",
    "segmenter:GrabCut",
    "composer:Composer",
    "parser:Parser",
    "grounder:Grounder",
]


@pytest.mark.parametrize("specialist", EMBEDDED)
def test_the_driver_loads_no_engine(specialist: str) -> None:
    heavy = {"cv2", "inflect", "onnxruntime", "rapidocr", "spacy", "torch"}
    code = f"import sys, specialists.{specialist.partition(':')[0]}; print(*{heavy} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.split() == []


@pytest.mark.parametrize("specialist", EMBEDDED)
def test_loading_prints_nothing_and_writes_nothing_at_home(specialist: str, tmp_path: Path) -> None:
    """onnxruntime, for one, would keep a file for its telemetry there."""
    module, _, name = specialist.partition(":")
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"} | home
    done = subprocess.run(
        [sys.executable, "-c", f"from specialists.{module} import {name}; {name}().setup()"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert list(tmp_path.rglob("*")) == []

"""On PYTHONPATH of a run that is to have trouble: whoever reads an image suffers what is written beside it.

Beside `photo.png` the file `photo.png.trouble` holds a word. It befalls whichever process reads the image, in any
stage. CHAOS_SLOW is the seconds that each image takes, and the file CHAOS_SEEN gains the name of each, and the number
of each step of a training.
"""

import ctypes
import importlib.util
import os
import signal
import sys
import time
from importlib.abc import MetaPathFinder


def note(line: str) -> None:
    if seen := os.environ.get("CHAOS_SEEN"):
        with open(seen, "a") as file:
            file.write(f"{line}\n")


def suffer(word: str) -> None:
    match word:
        case "exit":
            sys.exit(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":  # native code that holds the interpreter's lock
            ctypes.PyDLL(None).sleep(600)
        case "eat":
            eaten = []
            while True:
                eaten.append(b"\xff" * 2**26)
                time.sleep(0.02)
        case "unreadable":
            from engine.errors import ImageError

            raise ImageError("unreadable", "it had to happen")


def troubled(read):  # type: ignore[no-untyped-def]
    def reading(uri, **options):  # type: ignore[no-untyped-def]
        time.sleep(float(os.environ.get("CHAOS_SLOW", "0")))
        note(uri)
        beside = os.path.join(os.environ.get("CHAOS_TROUBLES", "/nowhere"), os.path.basename(uri) + ".trouble")
        if os.path.exists(beside):
            with open(beside) as file:
                suffer(file.read())
        return read(uri, **options)

    return reading


def noted(step):  # type: ignore[no-untyped-def]
    def stepping(trainer, micro_batches):  # type: ignore[no-untyped-def]
        note(f"step {trainer.done}")
        return step(trainer, micro_batches)

    return stepping


def patch_reading(module):  # type: ignore[no-untyped-def]
    module.read = troubled(module.read)


def patch_trainer(module):  # type: ignore[no-untyped-def]
    module.Trainer.step = noted(module.Trainer.step)


PATCHES = {"engine.reading": patch_reading, "florence2.training.trainer": patch_trainer}


class Patching(MetaPathFinder):
    def find_spec(self, name, path, target=None):  # type: ignore[no-untyped-def]
        if name not in PATCHES:
            return None
        patch = PATCHES.pop(name)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def patched(module):  # type: ignore[no-untyped-def]
            execute(module)
            patch(module)

        spec.loader.exec_module = patched  # type: ignore[method-assign]
        return spec


if "CHAOS_SLOW" in os.environ:
    sys.meta_path.insert(0, Patching())

"""The images of a benchmark: where they lie, and what is to be seen in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from florence2.errors import Florence2Error
from florence2.evaluation.files import Photo
from florence2.processor import to_rgb, unreadable


def paths_of(photos: Sequence[Photo], folder: Path) -> dict[int | str, Path]:
    """Where those lie that are there. Florence2Error if none is: then the folder is another one."""
    if not photos:
        raise Florence2Error("expected a benchmark's files with some images; there is none in them")
    if not folder.is_dir():
        raise Florence2Error(f"{folder}: expected the folder with the images ({photos[0].file}, ...): no such folder")
    folders = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    names = {photo.id: (photo.file, Path(photo.file).name) for photo in photos}
    paths: dict[int | str, Path] = {}
    for id, own in names.items():
        path = next((f / name for f in folders for name in own if (f / name).is_file()), None)
        if path is not None:
            paths[id] = path
    if not paths:
        raise Florence2Error(
            f"{folder}: expected {len(photos)} images such as {photos[0].file}, here or a folder below; none is there "
            "(--images says where they are)"
        )
    return paths


def seen(path: Path, size: tuple[int, int] | None) -> Image.Image:
    """The image as its boxes were drawn on it: upright, unless only as it is stored it has the benchmark's `size`."""
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if size is not None and upright.size != size == image.size:
                upright = image
            return to_rgb(upright)
    except Exception as error:  # decoders raise whatever they stumble over
        raise unreadable(str(path), error) from error

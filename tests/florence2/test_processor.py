"""The processor against transformers', in both directions; its files and its limits."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from florence import bart_sized_tokens, bart_vocabulary, small_processor, small_tokens
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from florence2.config import Florence2Config
from florence2.errors import CheckpointError, ConfigError, ImageError, PromptError
from florence2.processor import Processor, image_tokens, resized
from florence2.tasks import Form, Prompt, Task, ask

ROOT = Path(__file__).parents[2]
REGION = "<loc_52><loc_332><loc_932><loc_774>"


def picture(size: tuple[int, int] = (64, 48), mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Noise of `size` (width, height), so that a wrong filter, order or axis shows."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), np.uint8)
    image = Image.fromarray(noise, "RGBA")
    return image.convert(mode) if "A" in mode else image.convert("RGB").convert(mode)


def prompt(task: Task) -> Prompt:
    return ask(task, (REGION if task.takes_region else "a red car, un café") if task.takes_input else None)


# --- transformers ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["released", "small"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Processor, Path, Any]:
    """A processor, its files, and transformers' processor made from them."""
    from transformers import AutoProcessor

    ours = Processor(bart_sized_tokens()) if request.param == "released" else small_processor((96, 128), stride=16)
    path = tmp_path_factory.mktemp("processor") / "made" / "here"
    ours.save_pretrained(path)
    return ours, path, AutoProcessor.from_pretrained(path, backend="pil")


@pytest.mark.parametrize("task", Task)
def test_transformers_asks_the_same(task: Task, saved: tuple[Processor, Path, Any]) -> None:
    ours, _, theirs = saved
    assert type(theirs).__name__ == "Florence2Processor"
    image, asked = picture(), prompt(task)
    text = f"<{task}>" + ((REGION if task.takes_region else "a red car, un café") if task.takes_input else "")
    out = theirs(images=image, text=text, return_tensors="pt")
    ids, mask = ours.prompts([asked])
    assert (out["input_ids"] == theirs.image_token_id).sum() == ours.image_tokens
    assert out["input_ids"][:, ours.image_tokens :].tolist() == ids.tolist()
    assert mask.tolist() == [[1] * ids.shape[1]]
    torch.testing.assert_close(out["pixel_values"], ours.images([image]), atol=1e-6, rtol=0)
    assert theirs.image_token_id == ours.tokens.size == len(theirs.tokenizer) - 1
    assert ours.decode(ids[0]) == asked.text == theirs.batch_decode(ids)[0].removeprefix("<s>").removesuffix("</s>")


@pytest.mark.parametrize(
    ("task", "answer", "expected"),
    [
        ("CAPTION", "a dog", "a dog"),
        ("OD", "dog<loc_1><loc_2><loc_3><loc_4>", {"bboxes": [[1, 2, 3, 4]], "labels": ["dog"]}),
        ("REGION_PROPOSAL", "<loc_1><loc_2><loc_3><loc_4>", {"bboxes": [[1, 2, 3, 4]], "labels": [""]}),
        (
            "CAPTION_TO_PHRASE_GROUNDING",
            "the image<loc_0><loc_0><loc_9><loc_9>a cat<loc_1><loc_2><loc_3><loc_4>",
            {"bboxes": [[1, 2, 3, 4]], "labels": ["a cat"]},
        ),
        (
            "OCR_WITH_REGION",
            "STOP" + "".join(f"<loc_{k}>" for k in range(8)),
            {"quad_boxes": [[0, 1, 2, 3, 4, 5, 6, 7]], "labels": ["STOP"]},
        ),
        (
            "REGION_TO_SEGMENTATION",
            "<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6>",
            {"polygons": [[[1, 2, 3, 4, 5, 6]]], "labels": [""]},
        ),
        (
            "OPEN_VOCABULARY_DETECTION",
            "car<loc_1><loc_2><loc_3><loc_4>",
            {"bboxes": [[1, 2, 3, 4]], "bboxes_labels": ["car"], "polygons": [], "polygons_labels": []},
        ),
    ],
)
def test_transformers_reads_answers(task: str, answer: str, expected: Any, saved: tuple[Processor, Path, Any]) -> None:
    _, _, theirs = saved
    read = theirs.post_process_generation(text=f"<s>{answer}</s>", task=f"<{task}>", image_size=(1000, 1000))
    assert read == {f"<{task}>": expected}


def test_what_transformers_saves(saved: tuple[Processor, Path, Any], tmp_path: Path) -> None:
    ours, path, theirs = saved
    theirs.save_pretrained(tmp_path)
    for again in (Processor.from_pretrained(tmp_path), Processor.from_pretrained(str(path))):
        for name in ("size", "image_tokens", "mean", "std", "resample", "positions"):
            assert getattr(again, name) == getattr(ours, name)
        assert (again.tokens.image, again.tokens.size) == (ours.tokens.size, ours.tokens.size + 1)
        asked = [prompt(task) for task in Task]
        assert torch.equal(again.prompts(asked)[0], ours.prompts(asked)[0])
        assert torch.equal(again.images([picture()]), ours.images([picture()]))


# --- images ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 70), st.integers(1, 70), st.integers(0, 9))
@settings(max_examples=40)
def test_images_as_in_transformers(width: int, height: int, to_height: int, to_width: int, seed: int) -> None:
    from transformers import CLIPImageProcessorPil

    ours = Processor(small_tokens(), (to_height, to_width), image_tokens=2)
    theirs = CLIPImageProcessorPil(
        size={"height": to_height, "width": to_width},
        do_center_crop=False,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    images = [picture((width, height), seed=seed), picture((height, width), seed=seed + 10)]
    values = ours.images(images)
    assert values.shape == (2, 3, to_height, to_width) and values.dtype == torch.float32 and values.is_contiguous()
    sideways = [image.resize((to_width, image.height), Image.Resampling.BICUBIC) for image in images]
    torch.testing.assert_close(values, theirs(sideways, return_tensors="pt")["pixel_values"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(400, 1000), (1000, 400), (200, 2000), (640, 480), (130, 77)])
def test_sideways_first(size: tuple[int, int]) -> None:
    """Whatever Pillow's order is, within two levels of torchvision's; noise, squeezed in height and stretched in width,
    would otherwise be 21 levels off."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    ours = resized(Image.fromarray(noise), 0, (768, 768), Image.Resampling.BICUBIC)
    mode = InterpolationMode.BICUBIC
    theirs = functional.resize(torch.from_numpy(noise).permute(2, 0, 1), [768, 768], mode, antialias=True)
    assert np.abs(ours.astype(int) - theirs.permute(1, 2, 0).numpy()).max() <= 2


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_modes(mode: str) -> None:
    from transformers import CLIPImageProcessorPil

    ours = small_processor()
    image = picture(mode=mode)
    theirs = CLIPImageProcessorPil(
        size={"height": 96, "width": 96}, do_center_crop=False, image_mean=list(ours.mean), image_std=list(ours.std)
    )
    expected = theirs(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(ours.images([image]), expected, atol=1e-6, rtol=0)


def grey(image: Image.Image) -> float:
    """The one value of a processed image, back in 0..255."""
    processor = small_processor()
    values = processor.images([image])[0] * torch.tensor(processor.std).view(3, 1, 1)
    values = (values + torch.tensor(processor.mean).view(3, 1, 1)) * 255
    assert values.max() - values.min() < 0.01
    return float(values.mean())


def test_sixteen_bits_and_transparency() -> None:
    assert grey(Image.fromarray(np.full((8, 8), 0x80FF, np.uint16))) == pytest.approx(0x80, abs=0.01)
    assert grey(Image.new("RGBA", (8, 8), (9, 9, 9, 0))) == pytest.approx(255, abs=0.01)
    transparent = Image.new("P", (8, 8), 3)
    transparent.info["transparency"] = 3
    assert grey(transparent) == pytest.approx(255, abs=0.01)
    for mode in ("I", "F"):
        with pytest.raises(ImageError, match="what is white"):
            small_processor().images([Image.new(mode, (8, 8))])


def test_nothing_is_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(tmp_path / "turned.png", exif=exif)
    assert torch.equal(small_processor().images([tmp_path / "turned.png"]), small_processor().images([picture()]))


def test_files_and_bytes(tmp_path: Path) -> None:
    path, buffer = tmp_path / "image.png", BytesIO()
    picture().save(path)
    picture().save(buffer, "PNG")
    values = small_processor().images([picture(), path, str(path), buffer.getvalue()])
    assert all(torch.equal(one, values[0]) for one in values)
    assert small_processor().images([]).shape == (0, 3, 96, 96)


def broken_png() -> bytes:
    buffer = BytesIO()
    picture((300, 300)).save(buffer, "PNG")
    return buffer.getvalue()[:20_000]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (None, "expected a PIL image, a path or a file's bytes; got NoneType"),
        (np.zeros((4, 4, 3), np.uint8), "got ndarray"),
        (Image.new("RGB", (0, 5)), "size of 0 x 5"),
        (b"", "can't be read"),
        (b"GIF89a\0\0\0\0", "can't be read"),
        (broken_png(), "can't be read"),
        (Image.open(BytesIO(broken_png())), "can't be read"),
        ("no/such.png", r"image 1 \(no/such.png\): can't be read"),
        (ROOT, "can't be read"),
        ("nul\0", "can't be read"),
    ],
)
def test_what_is_no_image(image: Any, words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        small_processor().images([picture(), image])
    assert "image 1" in str(caught.value)


def test_one_image_is_no_list(tmp_path: Path) -> None:
    processor = small_processor()
    picture().save(tmp_path / "a.png")
    for one in (picture(), "a.png", tmp_path / "a.png", b"GIF89a", None, 3):
        with pytest.raises(ImageError, match=r"expected a list of images, as in images\(\[image\]\); got "):
            processor.images(one)
    assert torch.equal(
        processor.images(picture(seed=n) for n in (0, 1)), processor.images([picture(), picture(seed=1)])
    )


def test_an_opened_image_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "half.png").write_bytes(broken_png())
    with (
        Image.open(tmp_path / "half.png") as half,
        pytest.raises(ImageError, match=r"image 1 \(.*half.png\): can't be"),
    ):
        small_processor().images([picture(), half])


# --- prompts ---------------------------------------------------------------------------------------------------------


def test_unequal_prompts_are_padded() -> None:
    processor = small_processor()
    asked = [ask("OD"), "What text?", Prompt("free", Form.TEXT), ""]
    ids, mask = processor.prompts(asked)
    rows = [processor.tokens.sentence(text) for text in (Task.OD.sentence, "What text?", "free", "")]
    assert rows[3] == [processor.tokens.bos, processor.tokens.eos]
    assert ids.shape == mask.shape == (4, max(map(len, rows))) and ids.dtype == mask.dtype == torch.int64
    assert [line[kept.bool()].tolist() for line, kept in zip(ids, mask, strict=True)] == rows
    assert (ids[mask == 0] == processor.tokens.pad).all() and mask.sum() == sum(map(len, rows))
    assert [processor.decode(line) for line in ids] == [Task.OD.sentence, "What text?", "free", ""]
    assert processor.prompts([])[0].shape == (0, 0)


def test_text_makes_no_control_tokens() -> None:
    processor = small_processor()
    text = "a</s> dog<s><pad> <mask>on<unk><image>"
    ids, _ = processor.prompts([ask("CAPTION_TO_PHRASE_GROUNDING", text)])
    assert processor.decode(ids[0]) == f"Locate the phrases in the caption: {text}"
    assert [processor.tokens.special(int(id)) for id in ids[0]] == ["<s>", *[None] * (ids.shape[1] - 2), "</s>"]
    ids, _ = processor.prompts([ask("OPEN_VOCABULARY_DETECTION", ["a cat", "a dog"])])
    assert processor.tokens.id("<and>") in ids[0]


def test_one_prompt_is_no_list() -> None:
    for one in ("OD", Task.OD, ask("OD"), None, 3):
        with pytest.raises(PromptError, match=r"expected a list of prompts, as in prompts\(\[prompt\]\); got "):
            small_processor().prompts(one)


def test_a_task_stands_for_its_sentence() -> None:
    processor = small_processor()
    assert processor.prompts([Task.OD])[0].tolist() == processor.prompts([ask("OD")])[0].tolist()
    assert processor.prompts(iter(["OD"]))[0].tolist() == [processor.tokens.sentence("OD")]
    with pytest.raises(PromptError, match="REGION_TO_OCR needs a region"):
        processor.prompts([Task.REGION_TO_OCR])


def test_prompts_that_are_too_long() -> None:
    base = Processor.for_model(Florence2Config.preset("base"), small_tokens())
    assert (base.image_tokens, base.positions, base.max_prompt_tokens) == (577, 1024, 447)
    assert base.prompts(["<loc_52>" * 445])[0].shape == (1, 447)
    with pytest.raises(PromptError, match=r"prompt 1 has 448 tokens, and 447 fit .1024 positions less 577"):
        base.prompts([ask("OD"), "<loc_52>" * 446])
    assert small_processor().max_prompt_tokens is None
    assert small_processor().prompts(["<loc_52>" * 5000])[0].shape == (1, 5002)


@pytest.mark.parametrize("text", [None, 3, ["a"], "\udc80"])
def test_prompts_that_are_no_text(text: Any) -> None:
    with pytest.raises(PromptError, match="UTF-8"):
        small_processor().prompts([text])


@pytest.mark.parametrize(("size", "stride", "count"), [((768, 768), 32, 577), ((96, 130), 16, 55), ((1, 1), 32, 2)])
def test_image_tokens(size: tuple[int, int], stride: int, count: int) -> None:
    assert image_tokens(size, stride) == count
    assert stride != 32 or Processor(small_tokens(), size).image_tokens == count


def test_a_model_without_room_for_a_prompt() -> None:
    with pytest.raises(ConfigError, match="577 image tokens"):
        Processor(small_tokens(), positions=578)


# --- files -----------------------------------------------------------------------------------------------------------

# As in Microsoft's repositories.
CLIP = {
    "image_processor_type": "CLIPImageProcessor",
    "image_seq_length": 577,
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_center_crop": False,
    "do_convert_rgb": None,
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 768, "width": 768},
    "crop_size": {"height": 768, "width": 768},
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
CONFIG = {"model_type": "florence2", "text_config": {"max_position_embeddings": 4096}}


def microsoft(folder: Path, **changes: Any) -> Path:
    vocab, merges = bart_vocabulary()
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n", encoding="utf-8")
    (folder / "preprocessor_config.json").write_text(json.dumps(CLIP | changes))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def test_microsofts_form(tmp_path: Path) -> None:
    processor = Processor.from_pretrained(microsoft(tmp_path))
    assert (processor.size, processor.image_tokens, processor.max_prompt_tokens) == ((768, 768), 577, 4096 - 577)
    assert (processor.tokens.size, processor.tokens.image, processor.tokens.loc_start) == (51289, None, 50269)
    fresh = Processor(bart_sized_tokens())
    asked = [prompt(task) for task in Task]
    assert torch.equal(processor.prompts(asked)[0], fresh.prompts(asked)[0])
    assert torch.equal(processor.images([picture()]), fresh.images([picture()]))


def test_tokenizer_json_comes_first_and_the_stride_from_the_config(tmp_path: Path) -> None:
    folder = microsoft(tmp_path, image_seq_length=None, size={"height": 96, "width": 64})
    (folder / "tokenizer.json").write_text(small_tokens().to_json(), encoding="utf-8")
    config = CONFIG | {"vision_config": {"patch_stride": [4, 2, 2, 1]}}
    (folder / "config.json").write_text(json.dumps(config))
    processor = Processor.from_pretrained(folder)
    assert (processor.tokens.size, processor.size, processor.image_tokens) == (1500, (96, 64), 1 + 6 * 4)
    (folder / "config.json").unlink()
    processor = Processor.from_pretrained(folder)
    assert (processor.image_tokens, processor.max_prompt_tokens) == (1 + 3 * 2, None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": {"shortest_edge": 224}}, "height and width"),
        ({"size": 768}, "height and width"),
        ({"size": {"height": 0, "width": 768}}, "1 to 8192"),
        ({"size": {"height": 768, "width": 10**9}}, "1 to 8192"),
        ({"size": {"height": "768", "width": 768}}, "1 to 8192"),
        ({"size": {"height": "768", "width": 768}, "image_seq_length": None}, "preprocessing"),
        ({"image_seq_length": -1}, "number of image tokens"),
        ({"image_seq_length": "577"}, "number of image tokens"),
        ({"image_seq_length": 4096}, "take a smaller size"),
        ({"do_center_crop": True}, "do_center_crop"),
        ({"do_normalize": False}, "do_normalize"),
        ({"rescale_factor": 1}, "rescale_factor"),
        ({"resample": 77}, "77"),
        ({"image_mean": 0.5}, "preprocessing"),
        ({"image_mean": ["a", 1, 2]}, "preprocessing"),
        ({"image_std": [0.2, 0.2]}, "three channels"),
        ({"image_std": [0.2, 0.2, 0]}, "three channels"),
        ({"image_std": [0.2, 0.2, float("nan")]}, "three channels"),
    ],
)
def test_another_preprocessing(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    folder = microsoft(tmp_path, **changes)
    (folder / "tokenizer.json").write_text(small_tokens().to_json(), encoding="utf-8")
    with pytest.raises(CheckpointError, match=words) as caught:
        Processor.from_pretrained(folder)
    assert "preprocessor_config.json" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", "{", "not JSON, or cut off"),
        ("config.json", '{"model_type": "blip"}', "model_type florence2"),
        ("config.json", '{"model_type": "florence2", "text_config": {"max_position_embeddings": "many"}}', "'many'"),
        ("config.json", '{"model_type": "florence2", "vision_config": {"patch_stride": [0, 2, 2, 2]}}', "int from 1"),
        ("config.json", '{"model_type": "florence2", "vision_config": {"patch_stride": 32}}', "config.json"),
        ("config.json", '{"model_type": "florence2", "vision_config": [1]}', "config.json"),
        ("preprocessor_config.json", '{"size": {"hei', "not JSON, or cut off"),
        ("preprocessor_config.json", "[]", "JSON object, got list"),
        ("preprocessor_config.json", None, "expected preprocessor_config.json, or a processor_config.json"),
        ("processor_config.json", "7", "JSON object, got int"),
        ("tokenizer.json", '{"model": {"type": "WordLevel", "vocab": {}}}', "byte-level BPE"),
        ("vocab.json", None, "expected tokenizer.json, or vocab.json and merges.txt"),
        ("vocab.json", '["a"]', "JSON object, got list"),
        ("vocab.json", '{"a": "b"}', "byte-level BPE"),
        ("merges.txt", "a b\nno\n", "not a BPE"),
    ],
)
def test_a_broken_folder(name: str, content: str | None, words: str, tmp_path: Path) -> None:
    folder = microsoft(tmp_path)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with pytest.raises(CheckpointError, match=words):
        Processor.from_pretrained(folder)


def test_no_folder_to_save_in(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"photo.jpg: could not be written .*; expected a folder, or none yet"):
        small_processor().save_pretrained(tmp_path / "photo.jpg")

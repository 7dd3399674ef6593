"""The same weights, the same numbers as in transformers: features, logits, losses, gradients, answers to photos."""

from __future__ import annotations

import copy
import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import pytest
import torch
from florence import small_tokens
from parity import Questions, generated, labels, lean, native, padded, pair, randomise
from PIL import Image
from torch import Tensor, nn
from transformers import AutoProcessor, Florence2ForConditionalGeneration
from transformers.initialization import no_init_weights

from florence2.annotate import annotate
from florence2.codec import Annotation
from florence2.config import Florence2Config
from florence2.errors import ImageError, PromptError
from florence2.model import IGNORED, Florence2
from florence2.processor import Processor
from florence2.search import Decoding, search

NANO = Florence2Config.preset("nano")
SPREAD = 2.0  # standard deviation of the logits; they differ by 1e-5 at most, in nano, base and large


def vision(**fields: Any) -> Florence2Config:
    return replace(NANO, vision=replace(NANO.vision, **fields))


def text(**fields: Any) -> Florence2Config:
    return replace(NANO, text=replace(NANO.text, **fields))


def assert_near(ours: Tensor, theirs: Tensor) -> None:
    """Within 1e-4, or that share of the standard deviation where it is above 1."""
    atol = 1e-4 * max(1.0, theirs.std(correction=0).item())
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """By our names. The embedding, which is the head as well, is one parameter in both."""
    found = {name.removeprefix("model."): p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    assert all(gradient is not None for gradient in found.values())
    return found


def assert_gradients_near(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Within 1e-4 of each parameter's largest, or 1e-7. A bias of keys has none but what rounding makes."""
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        largest = gradient.abs().max().item()
        assert largest > 1e-6 or name.endswith("k_proj.bias"), f"{name}: nothing to compare"
        assert (ours[name] - gradient).abs().max().item() <= 1e-4 * largest + 1e-7, name


# --- nano ------------------------------------------------------------------------------------------------------------

CASES = {
    "nano": (NANO, (96, 96)),
    "wide": (NANO, (64, 160)),
    "tall": (NANO, (176, 32)),
    "windows that need padding": (NANO, (80, 112)),
    "odd sides": (NANO, (51, 75)),
    "one token": (NANO, (7, 16)),
    "finer strides": (vision(patch_stride=(2, 2, 2, 2)), (48, 32)),
    "coarser strides": (
        vision(patch_stride=(4, 4, 2, 2), patch_size=(7, 5, 3, 3), patch_padding=(3, 2, 1, 1)),
        (130, 96),
    ),
    "norms elsewhere": (vision(patch_prenorm=(False, False, True, False)), (64, 64)),
    "heads that are not groups": (vision(num_heads=(2, 2, 8, 3), num_groups=(4, 1, 2, 6), mlp_ratio=2.5), (64, 80)),
    "depths": (vision(depths=(2, 1, 1, 2), window_size=5), (96, 80)),
    "no bias of q, k, v": (vision(qkv_bias=False), (64, 64)),
    "scaled embedding": (text(scale_embedding=True), (64, 64)),
    "unlike sides": (
        text(
            encoder_layers=3, decoder_layers=1, encoder_attention_heads=3, decoder_attention_heads=8, encoder_ffn_dim=96
        ),
        (64, 64),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_number(case: str) -> None:
    """From the image to the gradients, with prompts of unequal length in the batch and -100 in the labels."""
    config, size = CASES[case]
    theirs, ours = pair(config, seed=len(case), spread=SPREAD)
    questions, y = Questions.make(len(case), 4, size), labels(len(case), 4, 12)
    inputs = native(questions, theirs)
    seen = theirs.get_image_features(questions.pixels)
    pyramid = ours.encode_image(questions.pixels, pyramid=True)
    assert len(pyramid) == 4
    assert_near(pyramid[-1], seen.last_hidden_state)
    features = ours.encode_image(questions.pixels)
    assert_near(features, seen.pooler_output)
    memory = ours.encode(features, questions.ids, questions.mask)
    output = theirs(**inputs, labels=y)
    real = inputs["attention_mask"].bool()
    assert_near(memory.states[real], output.encoder_last_hidden_state[real])
    logits = ours(questions.pixels, questions.ids, questions.mask, ours.shifted(y))
    assert output.logits.std() > 0.8 * SPREAD
    assert_near(logits, output.logits)
    loss = ours.loss(features, questions.ids, questions.mask, y)
    assert loss.item() == pytest.approx(output.loss.item(), abs=1e-4)
    output.loss.backward()
    loss.backward()
    assert_gradients_near(gradients(ours), gradients(theirs))


def test_one_token_of_an_answer() -> None:
    """Without decoder_input_ids, and without a mask."""
    theirs, ours = pair(NANO, seed=2, spread=SPREAD)
    questions = Questions.make(2, 1)
    with torch.no_grad():
        assert_near(ours(questions.pixels, questions.ids), theirs(**native(questions, theirs)).logits)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training(checkpointing: bool) -> None:
    """In training mode; what is random there (dropout, drop path) has rate 0. Recomputed activations are the same."""
    still: dict[str, Any] = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    config = replace(vision(drop_path_rate=0.0), text=replace(NANO.text, **still))
    theirs, ours = pair(config, seed=3, spread=SPREAD)
    questions, y = Questions.make(3, 2), labels(3, 2, 10)
    try:
        theirs.train()
        ours.train()
        ours.checkpoint_gradients(checkpointing)
        output = theirs(**native(questions, theirs), labels=y)
        loss = ours.loss(ours.encode_image(questions.pixels), questions.ids, questions.mask, y)
    finally:
        output.loss.backward()
        loss.backward()
        theirs.eval()
        ours.eval().checkpoint_gradients(False)
    assert loss.item() == pytest.approx(output.loss.item(), abs=1e-4)
    assert_gradients_near(gradients(ours), gradients(theirs))


def test_rows_that_share_an_image() -> None:
    """`features[image_of_row]`: the gradients are those of the image in every row."""
    theirs, ours = pair(NANO, seed=4, spread=SPREAD)
    questions, y = Questions.make(4, 4), labels(4, 4, 10)
    of_row = torch.tensor([1, 0, 1, 1])
    output = theirs(**native(replace(questions, pixels=questions.pixels[of_row]), theirs), labels=y)
    features = ours.encode_image(questions.pixels[:2])[of_row]
    loss = ours.loss(features, questions.ids, questions.mask, y)
    assert loss.item() == pytest.approx(output.loss.item(), abs=1e-4)
    output.loss.backward()
    loss.backward()
    assert_gradients_near(gradients(ours), gradients(theirs))


@pytest.mark.parametrize("seed", range(4))
def test_log_likelihood(seed: int) -> None:
    """Of each row, minus transformers' loss of this row alone times the labels that count."""
    theirs, ours = pair(NANO, seed, SPREAD)
    questions, y = Questions.make(seed, 5), labels(seed, 5, 14)
    y[3, 4:] = IGNORED
    with torch.no_grad():
        features = ours.encode_image(questions.pixels)
        found = ours.log_likelihood(features, questions.ids, questions.mask, y)
        for row in range(5):
            loss = theirs(**native(questions[[row]], theirs), labels=y[[row]]).loss.item()
            assert found[row].item() == pytest.approx(-loss * (y[row] != IGNORED).sum().item(), rel=1e-5)
        wider = torch.cat([y, torch.full((5, 9), IGNORED)], dim=1)
        torch.testing.assert_close(ours.log_likelihood(features, questions.ids, questions.mask, wider), found)
        assert (
            ours.log_likelihood(features, questions.ids, questions.mask, torch.full((5, 3), IGNORED)).tolist()
            == [0] * 5
        )


def test_any_image_that_the_position_tables_allow() -> None:
    config = vision(max_position_embeddings=5)  # of 16 px
    theirs, ours = pair(config, seed=1, spread=SPREAD)
    for size in [(80, 80), (65, 80), (16, 80), (80, 1), (1, 1), (33, 47)]:
        questions = Questions.make(1, 1, size)
        with torch.no_grad():
            assert_near(ours(questions.pixels, questions.ids), theirs(**native(questions, theirs)).logits)
    for size in [(81, 16), (16, 81)]:
        with pytest.raises(ImageError, match="at most 5 x 5 image tokens"):
            ours.encode_image(torch.zeros(1, 3, *size))
        with pytest.raises(IndexError):
            theirs.get_image_features(torch.zeros(1, 3, *size))


def test_any_text_that_the_position_tables_allow() -> None:
    theirs, ours = pair(text(max_position_embeddings=20), seed=1, spread=SPREAD)
    questions = Questions.make(1, 2, size=(48, 48), longest=10)  # 1 + 9 tokens of the image
    y = labels(1, 2, 20)
    with torch.no_grad():
        logits = ours(questions.pixels, questions.ids, questions.mask, ours.shifted(y))
        assert_near(logits, theirs(**native(questions, theirs), labels=y).logits)
        with pytest.raises(PromptError, match="at most 20 tokens in a sequence, got 21"):
            ours(questions.pixels, questions.ids, questions.mask, torch.ones(2, 21, dtype=torch.long))
        longer = Questions.make(1, 2, size=(48, 48), longest=11)
        with pytest.raises(PromptError, match="at most 20 tokens in a sequence, got 21"):
            ours(longer.pixels, longer.ids, longer.mask)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    """No further from the truth, which is fp32, than transformers is."""
    theirs, ours = (copy.deepcopy(model) for model in pair(NANO, seed=6, spread=SPREAD))
    questions, y = Questions.make(6, 4), labels(6, 4, 12)
    with torch.no_grad():
        inputs = (questions.pixels, questions.ids, questions.mask, ours.shifted(y))
        truth = ours(*inputs)
        found = ours.to(dtype)(*inputs)
        expected = theirs.to(dtype)(
            **native(questions, theirs) | {"pixel_values": questions.pixels.to(dtype)}, labels=y
        )
    assert found.dtype == dtype
    error, other = ((logits.float() - truth).square().mean().sqrt() for logits in (found, expected.logits))
    assert error < 0.05 * SPREAD and error < 1.25 * other


# --- the released sizes ----------------------------------------------------------------------------------------------


class Numbers(NamedTuple):
    logits: Tensor
    loss: float
    gradients: dict[str, Tensor]
    greedy: list[list[int]]
    beams: list[list[int]]


GREEDY, BEAMS = Decoding(num_beams=1, max_new_tokens=6), Decoding(num_beams=3, max_new_tokens=6)


@pytest.mark.parametrize(("name", "backward"), [("base", True), pytest.param("large", False, marks=pytest.mark.slow)])
def test_the_released_sizes(name: Literal["base", "large"], backward: bool) -> None:
    """Saved by us and loaded by transformers, saved by it and loaded by us: one model is in memory at a time.

    Gradients are compared in base alone: those of large are twice 3 GB more, for the same code.
    """
    questions, y = Questions.make(1, 2, size=(64, 96)), labels(1, 2, 8)
    with TemporaryDirectory() as folder:
        with no_init_weights():
            ours = Florence2(Florence2Config.preset(name))
        randomise(ours, seed=1, spread=SPREAD)
        sums = sums_of(ours)
        ours.save_pretrained(folder)
        del ours
        theirs, report = Florence2ForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
        assert not any(report.values()), report
        expected = their_numbers(theirs, questions, y, backward)
        Path(folder, "model.safetensors").unlink()
        theirs.save_pretrained(folder)
        del theirs
        gc.collect()
        ours = Florence2.from_pretrained(folder)
    assert sums_of(ours) == sums
    found = our_numbers(ours, questions, y, backward)
    assert expected.logits.std() > 0.8 * SPREAD
    assert_near(found.logits, expected.logits)
    assert found.loss == pytest.approx(expected.loss, abs=1e-4)
    assert (found.greedy, found.beams) == (expected.greedy, expected.beams)
    assert_gradients_near(found.gradients, expected.gradients)


def sums_of(model: Florence2) -> dict[str, float]:
    return {name: tensor.sum().item() for name, tensor in model.state_dict().items()}


def our_numbers(model: Florence2, questions: Questions, y: Tensor, backward: bool) -> Numbers:
    with torch.set_grad_enabled(backward):
        features = model.encode_image(questions.pixels)
        loss = model.loss(features, questions.ids, questions.mask, y)
    if backward:
        loss.backward()
    with torch.no_grad():
        memory = model.encode(features, questions.ids, questions.mask)
        logits = model.head(model.decode(memory, model.shifted(y)))
        greedy, beams = (padded(search(model, memory, decoding)) for decoding in (GREEDY, BEAMS))
    return Numbers(logits, loss.item(), gradients(model) if backward else {}, greedy, beams)


def their_numbers(model: Any, questions: Questions, y: Tensor, backward: bool) -> Numbers:
    with torch.set_grad_enabled(backward):
        output = model(**native(questions, model), labels=y)
    if backward:
        output.loss.backward()
    greedy, beams = (generated(model, questions, decoding)[0] for decoding in (GREEDY, BEAMS))
    found = gradients(model) if backward else {}
    return Numbers(output.logits.detach(), output.loss.item(), found, greedy, beams)


# --- the whole way ---------------------------------------------------------------------------------------------------

ASKED = {
    "CAPTION": None,
    "OD": None,
    "DENSE_REGION_CAPTION": None,
    "REGION_PROPOSAL": None,
    "OCR_WITH_REGION": None,
    "CAPTION_TO_PHRASE_GROUNDING": "a small dog, a red car",
    "OPEN_VOCABULARY_DETECTION": "a bicycle",
    "REGION_TO_DESCRIPTION": "<loc_52><loc_332><loc_932><loc_774>",
}


def speaking(seed: int) -> Florence2:
    """A nano model that writes plain words and locations, and ends now and then."""
    tokens = small_tokens()
    model = Florence2(NANO.with_vocabulary(tokens.size))
    randomise(model, seed, SPREAD)
    plain = {id for id in range(tokens.size) if tokens.special(id) is None and is_plain(tokens.decode([id]))}
    said = plain | set(range(tokens.loc_start, tokens.loc_start + 1000)) | {tokens.eos}
    lean(model, [id for id in range(model.config.text.vocab_size) if id not in said], -60.0)
    lean(model, [tokens.eos], 4.0)
    return model


def is_plain(text: str) -> bool:
    return text.isascii() and text.replace(" ", "").isalnum()


@pytest.fixture
def photo(photos: Path) -> Image.Image:
    return Image.open(photos / "coffee.png").convert("RGB")


@pytest.mark.parametrize("seed", range(3))
def test_transformers_uses_our_folder_unchanged(seed: int, photo: Image.Image, tmp_path: Path) -> None:
    """From the photo to the boxes: AutoProcessor, generate with the settings saved, post_process_generation."""
    made = speaking(seed)
    made.save_pretrained(tmp_path)
    Processor.for_model(made.config, small_tokens(), size=(96, 128)).save_pretrained(tmp_path)
    native_processor = AutoProcessor.from_pretrained(tmp_path, backend="pil")  # type: ignore[no-untyped-call]
    theirs = Florence2ForConditionalGeneration.from_pretrained(tmp_path)
    model, processor = Florence2.from_pretrained(tmp_path), Processor.from_pretrained(tmp_path)
    tasks = [task if given is None else (task, given) for task, given in ASKED.items()]
    (answers,) = annotate(model, processor, [photo], tasks, max_new_tokens=60)
    for (task, given), answer in zip(ASKED.items(), answers, strict=True):
        inputs = native_processor(text=f"<{task}>{given or ''}", images=photo, return_tensors="pt")
        ids = theirs.generate(**inputs, max_new_tokens=60)[:, 1:]
        assert ids[0].tolist() == list(answer.token_ids)
        assert native_processor.batch_decode(ids)[0] == f"<s>{answer.text}</s>"
    (whole,) = annotate(model, processor, [photo], tasks, max_new_tokens=60, constrained=True)  # else parsers differ
    read = [
        native_processor.post_process_generation(f"<s>{answer.text}</s>", task=f"<{task}>", image_size=photo.size)
        for task, answer in zip(ASKED, whole, strict=True)
    ]
    assert read[0] == {"<CAPTION>": whole[0].text.strip()}
    boxes = 0
    for answer, ((_, found),) in zip(whole, (entry.items() for entry in read), strict=True):
        if "bboxes" in found:
            assert_same_boxes(answer.annotations, found["bboxes"], found.get("bboxes_labels", found.get("labels")))
            boxes += len(found["bboxes"])
    assert boxes >= 20


def assert_same_boxes(ours: Sequence[Annotation], boxes: list[list[int]], labels: list[str]) -> None:
    """transformers truncates to whole pixels, and leaves corners in the order in which they come."""
    assert [annotation.label for annotation in ours] == labels
    for annotation, (x0, y0, x1, y1) in zip(ours, boxes, strict=True):
        assert annotation.box is not None
        truncated = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        assert all(-1e-3 < a - b < 1 for a, b in zip(annotation.box, truncated, strict=True))


# --- CUDA ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda(photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's numbers in fp32; answers in bf16 and fp16."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    model = speaking(0)
    processor = Processor.for_model(model.config, small_tokens(), size=(96, 128))
    questions, y = Questions.make(0), labels(0, 3, 12)
    inputs = (questions.pixels, questions.ids, questions.mask, model.shifted(y))
    options: dict[str, Any] = {"max_new_tokens": 60, "constrained": True}
    with torch.no_grad():
        logits = model(*inputs)
        (expected,) = annotate(model, processor, [photo], ["OD", "CAPTION"], **options)
        model.cuda()
        torch.testing.assert_close(model(*(x.cuda() for x in inputs)).cpu(), logits, atol=1e-3, rtol=0)
    (found,) = annotate(model, processor, [photo], ["OD", "CAPTION"], **options)
    for answer, other in zip(found, expected, strict=True):
        assert answer.score == pytest.approx(other.score, rel=1e-2)  # two that are as likely may change places
    for dtype in (torch.bfloat16, torch.float16):
        for answer in annotate(model.to(dtype), processor, [photo], ["OD", "CAPTION"], **options)[0]:
            assert 0 < answer.score <= 1 and answer.token_ids[-1] == small_tokens().eos

"""The tokens: published ids, transformers' ids, and texts that come back as they were."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from florence import SENTENCES, bart_sized_tokens, bart_vocabulary, small_tokens
from hypothesis import given
from hypothesis import strategies as st

from florence2.errors import CheckpointError, ConfigError, PromptError
from florence2.tasks import Task
from florence2.tokens import CONTROL, SPECIALS, TOO_FEW, Tokens

unicode = st.text(st.characters(codec="utf-8"), max_size=40)
literal = st.sampled_from([*sorted(CONTROL), "<loc_5>", "<and>", "</poly>", "<loc_", "<", ">", " ", "\n", "a"])
hostile = st.lists(literal | unicode, max_size=8).map("".join)
structure = st.lists(st.sampled_from(SPECIALS) | unicode.filter(lambda text: "<" not in text), max_size=8)


def microsoft(folder: Path) -> Path:
    """A tokenizer.json as in Microsoft's repositories: BART's entries alone, merges as strings, and no type."""
    data = json.loads(bart_sized_tokens().to_json())
    data["added_tokens"] = [entry for entry in data["added_tokens"] if entry["content"] in CONTROL]
    data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
    del data["model"]["type"]
    assert len(data["model"]["vocab"]) == 50265
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def reference() -> Any:
    """transformers' tokenizer with BART's entries and the specials that Microsoft's processor adds, as it adds them."""
    from transformers import BartTokenizer

    vocab, merges = bart_vocabulary()
    tokenizer = BartTokenizer(vocab=dict(vocab), merges=list(merges))
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIALS)})
    return tokenizer


def test_published_ids(tmp_path: Path) -> None:
    published = {"<od>": 50265, "</ocr>": 50268, "<loc_0>": 50269, "<loc_999>": 51268, "<cap>": 51269, "</cap>": 51270}
    published |= {"<grounding>": 51275, "<seg>": 51277, "<sep>": 51279, "<region_cap>": 51280}
    published |= {"<region_to_desciption>": 51282, "<proposal>": 51284, "<poly>": 51286, "</poly>": 51287}
    published |= {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 50264, "<and>": 51288}
    for tokens in (bart_sized_tokens(), Tokens.from_file(microsoft(tmp_path))):
        assert {name: tokens.id(name) for name in published} == published
        assert (tokens.bos, tokens.pad, tokens.eos, tokens.loc_start, tokens.size) == (0, 1, 2, 50269, 51289)
        assert tokens.image is None
        assert [tokens.special(50265 + n) for n in range(1024)] == list(SPECIALS)
        assert (tokens.special(0), tokens.special(100), tokens.special(60_000)) == ("<s>", None, None)
    native = bart_sized_tokens().with_image()
    assert (native.image, native.size, native.with_image()) == (51289, 51290, native)


@pytest.mark.parametrize("task", Task)
def test_every_task_as_in_transformers(task: Task, reference: Any) -> None:
    for input in ("<loc_1><loc_22><loc_333><loc_999>", "a red car", "un café<and>犬", "  two  spaces \n"):
        text = task.sentence.replace("{input}", input)
        ids = reference(f"<s>{text}</s>", add_special_tokens=False)["input_ids"]
        assert bart_sized_tokens().sentence(text) == ids
        assert bart_sized_tokens().raw(ids) == reference.decode(ids, clean_up_tokenization_spaces=False)


@given(structure)
def test_structure_as_in_transformers(reference: Any, parts: list[str]) -> None:
    text = "".join(parts)
    assert bart_sized_tokens().encode(text) == reference(text, add_special_tokens=False)["input_ids"]


@given(hostile)
def test_any_text_comes_back(text: str) -> None:
    for tokens in (small_tokens(), bart_sized_tokens()):
        plain = tokens.encode_plain(text)
        assert tokens.decode(plain) == text
        assert not any(tokens.special(id) for id in plain)
        ids = tokens.encode(text)
        assert tokens.raw(ids) == text
        assert {tokens.special(id) for id in ids}.isdisjoint(CONTROL)
        assert tokens.sentence(text) == [tokens.bos, *ids, tokens.eos]


def test_specials_are_no_text() -> None:
    tokens = small_tokens()
    ids = [tokens.bos, *tokens.encode("a dog<loc_1><loc_2>, a cat"), tokens.eos, tokens.pad, tokens.size, 10**9]
    assert tokens.decode(ids) == "a dog, a cat"
    assert tokens.raw(ids) == "<s>a dog<loc_1><loc_2>, a cat</s><pad>"
    assert tokens.encode("<loc_7>") == [tokens.loc_start + 7] == [tokens.id("<loc_7>")]
    assert len(tokens.encode_plain("<loc_7>")) > 1
    assert tokens.decode(tokens.encode("犬")[:-1]) == "\ufffd"  # a part of a character


@pytest.mark.parametrize("text", ["half \ud83d a pair", None, 7, ["a"]])
def test_what_is_no_text(text: Any) -> None:
    with pytest.raises(PromptError, match="UTF-8"):
        small_tokens().encode(text)


def test_training() -> None:
    tokens, again = (Tokens.train(iter(SENTENCES), 1500) for _ in range(2))
    assert tokens.to_json() == again.to_json() == small_tokens().to_json()
    assert (tokens.size, tokens.id("<mask>"), tokens.id("<od>"), tokens.id("<and>")) == (1500, 475, 476, 1499)
    assert (tokens.bos, tokens.pad, tokens.eos, tokens.id("<unk>")) == (0, 1, 2, 3)
    assert len(tokens.encode("What does the image describe?")) < 10
    assert Tokens.train([], TOO_FEW + 500).size == TOO_FEW == 1024 + 256 + 5
    assert Tokens.train(["<s></s><loc_1>"] * 9, TOO_FEW + 9).encode_plain("<s>") != [0]
    with pytest.raises(ConfigError, match="at least 1285"):
        Tokens.train(SENTENCES, TOO_FEW - 1)


@pytest.mark.parametrize("texts", ["one long text", "corpus.txt", Path("corpus.txt"), None])
def test_no_list_of_texts_to_train_on(texts: Any) -> None:
    with pytest.raises(ConfigError, match=r"expected a list of texts, as in train\(\[text, text\], 1500\); got "):
        Tokens.train(texts, 1500)


@pytest.mark.parametrize("text", ["half \ud83d a pair", None, 7, b"bytes", ["a"]])
def test_no_text_to_train_on(text: Any) -> None:
    with pytest.raises(ConfigError, match="expected texts that have a UTF-8 form; got "):
        Tokens.train(iter(["a cat", text]), 1500)


def test_files(tmp_path: Path) -> None:
    tokens = small_tokens()
    (tmp_path / "tokenizer.json").write_text(tokens.to_json(), encoding="utf-8")
    data = json.loads(tokens.to_json())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(data["vocab"]), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in data["merges"]), ""]
    (tmp_path / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    again = [
        Tokens.from_file(tmp_path / "tokenizer.json"),
        Tokens.from_vocabulary(tmp_path / "vocab.json", tmp_path / "merges.txt"),
        pickle.loads(pickle.dumps(tokens)),
    ]
    for other in again:
        assert other.to_json() == tokens.to_json()
        assert other.encode("</s>un café<loc_5>") == tokens.encode("</s>un café<loc_5>")


def test_settings_of_a_file_that_would_change_the_ids(tmp_path: Path) -> None:
    data = json.loads(small_tokens().to_json())
    data["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    data["padding"] = {"strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": None}
    data["padding"] |= {"pad_id": 1, "pad_type_id": 0, "pad_token": "<pad>"}
    data["normalizer"] = {"type": "Lowercase"}
    data["pre_tokenizer"]["add_prefix_space"] = True
    tokens = Tokens.from_json(json.dumps(data))
    assert tokens.encode("The Image, at length") == small_tokens().encode("The Image, at length")


def test_tokens_that_a_fine_tuned_checkpoint_added() -> None:
    data = json.loads(small_tokens().with_image().to_json())
    data["added_tokens"].append(dict(data["added_tokens"][-1], id=1501, content="[CHART]", special=False))
    tokens = Tokens.from_json(json.dumps(data))
    assert (tokens.encode("[CHART]"), tokens.special(1501), tokens.size) == ([1501], "[CHART]", 1502)
    assert json.loads(tokens.to_json())["added_tokens"] == data["added_tokens"]


def changed(**changes: Any) -> str:
    return json.dumps(json.loads(small_tokens().to_json()) | changes)


def model(**changes: Any) -> str:
    return changed(model=json.loads(small_tokens().to_json())["model"] | changes)


def ids(change: Any) -> str:
    vocab = json.loads(small_tokens().to_json())["model"]["vocab"]
    return model(vocab={token: change(id) for token, id in vocab.items()})


def added(change: Any) -> str:
    entries = json.loads(small_tokens().to_json())["added_tokens"]
    return changed(added_tokens=change(entries))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON, or cut off"),
        (small_tokens().to_json()[:5000], "not JSON, or cut off"),
        ("[" * 100_000, "not JSON, or cut off"),
        ("[]", "JSON object, got list"),
        ("{}", "byte-level BPE"),
        (changed(model=None), "byte-level BPE"),
        (changed(model={"type": "Unigram", "unk_id": 0, "vocab": [["a", -1.0]]}), "byte-level BPE"),
        (changed(model={"type": "WordPiece", "vocab": {"a": 0}}), "byte-level BPE"),
        (changed(model={"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}), "lacks 257 of them"),
        (ids(lambda id: id + 1), "ids 0 to"),
        (ids(str), "ids 0 to"),
        (ids(lambda id: [id]), "can't be"),
        (model(merges=["a"]), "can't be read"),
        (model(merges=[["no", "such"]]), "not a BPE"),
        (model(merges=[[1, 2]]), "not a BPE"),
        (model(merges=[7]), "can't be read"),
        (changed(added_tokens=7), "can't be read"),
        (changed(added_tokens=["<s>"]), "can't be read"),
        (added(lambda entries: entries[:400] + entries[401:]), "in a row"),
        (added(lambda entries: [dict(e, id=e["id"] + (e["id"] > 475)) for e in entries]), "in a row; <od>"),
        (added(lambda entries: [dict(e, content="") for e in entries]), "can't"),
    ],
)
def test_files_that_will_not_do(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=words) as caught:
        Tokens.from_file(path)
    assert str(path) in str(caught.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe{}")
    for path in (tmp_path, tmp_path / "none.json", tmp_path / "tokenizer.json"):
        with pytest.raises(CheckpointError, match="can't be read"):
            Tokens.from_file(path)

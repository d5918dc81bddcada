"""The text side of a frame embedder without open_clip: the same tokens and the same numbers."""

import json
from pathlib import Path

import encoders.models.torchvision_ops  # noqa: F401

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.errors import UserError
from encoders.models.clip import ClipEncoder
from encoders.models.clip_text.text_tower import TextTower
from encoders.models.clip_text.tokenizer import ClipTokenizer
from pipeline.config.task_settings import WEIGHTS

import open_clip  # isort: skip

FOLDER = WEIGHTS / "clip"
WORDS = (
    "a red star what is the code on card 4821 12345 unbelievably café naïve straße İstanbul ﬁne "
    "it's DON'T “quoted” &amp; &amp;lt; <end_of_text> <START_OF_TEXT> 日本語 😀 x\x00y \ufeff ´ _ "
    "-- ... \x1b[31m r\u0301esum\u00e9 Ã© ½ ² ٣ ' '' 'll's"
).split(" ")
SENTENCES = st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join)


@pytest.fixture(scope="module")
def tower() -> TextTower:
    tower = TextTower.of(FOLDER)
    assert tower is not None
    return tower


@pytest.fixture(scope="module")
def whole():
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{FOLDER}")
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def tokenizers():
    return ClipTokenizer(40), open_clip.get_tokenizer(f"local-dir:{FOLDER}")


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), SENTENCES))
def test_tokens_are_those_of_open_clip(tokenizers, text):
    ours, theirs = tokenizers
    assert torch.equal(ours([text]), theirs([text]))


@settings(max_examples=60, deadline=None)
@given(st.lists(SENTENCES, min_size=1, max_size=9))
def test_rows_are_those_of_open_clip_to_the_last_bit(tower, whole, tokenizers, texts):
    with torch.inference_mode():
        expected = whole.encode_text(tokenizers[1](texts))
    assert torch.equal(tower.embed(texts), expected)


def test_an_embedder_reads_texts_before_it_loads_the_rest(whole, tokenizers):
    embedder = ClipEncoder(f"local-dir:{FOLDER}")
    row = embedder.embed_text("a red star")
    assert embedder._loaded is None
    with torch.inference_mode():
        expected = whole.encode_text(tokenizers[1](["a red star"]))
    assert torch.equal(row, torch.nn.functional.normalize(expected, dim=-1)[0])
    assert embedder.clip is embedder.clip and embedder._loaded is not None


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ("model_cfg", "quick_gelu", True),
        ("model_cfg", "custom_text", True),
        ("text_cfg", "no_causal_mask", True),
        ("text_cfg", "hf_model_name", "bert"),
        ("text_cfg", "width", 128),  # not that of the weights
    ],
)
def test_what_is_no_plain_model_is_left_to_open_clip(tmp_path, place, key, value):
    copied = copy(tmp_path)
    config = json.loads((copied / "open_clip_config.json").read_text())
    model = config["model_cfg"]
    (model if place == "model_cfg" else model["text_cfg"])[key] = value
    (copied / "open_clip_config.json").write_text(json.dumps(config))
    assert TextTower.of(copied) is None


def test_damaged_weights_are_refused_at_once(tmp_path):
    copied = copy(tmp_path)
    weights = copied / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"open_clip cannot load clip\.model=local-dir:"):
        ClipEncoder(f"local-dir:{copied}")


def copy(folder: Path) -> Path:
    for file in FOLDER.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder

"""Positions closer together: every way against transformers' own rotary embedding and passes.

Tiny random text models; frames are tokens like others. A test runs over every YAML of
conf/position/.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import encoders.models.torchvision_ops  # noqa: F401

import pytest
import torch
import yaml

from encoders.errors import UserError
from encoders.models.language_model import LanguageModel, scaled_model
from encoders.models.position.rotary_scaling import (
    LinearScaling,
    NoScaling,
    RotaryScaling,
    VectorScaling,
    YarnScaling,
)
from encoders.models.positions import Cursor
from encoders.schema import FrameEmbeds, KVBlock
from pipeline.config.parts import instantiate
from tests.support.paths import ROOT
from tests.support.rotary_models import MODELS, SMALL, language_model, wrapped

import transformers as T  # isort: skip

YAMLS = sorted((ROOT / "conf/position").glob("*.yaml"), key=lambda path: path.stem)
YAMLS = [path for path in YAMLS if path.stem != "dual_chunk"]  # see test_dual_chunk.py
LEAD, FRAMES, TAIL = list(range(5, 9)), list(range(10, 34)), list(range(36, 44))
PARTIAL = YarnScaling(4.0, positions=128, frames_only=True)


def part(path: Path) -> RotaryScaling:
    made: RotaryScaling = instantiate("position", yaml.safe_load(path.read_text()))
    return made


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_every_way_scales_by_one_or_more_and_one_changes_nothing(path):
    way = part(path)
    frequencies = 1e4 ** -(torch.arange(0, 16, 2) / 16)
    factors = way.factors(frequencies, 512)
    assert factors.shape == (8,) and bool((factors >= 1).all())
    assert factors.max() <= way.reach and way.is_identity == (path.stem == "none")
    one = {"per_pair": [1.0]} if isinstance(way, VectorScaling) else {"factor": 1.0}
    same = way if isinstance(way, NoScaling) else replace(way, **one)
    model = language_model("llama")
    assert same.is_identity and scaled_model(model, same) is model  # so every number is the same
    assert torch.equal(same.factors(frequencies, 512), torch.ones(8))


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_it_equals_the_librarys_own_scaling(kind):
    """The same weights, with the scaling in the checkpoint's configuration."""
    rope = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0}
    rope |= {"original_max_position_embeddings": 128} if kind == "yarn" else {}
    theirs = wrapped(T.LlamaConfig(**SMALL, rope_parameters=rope), T.LlamaModel, 1, torch.float32)
    ways = {"linear": LinearScaling(4.0), "yarn": YarnScaling(4.0, positions=128)}
    ours = scaled_model(language_model("llama"), ways[kind])
    both = [each.forward(each.embed(FRAMES), each.cache(64)) for each in (theirs, ours)]
    plain = language_model("llama")
    assert torch.allclose(*both, atol=1e-5)
    assert not torch.allclose(
        plain.forward(plain.embed(FRAMES), plain.cache(64)), both[0], atol=1e-2
    )


def in_one_pass(model: LanguageModel) -> torch.Tensor:
    """[n, D] of the tail behind text and frames."""
    cache = model.cache(64)
    for ids, frames in ((LEAD, False), (FRAMES, True)):
        model.forward(as_frames(model, ids) if frames else model.embed(ids), cache)
    return model.forward(model.embed(TAIL), cache)


def as_frames(model: LanguageModel, ids: list[int]) -> FrameEmbeds:
    """Frames of eight tokens, the last one a text token."""
    offsets = torch.arange(0, len(ids) + 1, 8)
    rows = torch.tensor([[0, i // 3, i % 3] for i in range(7)] + [[3, 3, 3]], dtype=torch.int32)
    pos = rows.repeat(len(ids) // 8, 1) if model.positions.axes == 3 else None
    return FrameEmbeds(model.embed(ids), offsets, torch.ones(len(ids), dtype=torch.bool), pos)


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize(
    "way", [LinearScaling(2.0, attention_factor=1.1), PARTIAL], ids=["all", "frames"]
)
def test_stored_frames_read_as_one_pass_in_every_family(name, way):
    """Keys are stored without a position, by a prefill that stands otherwise than the reader."""
    model = language_model(name)
    reader = scaled_model(model, way)
    frames, cache = as_frames(model, FRAMES), reader.cache(64)
    reader.forward(reader.embed(LEAD), cache)
    before = cache.cursor
    reader.forward(frames, cache)
    positions, _ = reader.positions.of_frames(frames.pos, frames.offsets, before)
    table = reader.rope(positions, before.text)
    keys, values = cache.stored(len(LEAD), table, torch.float32)
    again = reader.cache(64)
    reader.forward(reader.embed(LEAD), again)
    reader.append_block(KVBlock(keys, values, frames.offsets, frames.pos), again)
    got = reader.forward(reader.embed(TAIL), again)
    assert torch.allclose(got, in_one_pass(reader), atol=1e-4)
    assert not torch.allclose(got, in_one_pass(model), atol=1e-2)


def test_frames_only_stands_where_half_positions_are():
    """The library's own pass at positions of which a half is one of a frame's."""
    model = language_model("llama")
    scaled = scaled_model(model, LinearScaling(2.0, frames_only=True))
    ids, steps = [*LEAD, *FRAMES, *TAIL], [1.0] * 4 + [0.5] * 24 + [1.0] * 8
    places = torch.tensor([0.0, *steps]).cumsum(0)[:-1]
    decoder: Any = model._decoder
    with torch.inference_mode():
        theirs = decoder(
            inputs_embeds=model.embed(ids)[None],
            position_ids=places[None],
            # without a cache, transformers takes steps other than 1 for the ends of sequences
            past_key_values=model.cache(64),
            masks={},
        ).last_hidden_state[0]
    assert torch.allclose(in_one_pass(scaled), theirs[-8:], atol=1e-5)


def test_text_alone_is_as_it_was_and_the_model_beside_it_too():
    model = language_model("qwen2.5-vl")
    before = model.forward(model.embed(TAIL), model.cache(64))
    scaled = scaled_model(model, PARTIAL)
    assert torch.equal(scaled.forward(scaled.embed(TAIL), scaled.cache(64)), before)
    in_one_pass(scaled)
    assert torch.equal(model.forward(model.embed(TAIL), model.cache(64)), before)


def test_a_scaled_model_reaches_further():
    model = language_model("llama")
    model.max_positions = 30  # 36 tokens, 24 of them of frames
    with pytest.raises(UserError, match="36 positions is longer"):
        in_one_pass(model)
    for way in (LinearScaling(1.5), LinearScaling(2.0, frames_only=True), YarnScaling(2.0)):
        assert in_one_pass(scaled_model(model, way)).isfinite().all()
    for way, left in ((None, 25), (LinearScaling(2.0), 55), (PARTIAL, 25)):  # 5 are text
        scaled = scaled_model(model, way)
        cache = scaled.cache(8)
        scaled.forward(scaled.embed(LEAD[:1] * 5), cache)
        # of linear positions, half of five are rounded up
        assert scaled.positions_left(cache.cursor) in (left, left - 1)
    partial = scaled_model(model, PARTIAL)  # 25 positions behind five of text, at a quarter each
    assert partial.positions_left(Cursor(5, 4, text=5), of_frames=True) == 100
    with pytest.raises(UserError, match="32 positions is longer"):
        in_one_pass(scaled_model(model, LinearScaling(1.125)))


@pytest.mark.parametrize(
    ("way", "says"),
    [
        (lambda: LinearScaling(0.5), r"position\.factor=0\.5 must be a number from 1 on"),
        (lambda: VectorScaling((2.0, math.nan)), "per_pair=nan"),
        (lambda: VectorScaling(()), "per_pair= is empty"),
        (lambda: YarnScaling(beta_fast=1.0), "beta_slow=1 must be"),
        (lambda: YarnScaling().factors(torch.ones(8), None), "positions= is needed"),
        (
            lambda: scaled_model(language_model("llama"), VectorScaling((1.0, 2.0))),
            "2 factors, but .* 8 pairs",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(way, says):
    with pytest.raises(UserError, match=says):
        way()

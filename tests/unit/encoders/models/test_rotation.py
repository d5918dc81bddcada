"""Keys before rotary embedding, for every way in which a family rotates them.

Tiny random text models of transformers. A context that is stored and laid out a hundred positions
further reads as the library's own pass over it: rotation is relative, so only a wrong one shows.
"""

from types import SimpleNamespace
from typing import Any

import encoders.models.torchvision_ops  # noqa: F401

import pytest
import torch

from encoders.errors import UserError
from encoders.models import kv_cache
from encoders.models.kv_cache import FixedCache, RotaryForm, RotaryTable
from encoders.models.language_model import LanguageModel
from encoders.models.positions import Cursor
from encoders.models.video_llm import require_full_attention
from encoders.schema import KVBlock
from tests.support.rotary_models import MODELS, SMALL, language_model, wrapped

import transformers as T  # isort: skip

CONTEXT, TAIL = list(range(10, 30)), list(range(30, 38))


def moved_by(model: LanguageModel, positions: int) -> torch.Tensor:
    """[n, D] hidden states of TAIL behind CONTEXT, which is stored and laid out further on."""
    cache = model.cache(64)
    model.forward(model.embed(CONTEXT), cache)
    places, _ = model.positions.of_text(len(CONTEXT), Cursor())
    keys, values = cache.stored(0, model.rope(places), torch.float32)
    pos = None if model.positions.axes == 1 else places.T.int()
    block = KVBlock(keys, values, torch.tensor([0, len(CONTEXT)]), pos)
    again = model.cache(64)
    again.cursor = Cursor(positions, positions - 1)
    model.append_block(block, again)
    return model.forward(model.embed(TAIL), again)


def plain(model: LanguageModel) -> torch.Tensor:
    """[n, D] of TAIL by one pass of the library's model without a cache."""
    with torch.inference_mode():
        embeds = model.embed(CONTEXT + TAIL)[None]
        out: Any = model._decoder(inputs_embeds=embeds, use_cache=False)
    hidden: torch.Tensor = out.last_hidden_state[0, len(CONTEXT) :]
    return hidden


@pytest.mark.parametrize("name", MODELS)
def test_a_stored_context_reads_as_the_librarys_pass_wherever_it_stands(name):
    model = language_model(name)
    assert model.rotary_form is MODELS[name][2]
    expected, found = plain(model), moved_by(model, 100)
    assert expected.std() > 0.3
    assert torch.allclose(found, expected, atol=1e-4), (found - expected).abs().max()


def test_the_wrong_form_gives_wrong_answers_without_an_error():
    """What the probe is for."""
    model = language_model("glm-4v, interleaved")
    expected = plain(model)
    vars(model)["rotary_form"] = RotaryForm.HALVES
    assert (moved_by(model, 100) - expected).abs().max() > 0.1


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_form_is_found_in_half_precision(name, dtype):
    assert language_model(name, dtype).rotary_form is MODELS[name][2]


def test_layers_without_rotation_are_refused_as_keys_and_values():
    """Every second layer of this model has no positions, so its keys must not be rotated."""
    config = T.SmolLM3Config(**SMALL, no_rope_layers=[1, 0, 1], use_sliding_window=False)
    model = wrapped(config, T.SmolLM3Model, 1, torch.float32)
    assert model.other_layers == "" and model.rotary_form is None
    backbone: Any = SimpleNamespace(language_model=model, path="toy", has_weights=True)
    with pytest.raises(UserError, match=r"rotates its keys .*reader=tokens prefill=none"):
        require_full_attention(backbone)


@pytest.mark.parametrize("form", RotaryForm)
@pytest.mark.parametrize("width", [6, 8])
def test_unrotate_is_the_inverse_of_rotate(form, width):
    x = torch.randn(2, 3, 5, 8)
    angles = torch.randn(5, width // 2)
    angles = (
        angles.repeat_interleave(2, -1) if form is RotaryForm.INTERLEAVED else angles.repeat(1, 2)
    )
    table = RotaryTable.of(1.3 * angles.cos(), 1.3 * angles.sin(), form)  # with a scaling, as YaRN
    turned = table.rotate(x)
    assert torch.allclose(table.unrotate(turned), x, atol=1e-5)
    assert torch.equal(turned[..., width:], x[..., width:])
    assert torch.allclose(turned[..., :width].norm(dim=-1), 1.3 * x[..., :width].norm(dim=-1))
    into = torch.zeros(2, 3, 9, 8)
    table.rotate(x, out=into[:, :, 2:7])
    assert torch.equal(into[:, :, 2:7], turned) and not into[:, :, :2].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_few_layers_at_a_time_give_the_same_bits(dtype, monkeypatch):
    """All layers of a large model at once would take gigabytes of float32."""
    keys, values = torch.randn(2, 5, 2, 9, 8).to(dtype)  # [L, H, M, Dh] each
    angles = torch.randn(9, 4).repeat(1, 2)
    table = RotaryTable.of(angles.cos(), angles.sin(), RotaryForm.HALVES)
    turn, sizes = RotaryTable._turn, []

    def noted(self: RotaryTable, x: torch.Tensor, *others: Any) -> torch.Tensor:
        sizes.append(x.numel())
        return turn(self, x, *others)

    monkeypatch.setattr(RotaryTable, "_turn", noted)

    def laid_out() -> tuple[torch.Tensor, ...]:
        sizes.clear()
        cache = FixedCache.empty(5, 2, 12, 8, dtype, torch.device("cpu"))
        cache.append(keys, values, table)
        return cache.keys[..., :9, :], cache.values[..., :9, :], *cache.stored(0, table, dtype)

    at_once = laid_out()
    assert max(sizes) == keys.numel()
    monkeypatch.setattr(kv_cache, "_ROTATED", 2 * keys[0].numel())
    in_groups = laid_out()
    assert sizes == [n * keys[0].numel() for n in (2, 2, 1)] * 2
    assert all(torch.equal(one, other) for one, other in zip(at_once, in_groups, strict=True))

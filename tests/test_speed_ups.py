"""What was made faster gives what it gave before: attention with grouped heads, open_clip's images, pixels."""

import numpy as np
import pytest
import torch

from encoders.attention import _attend
from encoders.clip import ClipEncoder
from encoders.errors import UserError
from encoders.schema import Frames
from pipeline.settings import WEIGHTS

from transformers.integrations.sdpa_attention import sdpa_attention_forward  # isort: skip

CLIP = f"local-dir:{WEIGHTS / 'clip'}"


class _Layer:
    def __init__(self, groups: int) -> None:
        self.num_key_value_groups, self.is_causal = groups, True


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 2), (14, 2), (3, 3)])
@pytest.mark.parametrize(("batch", "new", "held"), [(1, 9, 40), (1, 1, 40), (3, 5, 30), (1, 300, 600)])
def test_attention_is_the_librarys(dtype, heads, kv_heads, batch, new, held):
    """Also behind a mask too large to be written out for every head of a group (14 x 300 x 900 entries)."""
    generator = torch.Generator().manual_seed(new)
    query = torch.randn((batch, new, heads, 16), generator=generator).to(dtype).transpose(1, 2)
    key, value = (torch.randn((batch, kv_heads, held + new, 16), generator=generator).to(dtype) for _ in range(2))
    mask = torch.ones((batch, 1, new, held + new), dtype=torch.bool).tril(held)
    mask[-1, :, :, 3:7] = False  # padding of one row
    layer = _Layer(heads // kv_heads)
    wanted, _ = sdpa_attention_forward(layer, query, key, value, mask, scaling=0.25)
    masks: dict[int, torch.Tensor] = {}
    for _ in range(2):  # the second layer finds the mask made
        found, _ = _attend(layer, query, key, value, mask, scaling=0.25, masks=masks)
        assert found.shape == wanted.shape == (batch, new, heads, 16)
        torch.testing.assert_close(found, wanted, atol=1e-6 if dtype == torch.float32 else 1e-2, rtol=0)
    assert len(masks) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_of_one_token_without_a_mask_is_the_librarys(dtype):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn((1, 4, 1, 64), generator=generator).to(dtype)
    key, value = (torch.randn((1, 2, 900, 64), generator=generator).to(dtype)[:, :, :700] for _ in range(2))
    wanted, _ = sdpa_attention_forward(_Layer(2), query, key, value, None, scaling=0.125)
    found, _ = _attend(_Layer(2), query, key, value, None, scaling=0.125)
    torch.testing.assert_close(found, wanted, atol=1e-6 if dtype == torch.float32 else 1e-2, rtol=0)


@pytest.mark.parametrize(("scores", "rows"), [(1 << 14, 256), (1 << 18, 7), (3 << 20, 256)])
@pytest.mark.parametrize(("heads", "kv_heads", "new", "held"), [(14, 2, 90, 300), (4, 4, 65, 0), (3, 3, 64, 0)])
def test_blocks_of_any_size_are_the_whole(monkeypatch, heads, kv_heads, new, held, scores, rows):
    """Key heads together, one at a time, some of their queries; what a query does not see is not even touched by NaN."""
    generator = torch.Generator().manual_seed(new)
    query = torch.randn((2, heads, new, 16), generator=generator).bfloat16()
    key, value = (torch.randn((2, kv_heads, held + new + 50, 16), generator=generator).bfloat16() for _ in range(2))
    key[:, :, held + new :], value[:, :, held + new :] = torch.nan, torch.nan  # the cache's room for more
    key, value = key[:, :, : held + new], value[:, :, : held + new]
    mask = torch.ones((2, 1, new, held + new), dtype=torch.bool).tril(held) if held else None
    layer = _Layer(heads // kv_heads)
    layer.is_causal = False
    wanted, _ = sdpa_attention_forward(layer, query, key, value, mask, scaling=0.25)
    monkeypatch.setattr("encoders.attention._SCORES", scores)
    monkeypatch.setattr("encoders.attention._ROWS", rows)
    found, _ = _attend(layer, query, key, value, mask, scaling=0.25)
    torch.testing.assert_close(found, wanted, atol=1e-2, rtol=0)


@pytest.mark.parametrize("width", [1, 31, 32, 33, 707, 736, 4096, 7200])
def test_softmax_may_write_where_it_reads(width):
    """Blocks of scores rely on it; torch promises it nowhere."""
    scores = torch.randn((70, width), generator=torch.Generator().manual_seed(width)).bfloat16() * 9
    scores[:, width // 2 + 1 :] = -torch.inf
    wanted = torch.softmax(scores, -1)
    torch.softmax(scores, -1, out=scores)
    assert torch.equal(scores, wanted)


def test_images_in_either_layout_embed_alike():
    frames = Frames("v", np.random.default_rng(0).integers(0, 256, (5, 96, 96, 3), dtype=np.uint8), np.arange(5.0))
    clip = ClipEncoder(CLIP)
    stack = clip.clip.visual.transformer
    assert not stack.batch_first  # the shipped model has three heads
    found = clip.embed_frames(frames)
    for layer in (stack, *(block.attn for block in stack.resblocks)):
        layer.batch_first = True
    torch.testing.assert_close(found, clip.embed_frames(frames), atol=1e-6, rtol=0)


def test_bfloat16_embeds_nearly_alike_and_is_another_model_to_a_bank():
    frames = Frames("v", np.random.default_rng(0).integers(0, 256, (5, 96, 96, 3), dtype=np.uint8), np.arange(5.0))
    exact, half = ClipEncoder(CLIP), ClipEncoder(CLIP, dtype="bfloat16")
    for a, b in (
        (exact.embed_frames(frames), half.embed_frames(frames)),
        (exact.embed_texts(["a red star"]), half.embed_texts(["a red star"])),
    ):
        assert b.dtype == torch.float32
        torch.testing.assert_close(b.norm(dim=-1), torch.ones(len(b)))
        assert (a * b).sum(-1).min() > 0.999
    assert half.fingerprint() == f"{exact.fingerprint()}-bfloat16"


def test_unknown_clip_dtype_is_one_sentence():
    with pytest.raises(UserError, match=r"clip\.dtype=int3 is not known; use one of float32, bfloat16"):
        ClipEncoder(CLIP, dtype="int3")

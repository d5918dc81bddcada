"""Faster paths give the same results as the plain ones.

They are attention in blocks and with grouped heads, open_clip's images, traced graphs, products
with their GELU, and memory that is reused.
"""

import platform
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from encoders.errors import UserError
from encoders.models.acceleration.jit_trace import JitTrace
from encoders.models.acceleration.onednn_linear import (
    PackedLinear,
    SigmoidGELU,
    _supported,
    count_weights,
    pack,
)
from encoders.models.attention import _attend
from encoders.models.clip import ClipEncoder
from encoders.models.families.llava_onevision import LlavaOneVision
from encoders.models.kv_cache import join_blocks
from encoders.schema import Frames, KVBlock
from pipeline.config.task_settings import WEIGHTS
from tests.support.toys import toy_backbone

from transformers import SiglipVisionConfig, SiglipVisionModel  # isort: skip
from transformers.integrations.sdpa_attention import sdpa_attention_forward  # isort: skip

CLIP = f"local-dir:{WEIGHTS / 'clip'}"


class _Layer:
    def __init__(self, groups: int) -> None:
        self.num_key_value_groups, self.is_causal = groups, True


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 2), (14, 2), (3, 3)])
@pytest.mark.parametrize(
    ("batch", "new", "held"), [(1, 9, 40), (1, 1, 40), (3, 5, 30), (1, 300, 600)]
)
def test_attention_is_the_librarys(dtype, heads, kv_heads, batch, new, held):
    """This also holds behind a mask too large to be copied for every head of a group (14 x 300 x
    900 entries).
    """
    generator = torch.Generator().manual_seed(new)
    query = torch.randn((batch, new, heads, 16), generator=generator).to(dtype).transpose(1, 2)
    key, value = (
        torch.randn((batch, kv_heads, held + new, 16), generator=generator).to(dtype)
        for _ in range(2)
    )
    mask = torch.ones((batch, 1, new, held + new), dtype=torch.bool).tril(held)
    mask[-1, :, :, 3:7] = False  # padding of one row
    layer = _Layer(heads // kv_heads)
    wanted, _ = sdpa_attention_forward(layer, query, key, value, mask, scaling=0.25)
    masks: dict[int, torch.Tensor] = {}
    for _ in range(2):  # the second layer finds the mask made
        found, _ = _attend(layer, query, key, value, mask, scaling=0.25, masks=masks)
        assert found.shape == wanted.shape == (batch, new, heads, 16)
        torch.testing.assert_close(
            found, wanted, atol=1e-6 if dtype == torch.float32 else 1e-2, rtol=0
        )
    assert len(masks) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_of_one_token_without_a_mask_is_the_librarys(dtype):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn((1, 4, 1, 64), generator=generator).to(dtype)
    key, value = (
        torch.randn((1, 2, 900, 64), generator=generator).to(dtype)[:, :, :700] for _ in range(2)
    )
    wanted, _ = sdpa_attention_forward(_Layer(2), query, key, value, None, scaling=0.125)
    found, _ = _attend(_Layer(2), query, key, value, None, scaling=0.125)
    torch.testing.assert_close(found, wanted, atol=1e-6 if dtype == torch.float32 else 1e-2, rtol=0)


@pytest.mark.parametrize(("scores", "rows"), [(1 << 14, 256), (1 << 18, 7), (3 << 20, 256)])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "new", "held"), [(14, 2, 90, 300), (4, 4, 65, 0), (3, 3, 64, 0)]
)
def test_blocks_of_any_size_are_the_whole(monkeypatch, heads, kv_heads, new, held, scores, rows):
    """Blocks are all key heads, one key head, or some of its queries. NaN in keys that a query does
    not see never reaches it.
    """
    generator = torch.Generator().manual_seed(new)
    query = torch.randn((2, heads, new, 16), generator=generator).bfloat16()
    key, value = (
        torch.randn((2, kv_heads, held + new + 50, 16), generator=generator).bfloat16()
        for _ in range(2)
    )
    # the cache's room for more
    key[:, :, held + new :], value[:, :, held + new :] = torch.nan, torch.nan
    key, value = key[:, :, : held + new], value[:, :, : held + new]
    mask = torch.ones((2, 1, new, held + new), dtype=torch.bool).tril(held) if held else None
    layer = _Layer(heads // kv_heads)
    layer.is_causal = False
    wanted, _ = sdpa_attention_forward(layer, query, key, value, mask, scaling=0.25)
    monkeypatch.setattr("encoders.models.attention._SCORES", scores)
    monkeypatch.setattr("encoders.models.attention._ROWS", rows)
    found, _ = _attend(layer, query, key, value, mask, scaling=0.25)
    torch.testing.assert_close(found, wanted, atol=1e-2, rtol=0)


@pytest.mark.parametrize("new", [1, 9])
def test_contexts_in_one_piece_are_attended_to_like_each_alone(new):
    """Five of them, whose masks differ, in one product."""
    generator = torch.Generator().manual_seed(new)
    query = torch.randn((5, 4, new, 16), generator=generator).bfloat16()
    key, value = (torch.randn((5, 2, 70, 16), generator=generator).bfloat16() for _ in range(2))
    mask = torch.rand((5, 1, new, 70), generator=generator) > 0.3
    wanted, _ = sdpa_attention_forward(_Layer(2), query, key, value, mask, scaling=0.25)
    found, _ = _attend(_Layer(2), query, key, value, mask, scaling=0.25, masks={})
    torch.testing.assert_close(found, wanted, atol=1e-2, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("width", [1, 31, 32, 33, 707, 736, 4096, 7200])
def test_softmax_may_write_where_it_reads(width, dtype):
    """Blocks of scores rely on it, and what citations are made of; torch promises it nowhere."""
    scores = torch.randn((70, width), generator=torch.Generator().manual_seed(width)).to(dtype) * 9
    scores[:, width // 2 + 1 :] = -torch.inf
    wanted = torch.softmax(scores, -1)
    torch.softmax(scores, -1, out=scores)
    assert torch.equal(scores, wanted)


def test_images_in_either_layout_embed_alike():
    frames = Frames(
        "v",
        np.random.default_rng(0).integers(0, 256, (5, 96, 96, 3), dtype=np.uint8),
        np.arange(5.0),
    )
    clip = ClipEncoder(CLIP)
    stack = clip.clip.visual.transformer
    assert not stack.batch_first  # the shipped model has three heads
    found = clip.embed_frames(frames)
    for layer in (stack, *(block.attn for block in stack.resblocks)):
        layer.batch_first = True
    torch.testing.assert_close(found, clip.embed_frames(frames), atol=1e-6, rtol=0)


def test_bfloat16_embeds_nearly_alike_and_is_another_model_to_a_bank():
    frames = Frames(
        "v",
        np.random.default_rng(0).integers(0, 256, (5, 96, 96, 3), dtype=np.uint8),
        np.arange(5.0),
    )
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
    with pytest.raises(
        UserError, match=r"clip\.dtype=int3 is not known; use one of float32, bfloat16"
    ):
        ClipEncoder(CLIP, dtype="int3")


def _counted(function):
    """A function and the threads that called it from Python."""
    calls: list[str] = []

    def counting(x):
        calls.append(threading.current_thread().name)
        return function(x)

    return counting, calls


def test_a_graph_takes_over_for_the_shape_that_comes_often():
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU()).requires_grad_(False)
    function, calls = _counted(layer)
    traced = JitTrace(function, layer, after=3)
    often, rare = torch.randn(20, 4, 8), torch.randn(2, 8)
    for number, x in enumerate(often):
        assert torch.equal(traced(x), layer(x))
        assert torch.equal(traced(rare), layer(rare)) if number < 2 else True
        if number == 2:
            before = len(calls)  # with those that traced and compared
    assert len(calls) == before > 3  # afterwards Python was not asked again


def test_what_a_graph_cannot_say_stays_a_function():
    """A branch on the numbers: the graph of one side is another function."""
    layer = torch.nn.Linear(4, 4).requires_grad_(False)
    function, calls = _counted(lambda x: layer(x) if x.sum() > 0 else -layer(x))
    traced = JitTrace(function, layer, after=2)
    for x in torch.randn(12, 3, 4, generator=torch.Generator().manual_seed(1)):
        assert torch.equal(traced(x), layer(x) if x.sum() > 0 else -layer(x))
    tries = len(calls)
    traced(torch.ones(3, 4))
    assert len(calls) == tries + 1


def test_one_graph_serves_batches_of_all_sizes():
    layer = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU()).requires_grad_(False)
    traced = JitTrace(layer, layer, after=2)
    for size in (4, 1, 7, 9, 2):
        for x in torch.randn(3, size, 8, generator=torch.Generator().manual_seed(size)):
            assert torch.equal(traced(x), layer(x))
    assert len(traced._graphs) == 5
    assert len({id(graph) for graph in traced._graphs.values()}) == 1


def test_a_graph_that_holds_a_size_serves_that_size_alone():
    """What reads the size as a number of Python is another function for every size."""
    layer = torch.nn.Linear(8, 8).requires_grad_(False)
    traced = JitTrace(lambda x: layer(x) * len(x), layer, after=2)
    for size in (4, 2):
        for x in torch.randn(3, size, 8, generator=torch.Generator().manual_seed(size)):
            assert torch.equal(traced(x), layer(x) * size)
    assert len({id(graph) for graph in traced._graphs.values()}) == 2


def test_a_large_model_is_not_traced(monkeypatch):
    monkeypatch.setattr("encoders.models.acceleration.jit_trace._SMALL", 10)
    layer = torch.nn.Linear(4, 4).requires_grad_(False)
    function, calls = _counted(layer)
    traced = JitTrace(function, layer, after=1)
    for _ in range(5):
        traced(torch.ones(2, 4))
    assert len(calls) == 5


def test_threads_that_share_a_model_trace_it_once_and_agree():
    layer = torch.nn.Linear(16, 16).requires_grad_(False)
    traced = JitTrace(layer, layer, after=4)
    inputs, wrong = torch.randn(60, 5, 16), []

    def go() -> None:
        wrong.extend(i for i, x in enumerate(inputs) if not torch.equal(traced(x), layer(x)))

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(traced._graphs) == 1


@pytest.mark.slow  # seconds of CPU
def test_the_embedded_models_are_traced_and_look_alike():
    """As they are encoded with: in bfloat16, eight frames at a time."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 96, 96, 3), dtype=np.uint8)
    clip = ClipEncoder(CLIP, dtype="bfloat16")
    clip._whole().image._after = 2
    rows = [clip.embed_frames(Frames("v", pixels, np.arange(8.0))) for _ in range(4)]
    assert len(clip._whole().image._graphs) == 1
    assert all(torch.equal(row, rows[0]) for row in rows)


@pytest.mark.parametrize(("dtype", "inner", "act", "packed", "gelus", "sigmoids"), [
    (torch.bfloat16, 4304, "gelu_pytorch_tanh", 4, 2, 0),
    (torch.bfloat16, 4304, "gelu", 4, 2, 0),
    (torch.bfloat16, 4304, "quick_gelu", 4, 0, 0),
    (torch.bfloat16, 64, "gelu_pytorch_tanh", 0, 0, 2),
    (torch.bfloat16, 64, "gelu", 0, 0, 0),
    (torch.float32, 4304, "gelu_pytorch_tanh", 0, 0, 0),
])  # fmt: skip
def test_wide_layers_are_packed_and_take_their_gelu_in(dtype, inner, act, packed, gelus, sigmoids):
    if dtype == torch.bfloat16 and not _supported():
        pytest.skip("a processor without bfloat16 products")
    torch.manual_seed(0)
    config = SiglipVisionConfig(
        hidden_size=256, intermediate_size=inner, num_hidden_layers=2, num_attention_heads=4,
        image_size=32, patch_size=16,
        hidden_act=act, vision_use_head=False,
    )  # fmt: skip
    model = SiglipVisionModel(config).to(dtype).eval().requires_grad_(False)
    pixels = torch.randn(3, 3, 32, 32).to(dtype)
    before, size = model(pixels).last_hidden_state, count_weights(model)
    for _ in range(2):  # a second time finds nothing to do
        pack(model)
        found = [module for module in model.modules() if isinstance(module, PackedLinear)]
        assert count_weights(model) == size
        assert len(found) == packed and sum(bool(one.gelu) for one in found) == gelus
        assert sum(isinstance(module, SigmoidGELU) for module in model.modules()) == sigmoids
        close = {"atol": 0.05} if packed or sigmoids else {"atol": 0}
        torch.testing.assert_close(model(pixels).last_hidden_state, before, rtol=0, **close)
    assert JitTrace(model, model)._is_traceable is not bool(packed)


def test_all_of_a_decoders_layers_are_packed_however_small():
    if not _supported():
        pytest.skip("a processor without bfloat16 products")
    plain, packed = (
        LlavaOneVision(str(WEIGHTS / "video_llm"), dtype=dtype) for dtype in ("float32", "bfloat16")
    )
    layers = [module for module in packed.decoder.modules() if isinstance(module, PackedLinear)]
    assert len(layers) == 7 * packed.language_model.kv_shape.layers and count_weights(
        packed.model
    ) == count_weights(plain.model)
    assert not [
        module
        for module in packed.model.model.vision_tower.modules()
        if isinstance(module, PackedLinear)
    ]
    question = "Which icon appears in the video?"
    wanted, found = (
        one.language_model.queries_of([question])[0].mean(0) for one in (plain, packed)
    )
    torch.testing.assert_close(found, wanted, atol=0.03 * float(wanted.abs().max()), rtol=0)


def test_nothing_is_packed_where_torch_has_no_such_product(monkeypatch):
    def missing(*_args):
        raise RuntimeError("this build has no oneDNN")

    monkeypatch.setattr("encoders.models.acceleration.onednn_linear.PackedLinear.forward", missing)
    layer = torch.nn.Sequential(torch.nn.Linear(1024, 1024)).bfloat16().requires_grad_(False)
    pack(layer)
    assert type(layer[0]) is torch.nn.Linear


def test_a_model_that_would_say_something_else_packed_is_left_alone(monkeypatch):
    monkeypatch.setattr(
        "encoders.models.acceleration.onednn_linear.PackedLinear.forward", lambda _self, x: 2 * x
    )
    layer = torch.nn.Sequential(torch.nn.Linear(1024, 1024)).bfloat16().requires_grad_(False)
    pack(layer)
    assert type(layer[0]) is torch.nn.Linear


def test_weights_that_others_share_are_left_alone():
    """A head that is the embedding: packed, it would be there twice."""
    model = torch.nn.ModuleDict(
        {"embed": torch.nn.Embedding(4096, 256), "head": torch.nn.Linear(256, 4096, bias=False)}
    )
    model["head"].weight = model["embed"].weight
    pack(model.bfloat16().requires_grad_(False))
    assert type(model["head"]) is torch.nn.Linear


def test_gelu_by_its_sigmoid_is_as_exact_as_torchs():
    x = torch.linspace(-9, 9, 40_001).bfloat16()
    wanted = torch.nn.functional.gelu(x.double(), approximate="tanh")
    ours, theirs = (
        (found.double() - wanted).abs()
        for found in (SigmoidGELU()(x), torch.nn.functional.gelu(x, approximate="tanh"))
    )
    assert ours.max() <= theirs.max() and ours.mean() <= 1.001 * theirs.mean()


def test_an_mlp_that_would_say_something_else_is_left_alone():
    """It has the names of SigLIP's parts and puts them together in another way."""

    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1 = torch.nn.Linear(256, 4304)
            self.activation_fn = torch.nn.GELU()

        def forward(self, x):
            return self.fc1(self.activation_fn(x))

    torch.manual_seed(0)
    odd = Odd().bfloat16().requires_grad_(False)
    x = torch.randn(1, 5, 256).bfloat16()
    before = odd(x)
    pack(odd)
    assert isinstance(odd.activation_fn, torch.nn.GELU)
    torch.testing.assert_close(odd(x), before, atol=0.05, rtol=0)


FAULTS = """
import resource, sys, threading
from pipeline.runtime import malloc
if sys.argv[1] == "kept":
    assert malloc.retain_freed(5 * 10**9) and malloc.retained_bytes() == 2**31 - 1
import torch
def work():
    for _ in range(20):
        torch.ones(40_000_000, dtype=torch.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for thread in [threading.Thread(target=work) for _ in range(2)]:
    thread.start(); thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow  # seconds of CPU
@pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="another allocator"
)
def test_freed_memory_is_kept_also_for_threads():
    """40 MB taken and given back twenty times: the pages are made once, not each time."""
    faults = {
        kind: int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, kind], capture_output=True, text=True, check=True
            ).stdout
        )
        for kind in ("kept", "as the system does")
    }
    assert faults["kept"] < faults["as the system does"] / 2, faults


def test_blocks_one_after_another_keep_their_frames():
    generator = torch.Generator().manual_seed(0)
    blocks = []
    for counts in ([3], [2, 5, 1], [4, 4]):
        keys, values = (torch.randn((2, 2, sum(counts), 8), generator=generator) for _ in range(2))
        blocks.append(KVBlock(keys, values, torch.tensor([0, *counts]).cumsum(0)))
    joined = join_blocks(blocks)
    assert joined.offsets.tolist() == [0, 3, 5, 10, 11, 15, 19] and join_blocks(
        blocks[:1]
    ).offsets.tolist() == [0, 3]
    assert torch.equal(joined.frames(1, 4).keys, blocks[1].keys) and torch.equal(
        joined.frames(4, 6).values, blocks[2].values
    )


def test_rotations_are_those_of_the_positions_asked_for():
    model = toy_backbone().language_model
    here, there = torch.arange(5), torch.arange(7, 12)
    first, other = model.rope(here), model.rope(there)
    assert not torch.equal(first.sin, other.sin)
    for again, wanted in (
        (model.rope(here), first),
        (model.rope(here.clone()), first),
        (model.rope(there), other),
    ):
        assert torch.equal(again.cos, wanted.cos) and torch.equal(again.sin, wanted.sin)

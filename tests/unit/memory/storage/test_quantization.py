"""Quantized segments: how large the errors are, how many bytes they take, and that parts equal the
whole.
"""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.compressors import Merge
from encoders.errors import UserError
from encoders.prefill import key_means
from encoders.schema import KVBlock, Segment
from memory.bank_check import BankCheck
from memory.storage.segments import quantization, segment_codec, segment_file
from memory.storage.segments.quantization import Packed
from memory.storage.segments.segment_codec import StorageFormat
from memory.store import DiskStore
from tests.support.records import (
    DIM,
    EMBED,
    HEAD,
    HEADS,
    LAYERS,
    make_segment,
    same,
)

SMALL = [
    StorageFormat("int8", "int8"),
    StorageFormat("int4", "int8"),
    StorageFormat("int4", "int4"),
    StorageFormat("int8", "int8", causal=False),  # as in banks of before
    StorageFormat("int4", "int4", causal=False),
]
every = pytest.mark.parametrize("storage_format", SMALL, ids=str)


def numbers(shape: tuple[int, ...], seed: int, spread: float, offset: float) -> torch.Tensor:
    make = torch.Generator().manual_seed(seed)
    return spread * torch.randn(shape, generator=make) + offset * torch.randn(
        shape[-1], generator=make
    )


drawn = given(
    seed=st.integers(0, 99),
    spread=st.sampled_from([0.0, 1e-6, 0.1, 1.0, 50.0]),
    offset=st.sampled_from([0.0, 1.0, 300.0]),
)


@pytest.mark.parametrize("bits", [4, 8])
@settings(max_examples=25, deadline=None)
@drawn
def test_a_number_is_off_by_half_a_step(bits, seed, spread, offset):
    """A step is at most the group's range over the number of codes, apart from the rounding of
    float16.
    """
    x = numbers((2, 50, 8), seed, spread, offset)
    groups = [0, 20, 21, 50]
    packed = quantization.pack_by_channel(x, groups, bits)
    where = quantization.group_of(groups)
    back = quantization.unpack_by_channel(packed, groups, bits, torch.float32)
    step = packed.scale.float().chunk(2, -1)[1]
    slack = 1e-6 * x.abs().max()  # float32
    assert bool(((x - back).abs() <= step[..., where, :] / 2 + slack).all())
    for g, (a, b) in enumerate(pairwise(groups)):
        part = x[:, a:b]
        reach = part.amax(1) - part.amin(1) + 2**-10 * part.amin(1).abs() + 6.2e-5
        assert bool((step[:, g] <= reach / (2**bits - 1) * (1 + 2**-10) + 6e-8).all())
    flat = quantization.pack_by_token(x, 4, bits)
    back = quantization.unpack_by_token(flat, 4, bits, torch.float32)
    steps = (
        flat.unflatten(-1, (2, -1))[..., -2:]
        .contiguous()
        .view(torch.float16)
        .float()
        .repeat_interleave(4, -1)
        .flatten(-2)
    )
    assert bool(((x - back).abs() <= steps / 2 + slack).all())


@pytest.mark.parametrize(("bits", "nbytes"), [(8, 50 * 8), (4, 50 * 4)])
def test_the_size_is_as_promised(bits, nbytes):
    x = torch.randn(3, 50, 8)
    by_channel = quantization.pack_by_channel(x, [0, 20, 50], bits)
    assert by_channel.nbytes == 3 * (nbytes + 2 * 8 * 4)  # 2 groups of 8 channels, 4 bytes each
    by_token = quantization.pack_by_token(x, 4, bits)
    assert by_token.nbytes == 3 * (nbytes + 50 * 2 * 4)
    assert quantization.unpack_by_token(by_token, 4, bits, torch.float16).shape == x.shape


def test_what_cannot_be_packed_is_refused():
    with pytest.raises(ValueError, match="float16"):
        quantization.pack_by_token(torch.tensor([[-1e6, 0.0]]), 2, 8)
    with pytest.raises(ValueError, match="float16"):
        quantization.pack_by_token(torch.tensor([[float("nan"), 0.0]]), 2, 8)
    with pytest.raises(ValueError, match="two in a byte"):
        quantization.pack_by_token(torch.randn(2, 3), 3, 4)
    with pytest.raises(ValueError, match="5 bits"):
        quantization.pack_by_token(torch.randn(2, 4), 4, 5)


@pytest.mark.parametrize("bits", [4, 8])
@settings(max_examples=25, deadline=None)
@drawn
def test_keys_are_off_by_half_a_step_of_their_base(bits, seed, spread, offset):
    """A large frame has its own base; small ones behind it lean on it, whatever comes later."""
    x = numbers((2, 150, 8), seed, spread, offset)
    edges = [0, 130, 131, 145, 150]
    packed = quantization.pack_by_base(x, edges, 4, bits)
    assert packed.scale.shape == (2, 1, 24) and packed.codes.shape == (2, 150, bits + 2)
    base = quantization.base_of(edges, 0, 4)
    back = quantization.unpack_by_base(packed, base, 4, bits, torch.float32)
    half = (x[:, :130].amax(1) - x[:, :130].amin(1)) / 2 + 1e-3 * x.abs().max() + 1e-4
    mean = half.square().mean(-1, keepdim=True).sqrt()
    reach = torch.maximum(half, mean / 4) * 2**0.25 / (2**bits - 1)
    assert bool(((x - back)[:, :130].abs() <= reach[:, None]).all())
    for frame, (a, b) in enumerate(pairwise(edges)):
        part = quantization.pack_by_base(x[:, :b], edges[: frame + 2], 4, bits)
        assert torch.equal(part.codes, packed.codes[:, :b]) and torch.equal(
            part.scale, packed.scale
        )
        own = quantization.unpack_by_base(
            Packed(packed.codes[:, a:b], packed.scale),
            quantization.base_of(edges, frame, frame + 1),
            4,
            bits,
            torch.float32,
        )
        assert torch.equal(own, back[:, a:b])


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 100))
def test_groups_are_whole_frames_and_large_enough(lengths, least):
    edges = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    groups = quantization.token_groups(edges, least)
    assert groups[0] == 0 and groups[-1] == edges[-1] and set(groups) <= set(edges)
    assert all(b - a >= least for a, b in pairwise(groups)) or len(groups) == 2
    assert len(quantization.group_of(groups)) == edges[-1]


@pytest.mark.parametrize(
    ("channels", "most", "width"),
    [(64, 64, 64), (128, 64, 64), (80, 64, 40), (8, 64, 8), (7, 4, 1), (126, 64, 42)],
)
def test_groups_of_channels_divide_them(channels, most, width):
    assert quantization.width_for(channels, most) == width


# ---- segments


def uneven(number: int = 0, dtype: torch.dtype = torch.bfloat16) -> Segment:
    """Frames of very different lengths, so that groups of keys hold one frame or many. Mean keys
    are those of the keys.
    """
    segment = make_segment(
        "v", number, frames=9, tokens=[130, 1, 1, 93, 2, 124, 1, 1, 5], dtype=dtype
    )
    assert segment.kv is not None
    return replace(segment, key_means=key_means(segment.kv))


def merged() -> Segment:
    """A segment whose frames repeat each other, as the encoder hands it over."""
    segment = make_segment("v", 0, frames=6, tokens=[4] * 6)
    tokens = segment.tokens.tokens.clone()
    tokens[4:12] = tokens[:4].repeat(2, 1)
    seen = Merge(0.95)(replace(segment.tokens, tokens=tokens))
    assert seen.repeats is not None and seen.repeats.tolist() == [
        False,
        True,
        True,
        False,
        False,
        False,
    ]
    assert segment.kv is not None
    block = KVBlock(
        segment.kv.keys[:, :, : len(seen.tokens)],
        segment.kv.values[:, :, : len(seen.tokens)],
        seen.offsets,
    )
    shown = seen.representatives
    return replace(
        segment, tokens=seen, kv=block, clip=segment.clip[shown], key_means=key_means(block)[shown]
    )


@every
@pytest.mark.parametrize("make", [uneven, merged])
def test_a_range_of_frames_is_the_slice_of_the_whole_bit_by_bit(tmp_path, storage_format, make):
    store, segment = DiskStore(tmp_path, storage_format), make()
    store.put(segment)
    whole = store.get("v", 0)
    assert whole.kv is not None
    for first in range(len(segment)):
        for stop in range(first + 1, len(segment) + 1):
            tokens, kv = store.frames("v", 0, first, stop)
            assert same(tokens, whole.tokens.frames(first, stop)) and same(
                kv, whole.kv.frames(first, stop)
            )
    store.close()


@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("make", [uneven, merged])
def test_a_stored_frame_depends_on_no_later_one(kind, make):
    """Law 3: a segment that ends at any frame has the numbers of the whole one up to there. With
    groups of frames, it had not."""
    segment, differs = make(), 0
    assert segment.kv is not None
    for stop in range(1, len(segment)):
        part = replace(
            segment,
            tokens=segment.tokens.frames(0, stop),
            kv=segment.kv.frames(0, stop),
            clip=segment.clip[:stop],
            key_means=segment.key_means[:stop],
        )
        for causal in (True, False):
            stored = StorageFormat(kind, kind, causal=causal)
            one, two = (_decoded(each, stored) for each in (part, segment))
            cut = _cut(two, segment, stop)
            equal = all(same(x, y) for x, y in zip(one.values(), cut, strict=True))
            differs += not equal
            assert equal or not causal, stop
    assert differs > 0


def _decoded(segment: Segment, stored: StorageFormat) -> dict[str, torch.Tensor]:
    tensors, form = segment_codec.encode(segment, stored)
    settled = stored.as_stored(segment)
    assert segment.kv is not None and settled.key_means is not None
    keys = segment_codec.decode_keys(
        tensors["keys"], tensors["keys_scale"], segment.kv.offsets, 0, len(segment), form
    )
    return {
        "keys": keys,
        "values": segment_codec.decode_values(tensors["values"], form),
        "tokens": segment_codec.decode_tokens(tensors["tokens"], form),
        "clip": settled.clip,
        "key_means": settled.key_means,
    }


def _cut(whole: dict[str, torch.Tensor], segment: Segment, stop: int) -> list[torch.Tensor]:
    """The numbers of the first frames."""
    assert segment.kv is not None
    a, b = int(segment.kv.offsets[stop]), int(segment.tokens.offsets[stop])
    return [
        whole["keys"][:, :, :a],
        whole["values"][:, :, :a],
        whole["tokens"][:b],
        whole["clip"][:stop],
        whole["key_means"][:stop],
    ]


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_comes_back_is_close_and_of_the_same_form(tmp_path, storage_format, dtype):
    store, segment = DiskStore(tmp_path, storage_format), uneven(dtype=dtype)
    store.put(segment)
    back = store.get("v", 0)
    assert segment.kv is not None and back.kv is not None
    worst = (
        0.2 if storage_format.kv == "int4" else 0.015
    )  # |x| < 4, so a step is at most 8/15 or 8/255
    for x, y in (
        (segment.kv.keys, back.kv.keys),
        (segment.kv.values, back.kv.values),
        (segment.key_means, back.key_means),
    ):
        assert x.dtype == y.dtype and x.shape == y.shape
        assert float((x.float() - y.float()).abs().mean()) < worst
    coarse = 0.3 if storage_format.tokens == "int4" else 0.04
    assert float((segment.tokens.tokens.float() - back.tokens.tokens.float()).abs().max()) < coarse
    assert back.tokens.tokens.dtype == dtype
    # places, offsets and times are exact
    assert same(replace(back.tokens, tokens=segment.tokens.tokens), segment.tokens)
    assert float((segment.clip - back.clip).abs().max()) < 5e-3
    assert torch.allclose(back.clip.norm(dim=1), torch.ones(9))
    assert same(back.kv.offsets, segment.kv.offsets)
    store.close()


@every
def test_the_index_is_the_same_before_and_after_a_restart(tmp_path, storage_format):
    for make in (uneven, merged):
        store, segment = DiskStore(tmp_path / make.__name__, storage_format), make()
        settled = storage_format.as_stored(segment)
        store.put(segment)
        index, whole = store.index("v", 0, {"clip", "key_means"}), store.get("v", 0)
        assert same(index.clip, settled.clip) and same(index.key_means, settled.key_means)
        assert same(whole.clip, settled.clip) and same(whole.key_means, settled.key_means)
        assert store.index("v", 0, {"clip"}).key_means is None
        store.close()


@every
@pytest.mark.parametrize("make", [uneven, merged])
def test_mean_keys_are_those_of_the_keys_that_come_back(tmp_path, storage_format, make):
    store, segment = DiskStore(tmp_path, storage_format), make()
    store.put(segment)
    means, kept = store.index("v", 0, {"key_means"}).key_means, store.get("v", 0).kv
    assert means is not None and kept is not None
    assert same(means, key_means(kept)[segment.tokens.representatives])
    store.close()


def test_a_small_segment_without_mean_keys_or_keys_comes_back_without(tmp_path):
    store, segment = DiskStore(tmp_path, StorageFormat("int4", "int4")), uneven()
    store.put(replace(segment, key_means=None))
    store.put(replace(uneven(1), kv=None, key_means=None))
    for number, keys in ((0, True), (1, False)):
        back = store.get("v", number)
        assert back.key_means is None and (back.kv is not None) == keys
        assert store.index("v", number, {"clip", "key_means"}).key_means is None
        assert StorageFormat("int4").as_stored(replace(segment, key_means=None)).key_means is None
    store.close()


def test_repeated_frames_share_their_index_rows():
    tensors, form = segment_codec.encode(merged(), StorageFormat("int4", "int8"))
    assert len(tensors["clip"]) == 4  # of 6 frames
    means = segment_codec.key_means(
        *(getattr(merged().kv, name) for name in ("keys", "offsets")), merged().tokens.repeats
    )
    assert (
        "key_means" not in tensors
        and form["key_means"] == "of keys"
        and same(means[1], means[0])
        and len(means) == 6
    )


def test_bytes_of_a_segment():
    """Codes take half a byte for each key and value, scales take their promised size, and nothing
    is left in float32.
    """
    segment = uneven()
    total, edges = int(segment.kv.offsets[-1]), segment.kv.offsets.tolist()
    old, _ = segment_codec.encode(segment, StorageFormat("int4", "int8", causal=False))
    groups = len(quantization.token_groups(edges)) - 1
    assert old["keys"].nbytes == LAYERS * HEADS * total * HEAD // 2
    assert old["keys_scale"].nbytes == LAYERS * HEADS * groups * HEAD * 4
    tensors, form = segment_codec.encode(segment, StorageFormat("int4", "int8"))
    assert quantization.base_frames(edges) == [0]  # 131 tokens, and no other has as many
    assert tensors["keys"].nbytes == LAYERS * HEADS * total * (HEAD // 2 + 1)
    assert tensors["keys_scale"].nbytes == LAYERS * HEADS * 1 * HEAD * 3
    assert tensors["values"].nbytes == LAYERS * HEADS * total * (HEAD // 2 + 4)
    assert tensors["tokens"].nbytes == len(segment.tokens.tokens) * (DIM + 4)
    assert tensors["pos"].nbytes == 3 * len(segment.tokens.tokens)
    assert tensors["clip"].nbytes == 9 * (EMBED + 4) and "key_means" not in tensors
    kept = {
        "kv": "int4",
        "kv_as": "bfloat16",
        "keys": "causal",
        "keys_width": "8",
        "values_width": "8",
        "clip_width": "32",
        "key_means": "of keys",
    }
    assert form == kept | {"tokens": "int8", "tokens_as": "bfloat16", "tokens_width": "8"}
    wide = replace(segment.tokens, tokens=torch.randn(len(segment.tokens.tokens), 128))
    tensors, form = segment_codec.encode(
        replace(segment, tokens=wide), StorageFormat("int4", "int4")
    )
    assert (
        tensors["tokens"].nbytes == len(wide.tokens) * (64 + 2 * 4) and form["tokens_width"] == "64"
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_as_made_nothing_changes(dtype):
    """No dial, no loss: the file of before, byte by byte, with no word of a form."""
    segment = make_segment(dtype=dtype)
    assert segment_file.pack(segment, StorageFormat()) == segment_file.pack(segment)
    assert b'form\\"' not in segment_file.pack(segment)
    halved, form = segment_codec.encode(segment, StorageFormat("bfloat16", "bfloat16"))
    assert form == {} and halved["keys"].dtype == halved["tokens"].dtype == torch.bfloat16
    assert halved["clip"].dtype == torch.float32


def test_three_axes_come_back(tmp_path):
    segment = uneven()
    assert segment.kv is not None
    pos = torch.randint(0, 500, (int(segment.kv.offsets[-1]), 3), dtype=torch.int32)
    store = DiskStore(tmp_path, StorageFormat("int4"))
    store.put(replace(segment, kv=replace(segment.kv, pos=pos)))
    assert torch.equal(
        store.frames("v", 0, 2, 6)[1].pos,
        pos[int(segment.kv.offsets[2]) : int(segment.kv.offsets[6])],
    )
    store.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"kv": "int3"}, "kv_dtype=int3"), ({"tokens": "int3"}, "token_dtype=int3")],
)
def test_unknown_dtypes_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        StorageFormat(**options)


def test_packed_counts_codes_and_scales():
    assert (
        Packed(torch.zeros(10, dtype=torch.uint8), torch.zeros(3, dtype=torch.float16)).nbytes == 16
    )


def patches() -> Segment:
    """Of a model with temporal patches and three axes."""
    segment = uneven()
    assert segment.kv is not None
    pos = torch.arange(3 * int(segment.kv.offsets[-1]), dtype=torch.int32).reshape(-1, 3)
    seen = replace(segment.tokens, firsts=segment.tokens.times - 0.5)
    return replace(segment, tokens=seen, kv=replace(segment.kv, pos=pos))


@every
@pytest.mark.parametrize("make", [uneven, merged, patches])
def test_a_flipped_byte_of_a_quantised_segment_never_comes_back(tmp_path, storage_format, make):
    """This covers codes, scales, narrowed positions and all else. `verify` names the file. A read
    fails or gives what was written.
    """
    store, segment = DiskStore(tmp_path, storage_format), make()
    store.put(segment)
    path = store.path("v", 0)
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    head = json.loads(data[8:start])
    spans = {name: head[name]["data_offsets"] for name in head if name != "__metadata__"}
    assert {"tokens", "keys", "keys_scale", "values", "clip"} < set(spans)
    assert ("repeats" in spans) == (make is merged) and ({"firsts", "kv_pos"} <= set(spans)) == (
        make is patches
    )
    part, rows, means = (
        store.frames("v", 0, 2, 4),
        store.index("v", 0, {"clip"}),
        store.index("v", 0, {"key_means"}),
    )
    reads = [
        (lambda: store.frames("v", 0, 2, 4), part),
        (lambda: store.index("v", 0, {"clip"}), rows),
        (lambda: store.index("v", 0, {"key_means"}), means),
    ]
    reached: dict[str, set[int]] = {}
    chance = torch.Generator().manual_seed(0)
    for name, (a, b) in spans.items():
        for at in {a, b - 1, *torch.randint(a, b, (4,), generator=chance).tolist()}:
            hurt = bytearray(data)
            hurt[start + at] ^= 1
            path.write_bytes(hurt)
            assert [problem.kind for problem in BankCheck(store, lambda: None).verify()] == [
                "checksum"
            ], name
            with pytest.raises(UserError, match="is damaged"):
                store.get("v", 0)
            for which, (read, written) in enumerate(reads):
                try:
                    found = read()
                except UserError:
                    reached.setdefault(name, set()).add(which)
                else:
                    assert same(found, written), (name, at, which)
    assert {
        "times": {0, 1, 2},
        "offsets": {0},
        "pos": {0},
        "keys_scale": {0, 2},
        "kv_offsets": {0, 2},
        "clip": {1},
    }.items() <= (reached.items())
    assert 2 in reached["keys"] and reached.get("repeats", {0, 1, 2}) == {0, 1, 2}
    assert {"firsts", "kv_pos"} & set(spans) <= set(reached) and {1, 2}.isdisjoint(
        reached.get("values", ())
    )
    store.close()


def test_settings_at_rest_are_told_and_read_back():
    for storage_format in (
        StorageFormat(),
        StorageFormat("int4"),
        StorageFormat(None, "int8", 6),
        StorageFormat("bfloat16", None, 3),
        StorageFormat("int8", None, 3, causal=False),
        StorageFormat("int4", "int8", window_frames=6),
    ):
        assert str(StorageFormat.parse(str(storage_format))) == str(storage_format)
        parsed = StorageFormat.parse(str(storage_format))
        assert parsed.keeps_window == storage_format.keeps_window
        assert parsed.causal == storage_format.causal
    for told in ("kv=int4, entropy=yes", "kv=int4, window=x", "something"):
        with pytest.raises(UserError, match="does not know"):
            StorageFormat.parse(told)

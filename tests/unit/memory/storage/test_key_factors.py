"""Keys as low-rank factors: nothing is lost at full rank, no frame depends on a later one, and
values are not read to search by keys."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from encoders.errors import UserError
from encoders.schema import KVBlock, Segment
from memory.storage.segments import segment_codec, segment_file
from memory.storage.segments.key_factors import KeyFactors
from memory.storage.segments.segment_codec import StorageFormat
from memory.storage.segments.tensor_file import DamagedError
from tests.support.records import HEADS, LAYERS, make_segment, same

SEGMENT = make_segment("v", 0, tokens=[2, 3, 1, 2])
WIDTH, COUNTS = 16, [9, 7, 9, 5]
OFFSETS = torch.tensor([0, 9, 16, 25, 30])


def keys_near_a_subspace(rank: int, noise: float) -> torch.Tensor:
    chance = torch.Generator().manual_seed(2)
    factors = torch.randn(LAYERS, 30, rank, generator=chance)
    basis = torch.randn(LAYERS, rank, HEADS * WIDTH, generator=chance)
    rows = factors @ basis + noise * torch.randn(LAYERS, 30, HEADS * WIDTH, generator=chance)
    return rows.unflatten(2, (HEADS, WIDTH)).transpose(1, 2)


def restored(keys: torch.Tensor, loss: float) -> torch.Tensor:
    return KeyFactors.of(keys, OFFSETS, loss).keys(OFFSETS.diff(), HEADS)


def test_the_loss_holds_in_every_frame_and_layer():
    keys = keys_near_a_subspace(4, 0.3)
    for loss in (0.0, 0.05, 0.2, 0.5):
        off = restored(keys, loss) - keys
        for a, b in pairwise(OFFSETS.tolist()):
            share = off[:, :, a:b].flatten(1).norm(dim=1) / keys[:, :, a:b].flatten(1).norm(dim=1)
            assert float(share.max()) <= loss + 1e-5
    assert torch.equal(restored(keys.bfloat16(), 0.0), restored(keys.bfloat16(), 0.0))
    off = restored(keys.bfloat16(), 0.0).float() - keys.bfloat16().float()
    assert float(off.norm() / keys.norm()) < 0.01


def test_keys_of_a_subspace_take_its_dimensions():
    """The bytes of the formula: a frame adds what the basis lacks, and a like one nothing."""
    factors = KeyFactors.of(keys_near_a_subspace(4, 0.0), OFFSETS, 0.01)
    assert factors.ranks == (4, 4, 4, 4)
    assert factors.coefficients.shape == (LAYERS, 1, 30, 4)
    assert factors.basis.shape == (LAYERS, 4, HEADS * WIDTH)
    zeros = KeyFactors.of(torch.zeros(LAYERS, HEADS, 30, WIDTH), OFFSETS, 0.0)
    assert zeros.ranks == (0, 0, 0, 0) and not zeros.keys(OFFSETS.diff(), HEADS).any()
    with pytest.raises(ValueError, match="not finite"):
        KeyFactors.of(torch.full((LAYERS, HEADS, 30, WIDTH), torch.nan), OFFSETS, 0.1)


def test_a_stored_key_depends_on_no_later_frame():
    """Law 3, bit by bit: the beginning of a segment, alone and with what comes later."""
    keys = keys_near_a_subspace(6, 0.2)
    for frames in (1, 2, 3):
        edge = int(OFFSETS[frames])
        alone = KeyFactors.of(keys[:, :, :edge], OFFSETS[: frames + 1], 0.1)
        found = alone.keys(OFFSETS[: frames + 1].diff(), HEADS)
        assert torch.equal(found, restored(keys, 0.1)[:, :, :edge])


def stored(tmp_path, segment: Segment, loss: float):
    path = tmp_path / "segment"
    path.write_bytes(segment_file.pack(segment, StorageFormat(key_loss=loss)))
    return path, segment_file.read(path)


def test_a_segment_comes_back_and_a_cut_is_the_slice_of_the_whole(tmp_path):
    _, whole = stored(tmp_path, SEGMENT, 0.0)
    torch.testing.assert_close(whole.kv.keys, SEGMENT.kv.keys, atol=0.03, rtol=0.03)
    assert torch.equal(whole.kv.values, SEGMENT.kv.values)
    path, found = stored(tmp_path, SEGMENT, 0.4)
    assert not torch.equal(found.kv.keys, whole.kv.keys)
    for first, stop in ((0, 2), (1, 3), (3, 4)):
        cut = segment_file.read_frames(path, first, stop)[1]
        assert same(cut, found.kv.frames(first, stop))
    # what waits to be written is read as that, and a bank is searched by it
    assert same(StorageFormat(key_loss=0.4).as_read(SEGMENT).kv, found.kv)
    means = segment_codec.key_means(found.kv.keys, SEGMENT.kv.offsets, None)
    assert torch.equal(found.key_means, means)
    assert torch.equal(StorageFormat(key_loss=0.4).as_stored(SEGMENT).key_means, means)


def test_values_are_read_of_chosen_frames_alone(tmp_path):
    """The bytes of the values of the last frame are damaged, and only who reads them sees it."""
    path, found = stored(tmp_path, SEGMENT, 0.1)
    values = found.kv.values[:, :, -2:].contiguous().view(torch.uint8).numpy()
    data = bytearray(path.read_bytes())
    at = data.index(values[-1, -1].tobytes())
    data[at] ^= 1
    path.write_bytes(data)
    assert torch.equal(segment_file.read_index(path, 0).keys.keys, found.kv.keys)
    assert same(segment_file.read_frames(path, 0, 3)[1], found.kv.frames(0, 3))
    with pytest.raises(DamagedError, match="values of frame 3"):
        segment_file.read_frames(path, 2, 4)


def test_the_provenance_names_the_loss():
    own = StorageFormat(key_loss=0.1, window_frames=6)
    assert str(own) == "key_loss=0.1, window=6" and StorageFormat.parse(str(own)) == own
    assert own.keeps_window
    for wrong in ("key_loss=x", "key_loss=nan", "key_loss=0.10"):
        with pytest.raises(UserError, match=r"does not know|key_loss=nan is no share"):
            StorageFormat.parse(wrong)
    with pytest.raises(UserError, match="both say how keys and values are stored"):
        StorageFormat("int8", key_loss=0.1)


def test_a_file_without_its_basis_is_damaged():
    block = KVBlock(SEGMENT.kv.keys, SEGMENT.kv.values, SEGMENT.kv.offsets)
    tensors, form = segment_codec.encode(replace(SEGMENT, kv=block), StorageFormat(key_loss=0.1))
    with pytest.raises(DamagedError, match="lacks the basis"):
        segment_codec.decode_keys(tensors["keys"], None, block.offsets, 0, 4, form)

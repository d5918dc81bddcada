"""Some heads whole, the others as one token a frame: what is lost, and what it weighs."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from encoders.errors import UserError
from memory.storage.segments import segment_codec, segment_file
from memory.storage.segments.head_means import HeadMeans
from memory.storage.segments.segment_codec import StorageFormat
from tests.support.records import HEADS, LAYERS, make_segment, same

ALL = HeadMeans(((True,) * HEADS,) * LAYERS)
SOME = HeadMeans(tuple((True,) + (False,) * (HEADS - 1) for _ in range(LAYERS)))
ONE = HeadMeans(((True,) + (False,) * (HEADS - 1),) + ((False,) * HEADS,) * (LAYERS - 1))
SEGMENT = make_segment("v", 0, tokens=[2, 3, 1, 2])


def read_back(tmp_path, heads: HeadMeans, segment=SEGMENT):
    path = tmp_path / "segment"
    path.write_bytes(segment_file.pack(segment, StorageFormat(heads=heads)))
    return path, segment_file.read(path)


def test_whole_heads_lose_nothing(tmp_path):
    assert same(read_back(tmp_path, ALL)[1].kv, SEGMENT.kv)


@pytest.mark.parametrize("heads", [SOME, ONE])
def test_the_others_are_the_means_of_each_frame(tmp_path, heads):
    path, found = read_back(tmp_path, heads)
    for name in ("keys", "values"):
        x, y = getattr(SEGMENT.kv, name), getattr(found.kv, name)
        assert torch.equal(y[heads.mask], x[heads.mask])
        for a, b in pairwise(SEGMENT.kv.offsets.tolist()):
            mean = x[~heads.mask][:, a:b].float().mean(1, keepdim=True).to(x.dtype)
            assert torch.equal(y[~heads.mask][:, a:b], mean.expand(-1, b - a, -1))
    # a cut by frames is the slice of the whole, and what waits to be written is read as that
    assert same(segment_file.read_frames(path, 1, 3)[1], found.kv.frames(1, 3))
    assert same(StorageFormat(heads=heads).as_read(SEGMENT).kv, found.kv)
    torch.testing.assert_close(
        found.key_means,
        segment_codec.key_means(SEGMENT.kv.keys, SEGMENT.kv.offsets, None),
        atol=0.02,
        rtol=0.02,
    )


def test_a_stored_frame_depends_on_itself_alone():
    tensors, form = segment_codec.encode(SEGMENT, StorageFormat(heads=SOME))
    first = SEGMENT.kv.frames(0, 2)
    changed = torch.cat([first.keys, first.keys + 9], dim=2)
    block = replace(SEGMENT.kv, keys=changed[:, :, : SEGMENT.kv.keys.shape[2]])
    others, _ = segment_codec.encode(replace(SEGMENT, kv=block), StorageFormat(heads=SOME))
    assert torch.equal(others["keys_scale"][:2], tensors["keys_scale"][:2])
    assert not torch.equal(others["keys_scale"][2:], tensors["keys_scale"][2:])
    whole, frames = LAYERS, LAYERS * (HEADS - 1)
    numbers = SEGMENT.kv.keys.shape[2] * whole + len(SEGMENT) * frames
    stored = sum(
        tensors[f"{name}{end}"].nbytes for name in ("keys", "values") for end in ("", "_scale")
    )
    assert stored == 2 * numbers * SEGMENT.kv.keys.shape[3] * SEGMENT.kv.keys.itemsize
    assert form["kv"] == "means"


def test_the_provenance_names_the_heads():
    for heads in (ALL, SOME, ONE):
        told = str(StorageFormat(heads=heads, window_frames=6))
        parsed = StorageFormat.parse(told)
        assert parsed.heads == heads and str(parsed) == told and parsed.keeps_window
    for wrong in ("heads=012", "heads=01.1", "heads=", "heads=01..01"):
        with pytest.raises(UserError, match="does not say which heads are whole"):
            StorageFormat.parse(wrong)
    with pytest.raises(UserError, match="no head that is whole"):
        StorageFormat.parse("heads=00.00")
    with pytest.raises(UserError, match="both say how keys and values are stored"):
        StorageFormat("int8", heads=SOME)
    with pytest.raises(ValueError, match="heads, not"):
        HeadMeans(((True,),)).split(SEGMENT.kv.keys, SEGMENT.kv.offsets)

"""Keys and values as numbers of centroids: exact where there are enough, a frame at a time, and
never without the codebook that they were made with."""

from dataclasses import replace

import pytest
import torch

from encoders.errors import UserError
from encoders.schema import KVBlock, Segment
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from memory.schema import Question
from memory.storage.segments import segment_codec, segment_file
from memory.storage.segments.codebook import NAME, Codebook
from memory.storage.segments.segment_codec import StorageFormat, codebook_digest
from memory.store import DiskStore
from tests.support.records import HEAD, HEADS, LAYERS, make_segment, make_video, same, write_video


def points(count: int = 200, dtype: torch.dtype = torch.bfloat16) -> KVBlock:
    chance = torch.Generator().manual_seed(7)
    keys, values = torch.randn(2, LAYERS, HEADS, count, HEAD, generator=chance).to(dtype)
    return KVBlock(keys, values, torch.tensor([0, count]))


BOOK = Codebook.fit([points()], width=2, bits=4)
FORMAT = StorageFormat(tokens="int8", window_frames=6, codebook=BOOK)


def opened(root, storage_format: StorageFormat = FORMAT, book: Codebook | None = BOOK):
    provenance = {"quantisation": str(storage_format)}
    return MemoryBank.open(root, provenance, UniformRetriever(), recent_frames=1, codebook=book)


def decoded(segment: Segment, storage_format: StorageFormat = FORMAT) -> KVBlock:
    read = storage_format.as_read(segment).kv
    assert read is not None
    return read


def test_as_many_centroids_as_points_lose_nothing():
    video = make_video("v", 3, tokens=[2, 1, 3, 2])
    blocks = [segment.kv for segment in video]
    book = Codebook.fit(blocks, width=HEAD, bits=8)
    assert sum(block.keys.shape[2] for block in blocks) < 256
    for segment in video:
        assert same(decoded(segment, StorageFormat(codebook=book)), segment.kv)


def test_a_number_is_the_nearest_centroid_of_its_layer_head_and_place():
    block = points(9)
    found = BOOK.decode(BOOK.encode(block.keys, BOOK.keys), BOOK.keys)
    pieces = block.keys.unflatten(-1, (-1, 2)).float()  # [L, H, M, S, d]
    away = (pieces[..., None, :] - BOOK.keys[:, :, None].float()).square().sum(-1)
    own = BOOK.keys[:, :, None].expand(-1, -1, 9, -1, -1, -1)
    index = away.argmin(-1)[..., None, None].expand(*away.shape[:-1], 1, 2)
    assert torch.equal(found.unflatten(-1, (-1, 2)), own.gather(4, index)[..., 0, :])
    assert BOOK.keys.shape == (LAYERS, HEADS, HEAD // 2, 16, 2)


def test_a_stored_frame_depends_on_itself_alone():
    """Law 3, in its strong form: the same bytes whatever else is in the segment."""
    whole = make_segment("v", 0, tokens=[2, 3, 1, 2])
    tensors, _ = segment_codec.encode(whole, FORMAT)
    for frame in range(4):
        a, b = whole.kv.offsets[frame : frame + 2].tolist()
        own = whole.kv.frames(frame, frame + 1)
        for name, x in (("keys", own.keys), ("values", own.values)):
            assert torch.equal(tensors[name][:, :, a:b], BOOK.encode(x, getattr(BOOK, name)))


def test_bytes_of_a_token_are_as_the_formula_says():
    segment = make_segment("v", 0)
    tensors, form = segment_codec.encode(segment, FORMAT)
    stored = tensors["keys"].nbytes + tensors["values"].nbytes
    assert stored == segment.kv.keys.shape[2] * BOOK.token_bytes
    assert BOOK.token_bytes == 2 * LAYERS * HEADS * HEAD // 2 * 4 // 8
    assert "keys_scale" not in tensors and form["codebook"] == BOOK.digest


def test_a_question_reads_the_same_while_a_video_is_written_and_later(tmp_path):
    video, ask = make_video("v", 4), Question("x", "v")
    with opened(tmp_path) as bank:
        write_video(bank, video[:3])
        bank.show(video[3])
        shown = bank.recall(ask, read_tokens=1000).runs
        bank.write(video[3])
        running = bank.recall(ask, read_tokens=1000).runs
        bank.record_video(bank.catalog.video("v").info, 1.0, finished=True)
        later = bank.recall(ask, read_tokens=1000).runs
        assert bank.check.verify() == []
    frames = [decoded(segment).frames(frame, frame + 1) for segment in video for frame in range(4)]
    for runs in (shown, running, later):
        assert all(same(run.kv, frame) for run, frame in zip(runs, frames, strict=True))


def test_a_range_of_frames_equals_the_slice_of_the_whole(tmp_path):
    store, segment = DiskStore(tmp_path, FORMAT), make_segment("v", 0)
    with opened(tmp_path / "bank") as bank:
        write_video(bank, [segment])
        store = DiskStore(tmp_path / "bank", FORMAT)
        whole = store.get("v", 0)
        assert same(whole.kv, decoded(segment))
        assert same(whole.key_means, FORMAT.as_stored(segment).key_means)
        assert same(store.frames("v", 0, 1, 3)[1], whole.kv.frames(1, 3))
        store.close()
    path = store.path("v", 0)
    with pytest.raises(segment_file.DamagedError, match="need the codebook"):
        segment_file.read(path)


def test_a_bank_keeps_its_codebook_and_names_it(tmp_path):
    with opened(tmp_path) as bank:
        write_video(bank, make_video("v", 1))
        assert codebook_digest(str(bank.provenance["quantisation"])) == BOOK.digest
    assert (tmp_path / NAME).read_bytes() == BOOK.data
    with MemoryBank.open(tmp_path, None, UniformRetriever(), recent_frames=1) as bank:
        assert same(bank.catalog.read_segment("v", 0).kv, decoded(make_segment("v", 0)))
    other = Codebook.fit([points(150)], width=2, bits=4)
    with pytest.raises(UserError, match="was made with quantisation=codebook="):
        opened(tmp_path, replace(FORMAT, codebook=other), other)


@pytest.mark.parametrize("damage", [b"", BOOK.data[:-3] + b"xyz", None])
def test_a_lost_codebook_is_told_and_put_back(tmp_path, damage):
    with opened(tmp_path) as bank:
        write_video(bank, make_video("v", 1))
    path = tmp_path / NAME
    path.unlink() if damage is None else path.write_bytes(damage)
    with pytest.raises(UserError, match=r"kv.codebook .*no keys and values can be read without it"):
        MemoryBank.open(tmp_path, None, UniformRetriever(), recent_frames=1)
    with opened(tmp_path) as bank:
        assert same(bank.catalog.read_segment("v", 0).kv, decoded(make_segment("v", 0)))
    assert path.read_bytes() == BOOK.data


def test_a_crash_between_codebook_and_manifest_leaves_an_empty_bank(tmp_path):
    (tmp_path / NAME).write_bytes(b"torn")
    with opened(tmp_path) as bank:
        write_video(bank, make_video("v", 1))
        assert bank.check.verify() == []
    assert (tmp_path / NAME).read_bytes() == BOOK.data


def test_mistakes_are_told():
    with pytest.raises(UserError, match="both say how keys and values are stored"):
        StorageFormat("int4", codebook=BOOK)
    with pytest.raises(ValueError, match="do not divide"):
        Codebook.fit([points()], width=3, bits=4)
    with pytest.raises(ValueError, match="use 1 to 8"):
        Codebook.fit([points()], width=2, bits=9)
    with pytest.raises(ValueError, match="the codebook has"):
        BOOK.encode(torch.zeros(LAYERS, HEADS, 3, HEAD + 2), BOOK.keys)
    with pytest.raises(ValueError, match="not finite"):
        BOOK.encode(torch.full((LAYERS, HEADS, 3, HEAD), torch.nan), BOOK.keys)
    assert str(StorageFormat.parse(str(FORMAT), BOOK)) == str(FORMAT)
    with pytest.raises(UserError, match="does not know"):
        StorageFormat.parse(str(FORMAT))

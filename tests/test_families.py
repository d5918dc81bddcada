"""The laws for every family of video-LLMs, on tiny random models of the real classes, against transformers' own processor
and forward with pixel input. Float32, 1e-4."""

from contextlib import nullcontext

import pytest
import torch

from encoders.prefill import WindowPrefill, key_means
from memory.schema import Evidence, Hits, Question, Run
from pipeline.reader import KVReader, TokenReader
from tests.families import FAMILIES, backbone_of, frames_for

QUESTION = "In what order did the star and the circle appear?"
READERS = [TokenReader, KVReader]


def silent(stage: str):
    return nullcontext()


@pytest.fixture(params=sorted(FAMILIES))
def family(request):
    return FAMILIES[request.param]


def encode(backbone, frames, sizes, window=1000, prefill=None) -> list[Run]:
    """Encode in segments of these many sampled frames; one run per segment."""
    prefill = prefill or WindowPrefill(backbone, window_frames=window, dtype="float32")
    runs, at, first = [], 0, 0
    for number, size in enumerate(sizes):
        seen = backbone.look(frames.part(at, at + size))
        runs.append(Run(number, first, seen, prefill(seen)))
        at, first = at + size, first + len(seen.times)
    assert at == len(frames)
    return runs


def evidence(runs: list[Run]) -> Evidence:
    none = Hits(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    return Evidence(Question(QUESTION, "toy"), tuple(runs), none, 0, 0.5)


@pytest.mark.parametrize("reader_class", READERS)
@pytest.mark.parametrize("sizes", [[12], [4, 6, 2], [7 + 4]])
def test_equal_to_the_librarys_forward_from_pixels(family, reader_class, sizes):
    backbone = backbone_of(family.name)
    frames = frames_for(backbone, sum(sizes))
    expected, _ = family.reference(backbone, frames, QUESTION)
    reader = reader_class(backbone)
    tail = len(reader.tail(QUESTION))
    got = reader.logits(evidence(encode(backbone, frames, sizes)), silent)
    assert expected[-tail:].std() > 0.3  # logits that differ: an equality of constants would prove nothing
    assert torch.allclose(got, expected[-tail:], atol=1e-4), (got - expected[-tail:]).abs().max()


def test_reference_notices_another_picture(family):
    backbone = backbone_of(family.name)
    got = KVReader(backbone).logits(evidence(encode(backbone, frames_for(backbone, 8), [8])), silent)
    other, _ = family.reference(backbone, frames_for(backbone, 8, seed=1), QUESTION)
    assert not torch.allclose(got, other[-len(got) :], atol=1e-2)


def test_answer_equals_the_librarys_generate(family):
    backbone = backbone_of(family.name)
    frames = frames_for(backbone, 8)
    _, inputs = family.reference(backbone, frames, QUESTION)
    with torch.inference_mode():
        out = backbone.model.generate(**inputs, max_new_tokens=6, do_sample=False)
    expected = backbone.text_of(out[0, inputs["input_ids"].shape[1] :].tolist()).strip()
    for reader_class in READERS:
        reading = reader_class(backbone, max_new_tokens=6).read(evidence(encode(backbone, frames, [4, 4])), silent)
        assert reading.text == expected
        assert abs(sum(reading.weights.values()) - 1) < 1e-5


def test_chunked_look_equals_whole_clip(family):
    backbone = backbone_of(family.name)
    frames = frames_for(backbone, 12)
    whole = backbone.look(frames).tokens
    parts = torch.cat([backbone.look(frames.part(a, a + 2)).tokens for a in range(0, 12, 2)])
    assert torch.allclose(whole, parts, atol=1e-5)


def test_a_block_reads_equal_wherever_it_was_written(family):
    """Keys are stored before rotary embedding: a frame without a window gives the same block first or fourth, and with
    what went before dropped the answer is that of the shorter video."""
    backbone = backbone_of(family.name)
    frames = frames_for(backbone, 8)
    prefill = WindowPrefill(backbone, window_frames=0, dtype="float32")
    seen = backbone.look(frames.part(6, 8))
    alone = prefill(seen)
    assert alone.keys.shape[1:] == (2, len(alone.keys[0, 0]), 16)
    cache = backbone.cache(4096)
    backbone.advance(backbone.embed(backbone.preamble_ids()), cache)
    backbone.lay(encode(backbone, frames.part(0, 6), [6])[0].kv, cache)
    before = cache.get_seq_length()
    backbone.lay(alone, cache)
    placed = backbone.cache(4096)
    backbone.advance(backbone.embed(backbone.preamble_ids()), placed)
    backbone.lay(encode(backbone, frames.part(0, 6), [6])[0].kv, placed)
    new = backbone.with_tags(seen)
    positions, _ = backbone.positions.of_frames(new.pos, new.offsets, placed.cursor)
    keys = cache.stored(before, *backbone.rope(positions), torch.float32)[0]
    assert torch.allclose(keys, alone.keys, atol=1e-5)


def test_two_streams_interleaved_give_the_banks_of_one_after_the_other(family):
    backbone = backbone_of(family.name)
    first, second = frames_for(backbone, 8, 1), frames_for(backbone, 8, 2)
    alone = [encode(backbone, f, [4, 4], window=4)[1].kv for f in (first, second)]
    family.reference(backbone, frames_for(backbone, 6, 3), QUESTION)  # leaves state on the model's modules, if any
    a, b = (WindowPrefill(backbone, window_frames=4, dtype="float32") for _ in range(2))
    mixed = []
    for at in (0, 4):
        for prefill, frames in ((a, first), (b, second)):
            mixed.append(prefill(backbone.look(frames.part(at, at + 4))))
    for got, expected in zip(mixed[2:], alone, strict=True):
        assert torch.equal(got.keys, expected.keys) and torch.equal(got.values, expected.values)


def test_window_rebuilt_from_stored_blocks_gives_the_same_bytes(family):
    backbone = backbone_of(family.name)
    frames = frames_for(backbone, 24)
    whole = encode(backbone, frames, [8, 8, 8], window=5)
    resumed = WindowPrefill(backbone, window_frames=5, dtype="float32")
    resumed.restore([run.kv for run in whole[:2]])
    block = resumed(backbone.look(frames.part(16, 24)))
    assert torch.equal(block.keys, whole[2].kv.keys) and torch.equal(key_means(block), key_means(whole[2].kv))


def test_cut_segment_reads_like_the_shorter_video(family):
    """Law 3 inside a segment: its first frames do not know its later ones."""
    backbone = backbone_of(family.name)
    frames = frames_for(backbone, 12)
    whole = encode(backbone, frames, [12])[0]
    frames_each = backbone.temporal_patch
    kept = 8 // frames_each
    cut = Run(0, 0, whole.tokens.frames(0, kept), whole.kv.frames(0, kept))
    expected, _ = family.reference(backbone, frames.part(0, 8), QUESTION)
    for reader_class in READERS:
        got = reader_class(backbone).logits(evidence([cut]), silent)
        assert torch.allclose(got, expected[-len(got) :], atol=1e-4)

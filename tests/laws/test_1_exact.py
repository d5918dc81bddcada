"""Law 1: recalling a whole uncompressed video equals transformers' own forward from pixels.

The whole video lies in the window. Float32, 1e-4. The reference calls the library's class with
`pixel_values_videos`, and takes nothing of ours but the token ids of the prompt.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from encoders.models.position.rotary_scaling import LinearScaling, RotaryScaling, YarnScaling
from encoders.prefill import WindowPrefill, key_means
from encoders.schema import Frames
from memory.schema import Evidence, FrameName, Hits, Question, Run, Stretch, VideoTitle
from pipeline.answer.batched_reader import BatchedReader
from pipeline.answer.frame_order.frame_orders import EdgesOrder, ScoreOrder
from pipeline.answer.reader import KVReader, TokenReader
from tests.support.toy_evidence import silent
from tests.support.toys import toy_backbone, toy_frames

QUESTION = "In what order did the star and the circle appear?"


def reference(frames: Frames, question: str) -> torch.Tensor:
    """[n, V] logits at the tail by one plain forward of the library's class over pixels and ids."""
    backbone = toy_backbone()
    video = backbone.config.video_token_id
    per_frame = 4
    ids = backbone.prompt.preamble_ids()
    for t in frames.times:
        tag = backbone.prompt.ids(f"[{int(t) // 60:02d}:{int(t) % 60:02d}]")
        ids = ids + tag + [video] * per_frame
    tail = backbone.prompt.suffix_ids(question)
    ids = [*ids, video, *tail]  # the library's features end with the newline
    pixels = torch.from_numpy(frames.pixels).permute(0, 3, 1, 2).float() / 255.0
    pixels = (pixels - 0.5) / 0.5
    with torch.inference_mode():
        out = backbone.model(
            input_ids=torch.tensor([ids]), pixel_values_videos=pixels[None], use_cache=False
        )
    return out.logits[0, -len(tail) - 1 :]


def encode(
    frames: Frames,
    sizes: list[int],
    window: int = 1000,
    dtype: str = "float32",
    position: RotaryScaling | None = None,
) -> list[Run]:
    """Encode in segments of these sizes; one run per segment."""
    backbone = toy_backbone()
    prefill = WindowPrefill(backbone, window_frames=window, dtype=dtype, position=position)
    runs, at = [], 0
    for number, size in enumerate(sizes):
        seen = backbone.encode_frames(frames.part(at, at + size))
        runs.append(Run("toy", number, at, seen, prefill(seen)))
        at += size
    assert at == len(frames)
    return runs


def evidence(runs: list[Run], per_layer: torch.Tensor | None = None) -> Evidence:
    none = Hits(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    return Evidence(Question(QUESTION, "toy"), tuple(runs), none, 0, 1.0, per_layer)


@pytest.mark.parametrize("reader_class", [TokenReader, KVReader])
@pytest.mark.parametrize("sizes", [[12], [5, 4, 3], [1] * 12])
def test_equal_to_one_plain_forward_from_pixels(reader_class, sizes):
    frames = toy_frames(12)
    expected = reference(frames, QUESTION)
    got = reader_class(toy_backbone()).logits(evidence(encode(frames, sizes)), silent)
    assert expected.std() > 0.5  # logits that differ: an equality of constants would prove nothing
    assert torch.allclose(got, expected, atol=1e-4), (got - expected).abs().max()


@pytest.mark.parametrize(
    "way", [LinearScaling(3.0), YarnScaling(8.0, positions=64, frames_only=True)]
)
def test_stored_keys_read_like_a_prefill_at_scaled_positions(way):
    """What was encoded with a scaling and is read with it equals one pass with it. Encoding and
    answering choose apart: with another one it reads otherwise."""
    frames = toy_frames(12)
    runs = encode(frames, [5, 4, 3], position=way)
    expected = TokenReader(toy_backbone(), position=way).logits(evidence(runs), silent)
    got = KVReader(toy_backbone(), position=way).logits(evidence(runs), silent)
    assert torch.allclose(got, expected, atol=1e-4), (got - expected).abs().max()
    assert not torch.allclose(got, reference(frames, QUESTION), atol=1e-2)
    mixed = KVReader(toy_backbone()).logits(evidence(runs), silent)
    assert not torch.allclose(mixed, expected, atol=1e-2)
    batched = BatchedReader(KVReader(toy_backbone(), position=way, max_new_tokens=4))
    alone = KVReader(toy_backbone(), position=way, max_new_tokens=4)
    both = batched.read([evidence(runs), evidence(runs[:2])], silent)
    assert [one.text for one in both] == [
        alone.read(evidence(each), silent).text for each in (runs, runs[:2])
    ]


@pytest.mark.parametrize("chunk", [1, 5, 12, 99])
def test_frames_that_pass_in_chunks_equal_one_pass(chunk):
    frames = toy_frames(12)
    read = evidence(encode(frames, [5, 4, 3]))
    got = TokenReader(toy_backbone(), chunk_frames=chunk).logits(read, silent)
    assert torch.allclose(got, reference(frames, QUESTION), atol=1e-4)
    if chunk >= 12:  # one chunk: the same pass
        assert torch.equal(got, TokenReader(toy_backbone()).logits(read, silent))


def test_reference_notices_another_picture():
    frames, other = toy_frames(12), toy_frames(12, seed=1)
    got = KVReader(toy_backbone()).logits(evidence(encode(frames, [12])), silent)
    assert not torch.allclose(got, reference(other, QUESTION), atol=1e-2)


def test_answer_equals_the_librarys_generate():
    frames, backbone = toy_frames(6), toy_backbone()
    pieces: list[str] = []
    for reader_class in (TokenReader, KVReader):
        pieces.clear()
        reading = reader_class(backbone, max_new_tokens=8).read(
            evidence(encode(frames, [4, 2])), silent, pieces.append
        )
        ids = backbone.prompt.preamble_ids()
        for t in frames.times:
            ids = ids + backbone.prompt.time_tag_ids(t) + [backbone.config.video_token_id] * 4
        ids = [*ids, backbone.config.video_token_id, *backbone.prompt.suffix_ids(QUESTION)]
        pixels = (torch.from_numpy(frames.pixels).permute(0, 3, 1, 2).float() / 255.0 - 0.5) / 0.5
        out = backbone.model.generate(
            input_ids=torch.tensor([ids]), pixel_values_videos=pixels[None], max_new_tokens=8,
            do_sample=False,
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        )  # fmt: skip
        assert reading.text == backbone.prompt.text_of(out[0, len(ids) :].tolist()).strip()
        assert "".join(pieces).strip() == reading.text  # what was streamed is what was answered
        assert abs(sum(reading.weights.values()) - 1) < 1e-5
        assert set(reading.weights) == {FrameName("toy", ordinal) for ordinal in range(6)}


@pytest.mark.parametrize(
    ("order", "read"), [(ScoreOrder(), [1, 2, 4, 5, 0, 3]), (EdgesOrder(), [0, 1, 2, 4, 5, 3])]
)
def test_frames_in_another_order_read_like_a_film_in_that_order(order, read):
    """Three of six frames are ranked: 3, then 0, then 5. Two share a run."""
    frames, backbone = toy_frames(6), toy_backbone()
    runs = encode(frames, [1, 2, 1, 1, 1])
    whole = evidence(runs)
    ranked = torch.tensor([3, 0, 5])
    hits = Hits(ranked, torch.tensor([3.0, 2.0, 1.0]), stretches=(Stretch("toy", 0, 6),))
    asked = replace(whole, hits=hits)
    turned = Frames("toy", frames.pixels[read], frames.times[read])
    got = TokenReader(backbone, frame_order=order).logits(asked, silent)
    assert torch.allclose(got, reference(turned, QUESTION), atol=1e-4)

    single = [each for run in runs for each in run.single_frames()]
    by_hand = replace(whole, runs=tuple(single[number] for number in read))
    reader = KVReader(backbone, frame_order=order)
    assert torch.equal(reader.logits(asked, silent), KVReader(backbone).logits(by_hand, silent))
    owners = reader.layout(asked).frames_of[0]
    assert owners[owners >= 0].unique_consecutive().tolist() == read  # numbers in the evidence
    weights = reader.read(asked, silent).weights  # of the same frames, under their own names
    assert weights == pytest.approx(
        {
            FrameName("toy", read[name.ordinal]): weight
            for name, weight in KVReader(backbone)
            .read(
                replace(
                    by_hand,
                    runs=tuple(replace(run, first=place) for place, run in enumerate(by_hand.runs)),
                ),
                silent,
            )
            .weights.items()
        },
        abs=1e-5,
    )


def test_a_frame_range_of_a_segment_reads_like_the_shorter_video():
    """Blocks are causal: the first frames of a segment do not know its later ones, so law 3 holds
    inside a segment too.
    """
    frames = toy_frames(12)
    whole = encode(frames, [12])[0]
    cut = Run("toy", 0, 0, whole.tokens.frames(0, 7), whole.kv.frames(0, 7))
    expected = reference(frames.part(0, 7), QUESTION)
    for reader_class in (TokenReader, KVReader):
        got = reader_class(toy_backbone()).logits(evidence([cut]), silent)
        assert torch.allclose(got, expected, atol=1e-4)


def test_per_layer_frames_equal_the_shared_set_when_layers_agree():
    frames = toy_frames(12)
    runs = encode(frames, [6, 6])
    chosen = torch.tensor([1, 2, 7, 11])
    shared = [
        Run(
            run.video_id,
            run.segment,
            run.first + i,
            run.tokens.frames(i, i + 1),
            run.kv.frames(i, i + 1),
        )
        for run in runs
        for i in range(len(run.ordinals))
        if run.first + i in chosen
    ]
    reader = KVReader(toy_backbone())
    expected = reader.logits(evidence(shared), silent)
    got = reader.logits(evidence(runs, chosen.expand(3, -1)), silent)
    assert torch.equal(got, expected)
    different = chosen.repeat(3, 1)
    different[1, 0] = 0
    assert not torch.allclose(reader.logits(evidence(runs, different), silent), expected, atol=1e-3)


def test_window_rebuilt_from_stored_blocks_gives_the_same_bytes():
    frames, backbone = toy_frames(24), toy_backbone()
    whole = encode(frames, [8, 8, 8], window=5, dtype="bfloat16")
    resumed = WindowPrefill(backbone, window_frames=5, dtype="bfloat16")
    resumed.restore([run.kv for run in whole[:2]])
    block = resumed(backbone.encode_frames(frames.part(16, 24)))
    assert torch.equal(block.keys, whole[2].kv.keys) and torch.equal(
        block.values, whole[2].kv.values
    )
    assert torch.equal(key_means(block), key_means(whole[2].kv))


def test_two_streams_on_one_model_do_not_disturb_each_other():
    backbone = toy_backbone()
    first, second = toy_frames(8, 1), toy_frames(8, 2)
    alone = [encode(f, [4, 4], window=4)[1].kv.keys for f in (first, second)]
    a, b = (WindowPrefill(backbone, window_frames=4) for _ in range(2))
    mixed = []
    for at in (0, 4):
        for prefill, frames in ((a, first), (b, second)):
            mixed.append(prefill(backbone.encode_frames(frames.part(at, at + 4))).keys)
    assert torch.equal(mixed[2], alone[0]) and torch.equal(mixed[3], alone[1])


def test_two_videos_equal_one_plain_forward_with_the_same_text_between():
    """Tokens alone are exact: stored keys and values of a video saw no other video."""
    backbone, films = toy_backbone(), {"a": toy_frames(5), "b": toy_frames(4, seed=1)}
    titles = {"a": VideoTitle("a.mp4"), "b": VideoTitle("b.mp4", "Tuesday")}
    texts = {"a": "Video a.mp4:\n", "b": "Video b.mp4, Tuesday:\n"}
    video, per_frame = backbone.config.video_token_id, 4
    ids = backbone.prompt.preamble_ids()
    for name, frames in films.items():
        ids = ids + backbone.prompt.ids(texts[name])
        for t in frames.times:
            ids = ids + backbone.prompt.time_tag_ids(t) + [video] * per_frame
    tail = backbone.prompt.suffix_ids(QUESTION)
    ids = [*ids, video, *tail]
    pixels = np.concatenate([frames.pixels for frames in films.values()])
    values = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255.0 - 0.5) / 0.5
    with torch.inference_mode():
        out = backbone.model(
            input_ids=torch.tensor([ids]), pixel_values_videos=values[None], use_cache=False
        )
    expected = out.logits[0, -len(tail) - 1 :]
    runs = [
        replace(run, video_id=name)
        for name, frames in films.items()
        for run in encode(frames, [2, len(frames) - 2])
    ]
    several = replace(evidence(runs), question=Question(QUESTION, tuple(films)), titles=titles)
    got = TokenReader(backbone).logits(several, silent)
    assert torch.allclose(got, expected, atol=1e-4), (got - expected).abs().max()
    without = TokenReader(backbone).logits(replace(several, titles={}), silent)
    assert not torch.allclose(without, expected, atol=1e-2)
    for reader_class in (TokenReader, KVReader):
        layout = reader_class(backbone).layout(several)
        assert layout.frames_of.unique().tolist() == [-1, *range(9)]
        reading = reader_class(backbone, max_new_tokens=4).read(several, silent)
        assert set(reading.weights) == set(several.names)

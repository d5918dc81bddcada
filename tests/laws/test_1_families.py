"""The laws for every family of video-LLMs, against transformers' own processor and forward.

The models are tiny and random, of the real classes, with pixel input. Float32, 1e-4.
"""

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import encoders.models.torchvision_ops  # noqa: F401

import pytest
import torch
from hydra.utils import get_object

from encoders.models.video_llm import DTYPES, VideoLLM
from encoders.prefill import WindowPrefill, key_means
from encoders.schema import FrameEmbeds, Frames, join_frames
from memory.schema import Question, Run
from pipeline import cli
from pipeline.answer.reader import KVReader, TokenReader
from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config.compose import compose, options
from pipeline.config.parts import check, settings_of
from pipeline.qa import VideoQA
from tests.support.families import (
    FAMILIES,
    backbone_of,
    frames_for,
)
from tests.support.more_families import MORE
from tests.support.records import same
from tests.support.toy_evidence import (
    QUESTION,
    READERS,
    YAMLS,
    arguments_for,
    encode,
    evidence,
    silent,
    toy_of,
)
from tests.support.videos import write_video


def slow_but(*quick: str) -> list[object]:
    """The families as parameters; all but these are slow tests."""
    return [
        name if name in quick else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(FAMILIES)
    ]


@pytest.fixture(params=sorted(FAMILIES))
def family(request):
    chosen = FAMILIES[request.param]
    if chosen.needs:
        pytest.importorskip(chosen.needs)
    return chosen


@pytest.mark.parametrize("reader_class", READERS)
@pytest.mark.parametrize("sizes", [[12], [4, 6, 2], [7 + 4]])
def test_equal_to_the_librarys_forward_from_pixels(family, reader_class, sizes):
    backbone = backbone_of(family.name)
    frames = frames_for(backbone, sum(sizes))
    expected, _ = family.reference_for(reader_class, backbone, frames, QUESTION)
    reader = reader_class(backbone)
    tail = len(reader.prompt_suffix(QUESTION))
    got = reader.logits(evidence(encode(backbone, frames, sizes)), silent)
    # logits that differ: an equality of constants would prove nothing
    assert expected[-tail:].std() > 0.3
    assert torch.allclose(got, expected[-tail:], atol=1e-4), (got - expected[-tail:]).abs().max()


def test_reference_notices_another_picture(family):
    backbone = backbone_of(family.name)
    got = KVReader(backbone).logits(
        evidence(encode(backbone, frames_for(backbone, 8), [8])), silent
    )
    other, _ = family.reference(backbone, frames_for(backbone, 8, seed=1), QUESTION)
    assert not torch.allclose(got, other[-len(got) :], atol=1e-2)


def test_answer_equals_the_librarys_generate(family):
    backbone = backbone_of(family.name)
    frames = frames_for(backbone, 8)
    for reader_class in READERS:
        expected = generated(family, reader_class, backbone, frames)
        reading = reader_class(backbone, max_new_tokens=6).read(
            evidence(encode(backbone, frames, [4, 4])), silent
        )
        assert reading.text == expected
        assert abs(sum(reading.weights.values()) - 1) < 1e-5


def generated(family, reader_class, backbone, frames) -> str:
    """What the library's `generate` says over what this reader reads."""
    _, inputs = family.reference_for(reader_class, backbone, frames, QUESTION)
    with torch.inference_mode():
        out = backbone.model.generate(**inputs, max_new_tokens=6, do_sample=False)
    text = backbone.prompt.text_of(out[0, inputs["input_ids"].shape[1] :].tolist())
    return text.strip()


def test_chunked_look_equals_whole_clip(family):
    backbone = backbone_of(family.name)
    frames = frames_for(backbone, 12)
    whole = backbone.encode_frames(frames).tokens
    parts = torch.cat(
        [backbone.encode_frames(frames.part(a, a + 2)).tokens for a in range(0, 12, 2)]
    )
    assert torch.allclose(whole, parts, atol=1e-5)


def test_filling_a_cache_leaves_what_a_whole_pass_leaves(family):
    backbone = backbone_of(family.name)
    model = backbone.language_model
    seen = backbone.frame_embeds(backbone.encode_frames(frames_for(backbone, 4)))
    sink = model.embed(backbone.prompt.preamble_ids())
    tail = model.embed(backbone.prompt.suffix_ids(QUESTION))
    caches = [model.cache(len(sink) + len(seen) + len(tail)) for _ in range(2)]
    thought = []
    last = backbone.decoder.layers[-1].mlp.register_forward_hook(lambda *_: thought.append(run))
    for run, cache in zip((model.forward, model.prefill), caches, strict=True):
        run(sink, cache)
        run(seen, cache)
    last.remove()
    assert thought == 2 * [model.forward]  # filling left the last layer early
    whole, filled = caches
    assert filled.mark() == whole.mark()
    stop = whole.mark()[0]
    for a, b in ((whole.keys, filled.keys), (whole.values, filled.values)):
        assert torch.equal(a[..., :stop, :], b[..., :stop, :])
    # and goes on as any other
    assert torch.equal(model.forward(tail, whole), model.forward(tail, filled))


def test_a_block_reads_equal_wherever_it_was_written(family):
    """Keys are stored before rotary embedding. A frame without a window gives the same block in
    first and in fourth place. Without the frames before it, the answer is that of the shorter
    video.
    """
    backbone = backbone_of(family.name)
    model = backbone.language_model
    frames = frames_for(backbone, 8)
    prefill = WindowPrefill(backbone, window_frames=0, dtype="float32")
    seen = backbone.encode_frames(frames.part(6, 8))
    alone = prefill(seen)
    assert alone.keys.shape[1:] == (2, len(alone.keys[0, 0]), 16)
    cache = model.cache(4096)
    model.forward(model.embed(backbone.prompt.preamble_ids()), cache)
    model.append_block(encode(backbone, frames.part(0, 6), [6])[0].kv, cache)
    before = cache.get_seq_length()
    model.append_block(alone, cache)
    placed = model.cache(4096)
    model.forward(model.embed(backbone.prompt.preamble_ids()), placed)
    model.append_block(encode(backbone, frames.part(0, 6), [6])[0].kv, placed)
    new = backbone.frame_embeds(seen)
    positions, _ = model.positions.of_frames(new.pos, new.offsets, placed.cursor)
    keys = cache.stored(before, model.rope(positions), torch.float32)[0]
    assert torch.allclose(keys, alone.keys, atol=1e-5)


def test_two_streams_interleaved_give_the_banks_of_one_after_the_other(family):
    backbone = backbone_of(family.name)
    first, second = frames_for(backbone, 8, 1), frames_for(backbone, 8, 2)
    alone = [encode(backbone, f, [4, 4], window=4)[1].kv for f in (first, second)]
    # leaves state on the model's modules, if any
    family.reference(backbone, frames_for(backbone, 6, 3), QUESTION)
    a, b = (WindowPrefill(backbone, window_frames=4, dtype="float32") for _ in range(2))
    mixed = []
    for at in (0, 4):
        for prefill, frames in ((a, first), (b, second)):
            mixed.append(prefill(backbone.encode_frames(frames.part(at, at + 4))))
    for got, expected in zip(mixed[2:], alone, strict=True):
        assert torch.equal(got.keys, expected.keys) and torch.equal(got.values, expected.values)


def test_window_rebuilt_from_stored_blocks_gives_the_same_bytes(family):
    backbone = backbone_of(family.name)
    frames = frames_for(backbone, 24)
    whole = encode(backbone, frames, [8, 8, 8], window=5)
    resumed = WindowPrefill(backbone, window_frames=5, dtype="float32")
    resumed.restore([run.kv for run in whole[:2]])
    block = resumed(backbone.encode_frames(frames.part(16, 24)))
    assert torch.equal(block.keys, whole[2].kv.keys) and torch.equal(
        key_means(block), key_means(whole[2].kv)
    )


def test_cut_segment_reads_like_the_shorter_video(family):
    """Law 3 inside a segment: its first frames do not know its later ones."""
    backbone = backbone_of(family.name)
    frames = frames_for(backbone, 12)
    whole = encode(backbone, frames, [12])[0]
    frames_each = backbone.temporal_patch
    kept = 8 // frames_each
    cut = Run("toy", 0, 0, whole.tokens.frames(0, kept), whole.kv.frames(0, kept))
    for reader_class in READERS:
        expected, _ = family.reference_for(reader_class, backbone, frames.part(0, 8), QUESTION)
        got = reader_class(backbone).logits(evidence([cut]), silent)
        assert torch.allclose(got, expected[-len(got) :], atol=1e-4)


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_video(path, 6, 4)
    return path


def test_ask_answers_like_the_library(family, film, tmp_path, capsys):
    """The whole command, over a file: decoded, encoded, stored, recalled and read."""
    arguments = arguments_for(family, film, tmp_path / "bank", "format=json", "read_tokens=4096")
    backbone = backbone_of(family.name)
    frames = join_frames(list(build_source(compose("ask", arguments), backbone).frames()))
    assert len(frames) == 12
    # the first encodes, the second finds the bank filled
    for reader, reader_class in (("kv", KVReader), ("tokens", TokenReader)):
        assert cli.run("ask", [*arguments, f"reader={reader}"]) == 0
        expected = generated(family, reader_class, backbone, frames)
        assert json.loads(capsys.readouterr().out)["text"] == expected


@contextmanager
def opened(family, film: Path, bank: Path, *more: str) -> Iterator[tuple[VideoQA, Any]]:
    config = compose("ask", arguments_for(family, film, bank, *more))
    backbone = build_backbone(config)
    source = build_source(config, backbone)
    qa = build_qa(config, backbone)
    try:
        yield qa, source
    finally:
        qa.bank.close()


def test_encode_once_and_bounded(family, film, tmp_path, monkeypatch):
    """Laws 2 and 6: with reader=kv, a question about an encoded video encodes no frame and prefills
    none. Its reads stay within `read_tokens`, which is far below the video's tokens.
    """
    with opened(family, film, tmp_path / "bank", "prefill.window_frames=2") as (qa, source):
        per_frame = qa.backbone.tokens_per_frame
        qa = replace(qa, answerer=replace(qa.answerer, read_tokens=3 * per_frame))
        first = qa.ingest(source)
        looks, lengths = [], []
        forward = qa.backbone.language_model.forward
        monkeypatch.setattr(qa.backbone, "encode_frames", lambda *_: looks.append(1))
        monkeypatch.setattr(
            qa.backbone.language_model,
            "forward",
            lambda e, *a, **k: (lengths.append(type(e)), forward(e, *a, **k))[1],
        )
        for _ in range(2):
            assert qa.ingest(source).new_segments == 0
            answer = qa.ask(Question(QUESTION, source.info.video_id))
            assert 0 < answer.visual_tokens <= 3 * per_frame < first.frames * per_frame
            ends = [(round(a, 6), round(b, 6)) for a, b in answer.spans]
            assert all(0 <= a < b <= 6 for a, b in ends)
        assert looks == [] and FrameEmbeds not in lengths


SCENES = (
    "segmenter.max_seconds=1.5",
    "segmenter.min_seconds=1",
    "segmenter.memory=3",
    "segmenter.warm_up=1",
    "segmenter.lag=1",
)


@pytest.mark.slow  # in `make test`: test_4_resume.py
@pytest.mark.parametrize("at_rest", ["as made", "int8"])
def test_an_interrupted_bank_goes_on_with_the_same_bytes(family, film, tmp_path, at_rest):
    """Law 4 with temporal patches. Segments of 1.5 s at 2 frames a second would cut a patch, and
    the scene segmenter looks back. The resumed run begins a patch where the first one did. Two
    families are also quantized: one with one axis and a tag, one with three axes, text behind its
    frames and DeepStack.
    """
    if at_rest == "int8" and family.name not in ("llava_ov", "qwen3_vl"):
        pytest.skip("quantised for two families that differ in everything")
    quantised = ["kv_dtype=int8", "token_dtype=int8"] if at_rest == "int8" else []
    for segmenter in ("window", "scene"):
        more = (
            f"segmenter={segmenter}", "prefill.window_frames=3", *quantised,
            *(SCENES if segmenter == "scene" else ["segmenter.seconds=1.5"]),
        )  # fmt: skip
        files = {}
        for name in ("whole", "cut"):
            bank = tmp_path / segmenter / name
            if name == "cut":
                with opened(family, film, bank, *more) as (qa, source):
                    written = []

                    def write(segment, real=qa.bank.write, written=written):
                        if len(written) == 2:
                            raise KeyboardInterrupt
                        written.append(real(segment))
                        return written[-1]

                    qa.bank.write = write
                    with pytest.raises(KeyboardInterrupt):
                        qa.ingest(source)
            with opened(family, film, bank, *more) as (qa, source):
                assert qa.ingest(source).warning == ""
                rows = qa.bank.catalog.segments(source.info.video_id)
                assert qa.bank.check.verify() == []
                assert sum(row.frames for row in rows) == -(-12 // qa.backbone.temporal_patch)
            files[name] = {
                p.relative_to(bank): p.read_bytes()
                for p in sorted(bank.glob("segments/*/*.safetensors"))
            }
        assert files["whole"] == files["cut"] and len(files["whole"]) > 2


# one with one axis, one with three
@pytest.mark.parametrize("family", slow_but("llava_ov", "qwen3_vl"), indirect=True)
def test_a_quantised_bank_reads_like_the_video(family, film, tmp_path):
    """int8 keys, values and tokens of any family keep their places and times, and are as near as
    int8 is.
    """
    banks = []
    for name, more in (("made", []), ("int8", ["kv_dtype=int8", "token_dtype=int8"])):
        with opened(family, film, tmp_path / name, *more) as (qa, source):
            assert qa.ingest(source).warning == "" and qa.bank.check.verify() == []
            banks.append(
                [
                    qa.bank.catalog.read_segment(row.video_id, row.number)
                    for row in qa.bank.catalog.segments(source.info.video_id)
                ]
            )
            assert qa.ask(Question(QUESTION, source.info.video_id)).frames_read > 0
    for made, back in zip(*banks, strict=True):
        for a, b in (
            (made.tokens.tokens, back.tokens.tokens),
            (made.kv.keys, back.kv.keys),
            (made.kv.values, back.kv.values),
        ):
            assert a.shape == b.shape and float((a - b).norm() / a.norm()) < 0.03
        exact = (
            replace(back.tokens, tokens=made.tokens.tokens),
            replace(back.kv, keys=made.kv.keys, values=made.kv.values),
        )
        assert same(exact, (made.tokens, made.kv))
        assert (made.kv.pos is not None) == (qa.backbone.language_model.positions.axes == 3)
        assert (made.tokens.firsts is not None) == (qa.backbone.temporal_patch > 1)


def test_a_repeated_frame_loses_its_time_and_never_a_mark(family):
    """Text before a frame may be dropped if it is only a time. The marks that a family puts around
    a frame stay in pairs.
    """
    backbone = backbone_of(family.name)
    seen = backbone.encode_frames(frames_for(backbone, 4 * backbone.temporal_patch))
    merged = replace(seen, repeats=torch.tensor([False, True, False, True]))
    plain, got = backbone.frame_embeds(seen), backbone.frame_embeds(merged)
    around = [
        backbone.frame_text_ids(a, b)
        for a, b in zip(seen.starts.tolist(), seen.times.tolist(), strict=True)
    ]
    if around[0][1]:
        assert same(plain, got)
    lost = [
        len(before) if repeated and not behind else 0
        for (before, behind), repeated in zip(around, [0, 1, 0, 1], strict=True)
    ]
    assert (plain.offsets.diff() - got.offsets.diff()).tolist() == lost
    assert int(got.visual.sum()) == len(seen.tokens)
    is_only_time = around[1] == (backbone.prompt.time_tag_ids(float(seen.times[1])), [])
    assert (lost[1] > 0) == is_only_time
    assert is_only_time or family.name != "llava_ov"


# -- the contract of the group conf/backbone -------------------------------------------------------


@pytest.mark.parametrize("name", [file.stem for file in YAMLS])
def test_every_option_of_the_group_is_a_video_llm_with_the_common_settings(name):
    node = options("backbone", {"fps": 0.25})[name]
    check("backbone", node)
    adapter = get_object(node["_target_"])
    assert issubclass(adapter, VideoLLM) and adapter is not VideoLLM
    assert adapter in {family.adapter for family in (*FAMILIES.values(), *MORE.values())}, (
        "a family without a toy in tests/support/families.py"
    )
    taken = settings_of(adapter)
    assert set(taken) >= {"path", "dtype", "device", "attention", "revision"}
    assert node["path"] and node["dtype"] in DTYPES
    # stands in the YAML, or the base class says what it is without
    defaults = inspect.signature(VideoLLM).parameters
    for key in ("device", "attention", "revision"):
        assert key in node or defaults[key].default is not inspect.Parameter.empty
    if "fps" in taken:  # a model that counts frames must count the bank's
        assert node["fps"] == 0.25


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_is_an_adapter_with_a_record_of_its_own_size(name):
    backbone = toy_of(name)
    frames = frames_for(backbone, 4)
    seen = backbone.encode_frames(frames)
    rows, columns = backbone.grid()
    assert (
        backbone.tokens_per_frame == rows * columns
        and len(seen.times) == 4 // backbone.temporal_patch
    )
    assert seen.offsets.diff().tolist() == [rows * columns] * len(seen.times)
    assert seen.pos[: rows * columns].tolist() == [
        [0, row, column] for row in range(rows) for column in range(columns)
    ]
    with pytest.raises(ValueError, match="the tower takes"):
        backbone.encode_frames(Frames("toy", frames.pixels[:, :-2], frames.times))

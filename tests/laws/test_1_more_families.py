"""Law 1 for the families and decoders of `tests/support/more_families.py`: ids, positions, pixels
and logits against transformers' own processor and forward. Float32, 1e-4.
"""

from contextlib import nullcontext
from typing import Any

import encoders.models.torchvision_ops  # noqa: F401

import pytest
import torch

from encoders.errors import UserError
from encoders.models.positions import Cursor
from encoders.models.video_llm import VideoLLM
from encoders.prefill import NoPrefill, WindowPrefill
from memory.schema import Evidence, Hits, Question, Run
from pipeline.answer.batched_reader import BatchedReader
from pipeline.answer.reader import KVReader, TokenReader
from pipeline.build import build_qa, build_source
from pipeline.config.compose import compose
from tests.support.families import FPS, Family, frames_for
from tests.support.more_families import MORE, backbone_of, folder
from tests.support.toys import toy_parts
from tests.support.videos import write_video

QUESTION = "In what order did the star and the circle appear?"
HYBRIDS = ("qwen3_5", "qwen3_5_moe")


def silent(stage: str):
    return nullcontext()


@pytest.fixture(params=sorted(MORE))
def family(request) -> Family:
    return MORE[request.param]


def evidence(backbone: VideoLLM, sizes: list[int], keeps_kv: bool) -> Evidence:
    prefill = WindowPrefill(backbone, dtype="float32") if keeps_kv else NoPrefill(backbone)
    frames, runs, at, first = frames_for(backbone, sum(sizes)), [], 0, 0
    for number, size in enumerate(sizes):
        seen = backbone.encode_frames(frames.part(at, at + size))
        runs.append(Run("toy", number, first, seen, prefill(seen)))
        at, first = at + size, first + len(seen.times)
    none = Hits(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    return Evidence(Question(QUESTION, "toy"), tuple(runs), none, 0, 1 / FPS)


def readers(name: str) -> list[Any]:
    return [TokenReader] if name in HYBRIDS else [TokenReader, KVReader]


def test_logits_and_answers_equal_the_librarys(family):
    backbone = backbone_of(family.name)
    frames = frames_for(backbone, 10)
    expected, inputs = family.reference(backbone, frames, QUESTION)
    with torch.inference_mode():
        out = backbone.model.generate(**inputs, max_new_tokens=4, do_sample=False)
    text = backbone.prompt.text_of(out[0, inputs["input_ids"].shape[1] :].tolist()).strip()
    for reader_class in readers(family.name):
        reader = reader_class(backbone, max_new_tokens=4)
        given = evidence(backbone, [4, 6], reader_class is KVReader)
        got = reader.logits(given, silent)
        assert expected[-len(got) :].std() > 0.3
        assert torch.allclose(got, expected[-len(got) :], atol=1e-4)
        reading = reader.read(given, silent)
        assert reading.text == text and abs(sum(reading.weights.values()) - 1) < 1e-5
        both = BatchedReader(reader).read([given, given], silent)
        assert [each.text for each in both] == [text, text]
    chunked = TokenReader(backbone, chunk_frames=3)
    got = chunked.logits(evidence(backbone, [4, 6], keeps_kv=False), silent)
    assert torch.allclose(got, expected[-len(got) :], atol=1e-4)


def test_ids_equal_the_processors(family):
    backbone = backbone_of(family.name)
    frames = frames_for(backbone, 5)  # odd: the last frame of a temporal patch is used twice
    _, inputs = family.reference(backbone, frames, QUESTION)
    seen = backbone.encode_frames(frames)
    pad, ids = None, backbone.prompt.preamble_ids()
    given = inputs["input_ids"][0].tolist()
    times = zip(seen.starts.tolist(), seen.times.tolist(), strict=True)
    for (start, end), (a, b) in zip(times, seen.ranges(), strict=True):
        before, behind = backbone.frame_text_ids(start, end)
        ids = ids + before
        pad = given[len(ids)]  # the family's own token for pictures
        ids = ids + [pad] * (b - a) + behind
    assert ids + backbone.prompt.suffix_ids(QUESTION) == given
    assert given.count(pad) == len(seen.tokens)


def test_positions_equal_the_models(family):
    """On three axes, where the model has them."""
    backbone = backbone_of(family.name)
    rule = backbone.language_model.positions
    if rule.axes == 1:
        pytest.skip("one axis: 0, 1, 2, ...")
    frames = frames_for(backbone, 6)
    _, inputs = family.reference(backbone, frames, QUESTION)
    names = ("input_ids", "mm_token_type_ids", "video_grid_thw", "attention_mask")
    wanted, _ = backbone.model.model.get_rope_index(**{name: inputs[name] for name in names})
    embeds = backbone.frame_embeds(backbone.encode_frames(frames))
    first, cursor = rule.of_text(len(backbone.prompt.preamble_ids()), Cursor())
    middle, cursor = rule.of_frames(embeds.pos, embeds.offsets, cursor)
    last, _ = rule.of_text(len(backbone.prompt.suffix_ids(QUESTION)), cursor)
    assert torch.equal(torch.cat([first, middle, last], dim=1), wanted[-3:, 0])


def test_pixels_equal_the_processors(family):
    backbone = backbone_of(family.name)
    frames = frames_for(backbone, 4)
    _, inputs = family.reference(backbone, frames, QUESTION)
    got = backbone.pixels(frames.pixels)
    got = got[0] if isinstance(got, tuple) else got
    wanted = inputs.get("pixel_values_videos", inputs.get("pixel_values"))
    assert torch.allclose(got, wanted.reshape(got.shape), atol=1e-6)


@pytest.mark.parametrize("name", HYBRIDS)
def test_a_model_without_keys_of_frames_reads_tokens(name, tmp_path):
    """A bank of visual tokens serves it; keys are refused before a frame is encoded."""
    write_video(tmp_path / "a.mp4", 4, 4, size=(96, 64))
    yaml = "qwen3_5_4b" if name == "qwen3_5" else "qwen3_6_35b_a3b"
    given = [
        f"video={tmp_path / 'a.mp4'}", f"bank={tmp_path / 'bank'}", f"question={QUESTION}",
        f"fps={FPS}", toy_parts()[1], f"backbone={yaml}", f"backbone.path={folder(name)}",
        "backbone.dtype=float32", "backbone.width=96", "backbone.height=64",
    ]  # fmt: skip
    backbone = backbone_of(name)
    with pytest.raises(UserError, match=r"linear_attention.*use reader=tokens prefill=none"):
        build_qa(compose("ask", given), backbone)
    assert not (tmp_path / "bank").exists()
    config = compose("ask", [*given, "reader=tokens", "prefill=none", "retriever=clip"])
    source = build_source(config, backbone)
    qa = build_qa(config, backbone)
    try:
        qa.ingest(source)
        answer = qa.ask(Question(QUESTION, source.info.video_id))
        assert answer.frames_read == 4 and answer.spans
    finally:
        qa.bank.close()


def test_glm_writes_times_as_the_processor_of_the_checkpoint(tmp_path):
    """Whole seconds in GLM-4.1V, tenths in GLM-4.6V."""
    texts = []
    for name in ("glm4_1v", "glm4_6v"):
        backbone = backbone_of(name)
        before, behind = backbone.frame_text_ids(12.5, 13.0)
        texts.append(backbone.processor.tokenizer.decode(before + behind))
    marks = "<|begin_of_image|><|end_of_image|>"
    assert texts == [f"{marks}12", f"{marks}12.5 seconds"]

"""Law 1 for what a single family has: where text goes on, marks, time tags, and frame numbers.

The models are tiny and random, of the real classes, with pixel input. Float32, 1e-4."""

import json
import shutil
from typing import Any

import encoders.models.torchvision_ops  # noqa: F401

import numpy as np
import pytest
import torch
from hydra.utils import get_object

from encoders.errors import UserError
from encoders.models.families.llava_onevision import LlavaOneVision
from encoders.models.families.smolvlm import SmolVLM
from encoders.models.positions import Cursor
from encoders.schema import Frames
from encoders.sources.sampling import sampling_mask
from memory.schema import Run
from pipeline import cli
from pipeline.answer.reader import KVReader, TokenReader
from pipeline.config.compose import options
from tests.support.families import (
    FAMILIES,
    FPS,
    as_llavas_processor,
    backbone_of,
    folder,
    frames_for,
    processed,
)
from tests.support.toy_evidence import (
    QUESTION,
    READERS,
    arguments_for,
    encode,
    evidence,
    silent,
    toy_of,
)

# -- Qwen2-VL and Qwen2.5-VL: where text goes on after a video -------------------------------------


def authors_positions(inputs: dict[str, Any], interval: float, merge: int = 2) -> torch.Tensor:
    """[3, 1, S] from the position function in Qwen's own repository, where text after a video
    continues behind the highest position of all.
    """
    kinds = inputs["mm_token_type_ids"][0].tolist()
    frames, rows, columns = (int(n) for n in inputs["video_grid_thw"][0])
    first = kinds.index(2)
    t, r, c = torch.meshgrid(
        *(torch.arange(n) for n in (frames, rows // merge, columns // merge)), indexing="ij"
    )
    video = torch.stack([(t * interval).long(), r, c]).flatten(1) + first
    text = torch.arange(len(kinds) - first - video.shape[1]) + int(video.max()) + 1
    return torch.cat([torch.arange(first).expand(3, -1), video, text.expand(3, -1)], dim=1)[:, None]


# 3 positions a second, 1 s a patch
@pytest.mark.parametrize(("name", "interval"), [("qwen2_vl", 1.0), ("qwen2_5_vl", 3.0)])
def test_text_after_a_video_stands_where_the_authors_place_it(name, interval):
    """By default. The families' other tests compare with transformers 5.23 and select its way."""
    library = backbone_of(name)
    backbone = FAMILIES[name].adapter(str(folder(name)), width=84, height=56, fps=FPS)
    frames = frames_for(backbone, 16)
    other, inputs = FAMILIES[name].reference(library, frames, QUESTION)
    with torch.inference_mode():
        positions = authors_positions(inputs, interval)
        expected = library.model(**inputs, position_ids=positions, use_cache=False).logits[0]
    for reader_class in READERS:
        got = reader_class(backbone).logits(evidence(encode(backbone, frames, [8, 8])), silent)
        assert torch.allclose(got, expected[-len(got) :], atol=1e-4)
        # the two rules do differ here
        assert not torch.allclose(got, other[-len(got) :], atol=1e-2)
    with pytest.raises(UserError, match="text_after_video=mine"):
        FAMILIES[name].load(text_after_video="mine")


# patches of 448 x 252 pixels at 1 frame a second; the last patch's position in time and the
# question's first position, from get_rope_index of transformers 4.57.1, which is Qwen's own code
AUTHORS = [
    ("qwen2_5_vl_3b", 4, 16, 20),
    ("qwen2_5_vl_3b", 5, 20, 21),
    ("qwen2_5_vl_3b", 8, 32, 33),
    ("qwen2_5_vl_3b", 24, 96, 97),
    ("qwen2_5_vl_3b", 32, 128, 129),
    ("qwen2_vl_2b", 24, 27, 28),
]


@pytest.mark.parametrize(("name", "patches", "last", "question"), AUTHORS)
def test_positions_of_a_published_qwen_are_the_authors(name, patches, last, question):
    node = options("backbone", {"fps": 1.0})[name]
    adapter = get_object(node["_target_"])
    config = adapter.published_config(node["path"])
    rows, columns = adapter.frame_grid(config, node["width"], node["height"])
    rule = adapter.rule(config, node["fps"], node["text_after_video"])
    _, cursor = rule.of_text(4, Cursor())  # <|im_start|> user \n <|vision_start|>
    grid = torch.cartesian_prod(torch.tensor([0]), torch.arange(rows), torch.arange(columns))
    offsets = torch.arange(patches + 1) * rows * columns
    positions, cursor = rule.of_frames(grid.repeat(patches, 1), offsets, cursor)
    assert positions[0].min() == 4 and positions[0].max() == last
    assert positions[1].max() == 4 + rows - 1 and positions[2].max() == 4 + columns - 1
    text, cursor = rule.of_text(9, cursor)
    assert text.tolist() == 3 * [list(range(question, question + 9))]
    answer, _ = rule.of_text(1, cursor)  # the first generated token
    assert answer.tolist() == 3 * [[question + 9]]


# -- Qwen3-VL: the vision marks around a whole video -----------------------------------------------


def test_qwen3_writes_no_vision_marks_around_a_whole_video(tmp_path):
    """Its authors' processor writes none. The library's own are an option, with other keys."""
    backbone, outer = backbone_of("qwen3_vl"), FAMILIES["qwen3_vl"].load(outer_vision_marks=True)
    frames = frames_for(backbone, 6)
    _, authors = FAMILIES["qwen3_vl"].reference(backbone, frames, QUESTION)
    expected, library = processed(outer, frames, QUESTION)
    marks = outer.prompt.ids("<|vision_start|>") + outer.prompt.ids("<|vision_end|>")
    ids = library["input_ids"][0].tolist()
    first = ids.index(marks[0])
    last = len(ids) - 1 - ids[::-1].index(marks[1])
    assert authors["input_ids"][0].tolist() == ids[:first] + ids[first + 1 : last] + ids[last + 1 :]
    for reader_class in READERS:
        got = reader_class(outer).logits(evidence(encode(outer, frames, [6])), silent)
        assert torch.allclose(got, expected[-len(got) :], atol=1e-4)
    assert backbone.fingerprint() == outer.fingerprint() + "-no-outer-vision-marks"


@pytest.mark.slow  # seconds of CPU
def test_a_bank_with_the_outer_marks_is_refused_and_the_option_opens_it(film, tmp_path):
    """Banks that earlier versions wrote have them: their fingerprint has no suffix."""
    bank = tmp_path / "bank"
    arguments = arguments_for(FAMILIES["qwen3_vl"], film, bank)
    assert cli.run("ask", [*arguments, "++backbone.outer_vision_marks=true"]) == 0
    with pytest.raises(
        UserError, match=r"the settings of the bank: backbone\.outer_vision_marks=true$"
    ):
        cli.run("ask", arguments)
    assert cli.run("ask", [*arguments, "++backbone.outer_vision_marks=true"]) == 0


# -- LLaVA-OneVision: time tags --------------------------------------------------------------------


def test_llava_onevision_writes_no_time_tags_by_default():
    """As its own processor: ids, pixels and logits. The embedded model was trained with tags."""
    backbone = LlavaOneVision(str(folder("llava_ov")))
    frames = frames_for(backbone, 6)
    expected, inputs = as_llavas_processor(backbone, frames, QUESTION)
    video = [backbone.config.video_token_id] * (6 * backbone.tokens_per_frame + 1)
    prompt = backbone.prompt
    ids = prompt.preamble_ids() + video + prompt.suffix_ids(QUESTION)
    assert inputs["input_ids"][0].tolist() == ids
    for reader_class in READERS:
        got = reader_class(backbone).logits(evidence(encode(backbone, frames, [4, 2])), silent)
        assert torch.allclose(got, expected[-len(got) :], atol=1e-4)
    tagged = FAMILIES["llava_ov"].load(time_tags=True)
    assert backbone.fingerprint() == tagged.fingerprint() + "-no-time-tags"
    for name, node in options("backbone", {"fps": 1.0}).items():
        if "LlavaOneVision" in node["_target_"]:
            assert node["time_tags"] is (name == "embedded")


# -- InternVL and SmolVLM: what only they have -----------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (
            "internvl",
            [
                "\nFrame1: <img></img>",
                "\nFrame6: <img></img>",
                "\nFrame7: <img></img>",
                "\nFrame7202: <img></img>",
            ],
        ),
        (
            "smolvlm",
            [
                f"\nFrame from {time}:<fake_token_around_image><global-img>"
                "<fake_token_around_image>"
                for time in ("00:00", "00:02", "00:03", "60:00")
            ],
        ),
    ],
)
def test_a_recalled_frame_keeps_its_number_or_time(name, wanted):
    """Four frames of an hour in one context equal the library's forward over them."""
    backbone = toy_of(name)
    opening = backbone.opening_ids(4, 3600.5)
    if name == "smolvlm":
        sentence = "series of four frames from a 1:00:00 [H:MM:SS] video."
        assert sentence in backbone.processor.tokenizer.decode(opening)
    frames = frames_for(backbone, 4)
    frames = Frames("toy", frames.pixels, np.array([0.0, 2.5, 3.0, 3600.5]))
    seen = backbone.encode_frames(frames)
    ids = opening
    for time, text in zip(frames.times.tolist(), wanted, strict=True):
        before, behind = backbone.frame_text_ids(time, time)
        assert backbone.processor.tokenizer.decode(before + behind) == text
        ids = ids + before + [backbone.config.image_token_id] * backbone.tokens_per_frame + behind
    ids = torch.tensor([ids + backbone.prompt.suffix_ids(QUESTION)])
    video = torch.from_numpy(frames.pixels).permute(0, 3, 1, 2)
    made = backbone.processor.video_processor([video], do_resize=False, return_tensors="pt")
    pixels = made["pixel_values_videos"][0] if name == "internvl" else made["pixel_values"]
    with torch.inference_mode():
        expected = backbone.model(input_ids=ids, pixel_values=pixels, use_cache=False).logits[0]
    got = TokenReader(backbone).logits(evidence([Run("toy", 0, 0, seen, None)]), silent)
    assert torch.allclose(got, expected[-len(got) :], atol=1e-4)


@pytest.mark.parametrize("rate", [24, 25, 30000 / 1001, 59.94])
@pytest.mark.parametrize("fps", [0.5, 1.0, 2.0, 7.0, 20.0])
def test_internvl_numbers_the_sampled_frames_of_a_whole_video_one_by_one(rate, fps):
    """The library does so at any frame rate of the video: a frame is the first one behind its point
    of the grid.
    """
    backbone = FAMILIES["internvl"].load(fps=fps)
    times = np.arange(int(40 * rate)) / rate
    times = times[sampling_mask(times, fps)]
    texts = [
        backbone.processor.tokenizer.decode(backbone.frame_text_ids(time, time)[0])
        for time in times.tolist()
    ]
    assert texts == [f"\nFrame{number}: <img>" for number in range(1, len(times) + 1)]


def test_internvl_numbers_the_frames_of_an_answer_from_one():
    """frame_numbers=read: four frames of an hour are those of a film of four frames."""
    backbone = FAMILIES["internvl"].load(frame_numbers="read")
    frames = frames_for(backbone, 4)
    late = Frames("toy", frames.pixels, np.array([0.0, 2.5, 3.0, 3600.5]))
    expected, _ = processed(backbone, frames, QUESTION)
    run = Run("toy", 0, 0, backbone.encode_frames(late), None)
    got = TokenReader(backbone).logits(evidence([run]), silent)
    assert torch.allclose(got, expected[-len(got) :], atol=1e-4)
    by_time = TokenReader(backbone_of("internvl")).logits(evidence([run]), silent)
    assert not torch.allclose(by_time, got, atol=1e-2)
    with pytest.raises(UserError, match="frame_numbers=read needs reader=tokens"):
        KVReader(backbone)
    with pytest.raises(UserError, match="frame_numbers=mine"):
        FAMILIES["internvl"].load(frame_numbers="mine")


def test_internvl_refuses_a_rate_that_numbers_nothing():
    with pytest.raises(UserError, match="fps=0"):
        FAMILIES["internvl"].load(fps=0.0)


def test_smolvlm_sees_black_frames(tmp_path):
    """The library takes a picture whose normalized values are all zero for padding, and gives it no
    tokens.
    """
    toy_of("smolvlm")
    shutil.copytree(folder("smolvlm"), tmp_path / "toy")
    for file in (tmp_path / "toy").glob("*processor*.json"):
        settings = json.loads(file.read_text())
        for part in settings, settings.get("video_processor", {}):
            if "image_mean" in part:
                part["image_mean"] = [0.0, 0.0, 0.0]
        file.write_text(json.dumps(settings))
    backbone = SmolVLM(str(tmp_path / "toy"), dtype="float32")
    frames = frames_for(backbone, 6)
    black = frames.pixels.copy()
    black[[0, 2, 3]] = 0
    given = backbone.pixels(black)
    assert not given[2].any() and given[1].any()
    dropped = backbone.model.get_image_features(given[None]).pooler_output[0]
    assert len(dropped) == 3 * backbone.tokens_per_frame  # what look must not do
    seen = backbone.encode_frames(Frames("toy", black, frames.times)).tokens.unflatten(0, (6, -1))
    plain = backbone.encode_frames(frames).tokens.unflatten(0, (6, -1))
    assert torch.allclose(seen[[1, 4, 5]], plain[[1, 4, 5]], atol=1e-5)
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[2], seen[3])
    # 1/255 in one corner is not padding any more, and hardly another picture
    black[[0, 2, 3], 0, 0, 0] = 1
    near = backbone.encode_frames(Frames("toy", black, frames.times)).tokens.unflatten(0, (6, -1))
    assert torch.allclose(seen[0], near[0], atol=1e-2) and not torch.allclose(
        seen[0], plain[0], atol=0.1
    )


def test_a_processor_without_its_package_is_told_in_one_sentence(monkeypatch):
    toy_of("smolvlm")
    monkeypatch.setattr("transformers.models.smolvlm.processing_smolvlm.num2words", None)
    with pytest.raises(
        UserError, match=r"Cannot load a model from backbone.path=.*pip install num2words"
    ):
        FAMILIES["smolvlm"].load()

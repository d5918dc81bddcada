"""Lines of text between the frames (reader.lines=between), as LongVideoBench reads subtitles."""

from dataclasses import replace

import pytest
import torch

from encoders.errors import UserError
from encoders.models.video_llm import VideoLLM
from encoders.schema import join_tokens
from encoders.text.lines import TextLine
from memory.schema import Evidence
from pipeline.answer.batched_reader import BatchedReader
from pipeline.answer.frame_order.frame_orders import ScoreOrder
from pipeline.answer.reader import KVReader, TokenReader
from pipeline.answer.text_evidence import between_frames, prompt_line
from tests.support.families import frames_for
from tests.support.toy_evidence import QUESTION, READERS, encode, evidence, silent, toy_of
from tests.support.toys import toy_backbone


def line(text: str, start: float, end: float, video: str = "toy") -> TextLine:
    return TextLine(video, start, end, "subtitle", text, end)


LINES = (line("the ring is red", 0.2, 1.4), line("now it is blue", 1.0, 3.6))


def read_of(name: str, *lines: TextLine) -> tuple[VideoLLM, Evidence]:
    backbone = toy_backbone() if name == "llava_onevision" else toy_of(name)
    runs = encode(backbone, frames_for(backbone, 8), [4, 4])
    return backbone, replace(evidence(runs), lines=lines)


def test_a_line_stands_behind_the_last_frame_up_to_its_middle() -> None:
    early, late = line("a", 0.0, 2.0), line("b", 2.0, 9.0)
    assert between_frames((early, late), [0.0, 1.0, 2.0, 5.5]) == [
        ("", 0, 2), (prompt_line(early), 2, 4), (prompt_line(late), 4, 4),
    ]  # fmt: skip
    both = prompt_line(early) + prompt_line(early)
    assert between_frames((early, early), [4.0]) == [(both, 0, 1)]
    assert between_frames((), [1.0, 2.0]) == [("", 0, 2)]


def test_equal_to_the_librarys_forward_over_the_same_prompt() -> None:
    """Law 1: the library gets the pieces in this order as one input."""
    backbone, read = read_of("llava_onevision", *LINES)
    tokens = join_tokens([run.tokens for run in read.runs])
    frames = backbone.frame_embeds(tokens, whole=True)
    embed, prompt = backbone.language_model.embed, backbone.prompt
    pieces = [embed(prompt.preamble_ids())]
    for text, first, stop in between_frames(LINES, tokens.times.tolist()):
        a, b = int(frames.offsets[first]), int(frames.offsets[stop])
        pieces += [embed(prompt.ids(text)), frames.embeds[a:b]]
    suffix = [backbone.after_video(), embed(prompt.suffix_ids(QUESTION))]
    with torch.inference_mode():
        whole = torch.cat(pieces + suffix)[None]
        expected = backbone.model.model.language_model(inputs_embeds=whole).last_hidden_state
        expected = backbone.model.lm_head(expected)[0, -sum(map(len, suffix)) :]
    got = TokenReader(backbone, lines="between").logits(read, silent)
    assert expected.std() > 0.1 and torch.allclose(got, expected, atol=1e-4)
    behind = TokenReader(backbone).logits(read, silent)
    assert not torch.allclose(got[-1], behind[-1], atol=1e-3)


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl", "qwen3_vl"])
def test_both_readers_have_the_same_places_and_cite_frames_alone(name: str) -> None:
    backbone, read = read_of(name, *LINES)
    readers = [reader(backbone, lines="between", max_new_tokens=3) for reader in READERS]
    tokens, kv = (reader.layout(read) for reader in readers)
    assert tokens.length == kv.length and torch.equal(tokens.frames_of, kv.frames_of)
    plain = READERS[0](backbone).layout(read)
    words = sum(len(backbone.prompt.ids(prompt_line(one))) for one in LINES)
    assert tokens.length == plain.length + words
    for reader in readers:
        reading = reader.read(read, silent)
        assert set(reading.weights) == set(read.names)
        (batched, other) = BatchedReader(reader).read([read, replace(read, lines=())], silent)
        assert batched.text == reading.text and other.weights


def test_what_does_not_fit_is_refused() -> None:
    backbone, read = read_of("llava_onevision", line("of another film", 0, 1, "other"))
    reader = KVReader(backbone, lines="between")
    assert reader.lines_behind(read) == read.lines  # no frame of it is read
    with pytest.raises(UserError, match=r"per_layer=true"):
        reader.layout(replace(read, per_layer=torch.zeros(1, 1, dtype=torch.int64)))
    with pytest.raises(UserError, match=r"needs frame_order=time"):
        KVReader(backbone, lines="between", frame_order=ScoreOrder())
    with pytest.raises(UserError, match=r"reader.lines=above is not known"):
        KVReader(backbone, lines="above")

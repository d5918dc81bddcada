"""A scan of lines by attention: its numbers are those of transformers, and what it refuses."""

from dataclasses import replace
from pathlib import Path

import encoders.models.torchvision_ops  # noqa: F401  (first: transformers imports torchvision)

import pytest
import torch

from encoders.errors import UserError
from encoders.text.lines import TextBlock, TextLine, TextSpan
from memory.text.bm25 import LineFilter
from pipeline.answer.line_scan.attention_scan import AttentionScan
from pipeline.answer.line_scan.line_stream import stream
from pipeline.answer.text_evidence import prompt_line
from pipeline.moments.finder import Finder
from tests.support.banks import opened
from tests.support.matching_model import matching_backbone
from tests.support.records import make_video, write_video
from tests.support.toys import toy_backbone, toy_checkpoint

from transformers import LlavaOnevisionForConditionalGeneration  # isort: skip

TEXTS = ["the blue card", "Alice has a key", "Bob is in the house", "a star and a boat", "the sun"]
LINES = [
    TextLine("v", 2.0 * at, 2.0 * at + 1, "subtitle", text, 2.0 * at + 1)
    for at, text in enumerate(TEXTS)
]
QUESTION = "who has the key"


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_window_that_holds_all_lines_is_one_pass_of_transformers(layers: int) -> None:
    """The limit case: the masses are those of the library's own attention over all lines, in
    float32 to 1e-5, on a random model."""
    prompt = toy_backbone().prompt
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(
        toy_checkpoint(), dtype=torch.float32, attn_implementation="eager"
    ).eval()
    texts = [prompt.ids(prompt_line(line)) for line in LINES]
    lead, suffix = prompt.preamble_ids(), prompt.suffix_ids(QUESTION)
    ids = torch.tensor([[*lead, *(token for text in texts for token in text), *suffix]])
    with torch.no_grad():
        attentions = model(input_ids=ids, output_attentions=True).attentions  # each [1, Hq, S, S]
    to_all = torch.stack(attentions[-layers:])[:, 0, :, -len(suffix) :].mean((0, 1, 2))  # [S]
    lengths = [len(text) for text in texts]
    expected = [one.sum().item() for one in to_all[len(lead) : -len(suffix)].split(lengths)]

    scan = AttentionScan(toy_backbone(), layers=layers)
    found = scan.rank(QUESTION, LINES, len(LINES))
    assert {one.line.text: one.score for one in found} == pytest.approx(
        dict(zip(TEXTS, expected, strict=True)), abs=1e-5
    )
    assert sum(one.coverage for one in found) == pytest.approx(1.0)
    exactly = AttentionScan(toy_backbone(), layers=layers, window_tokens=sum(lengths))
    assert exactly.rank(QUESTION, LINES, 9) == found
    # several windows that drop nothing end with the same pass, and others do not
    halves = AttentionScan(toy_backbone(), layers=layers, window_tokens=sum(lengths) - 1)
    assert halves.rank(QUESTION, LINES, 9) == found
    few = {"window_tokens": sum(lengths) - 1, "keep_tokens": max(lengths)}
    assert AttentionScan(toy_backbone(), layers=layers, **few).rank(QUESTION, LINES, 9) != found


def test_a_kept_line_is_read_again_with_the_next_window() -> None:
    """By hand: with two windows, the best of the first and all of the second in one pass."""
    prompt = toy_backbone().prompt
    lengths = [len(prompt.ids(prompt_line(line))) for line in LINES]
    keep, window = max(lengths), sum(lengths[:3])
    assert keep < 2 * min(lengths) and window < sum(lengths[:4]) and sum(lengths[3:]) <= window
    (first, *_) = AttentionScan(toy_backbone()).rank(QUESTION, LINES[:3], 1)
    again = AttentionScan(toy_backbone()).rank(QUESTION, [first.line, *LINES[3:]], 9)
    scan = AttentionScan(toy_backbone(), window_tokens=window, keep_tokens=keep)
    assert scan.rank(QUESTION, LINES, 9) == again[:1]


def test_what_reads_nothing_or_no_text_is_refused() -> None:
    backbone = matching_backbone()
    for settings in ({"window_tokens": 0}, {"keep_tokens": 0}, {"layers": 0}):
        with pytest.raises(UserError, match=r"read nothing; use 1 or more of each"):
            AttentionScan(backbone, **settings)
    with pytest.raises(UserError, match=r"do not fit into the 4096 positions"):
        AttentionScan(backbone, window_tokens=4096)


def test_the_stream_is_every_line_of_the_filter_in_order_of_time(tmp_path: Path) -> None:
    """Over stretches of ten minutes, several extractors, and lines that reach into the span."""
    spoken = tuple(
        replace(LINES[0], start=t, end=t + 2, known=t + 2, kind="speech", text=f"s{t}")
        for t in (0.0, 599.0, 600.0, 1250.0)
    )
    printed = tuple(
        replace(LINES[0], start=t, end=t + 900, known=t + 1, kind="ocr", text=f"o{t}")
        for t in (5.0, 1199.5)
    )
    with opened(tmp_path / "bank") as bank:
        for video_id in ("v", "w"):
            write_video(bank, make_video(video_id, 1))
        bank.text.write(TextBlock("v", "asr", "m", 0, TextSpan(0, 1300.0, spoken, True)))
        bank.text.write(TextBlock("v", "ocr", "m", 0, TextSpan(0, 1200.0, printed, True)))
        bank.text.write(TextBlock("w", "ocr", "m", 0, TextSpan(0, 9.0, (), True)))

        def texts(line_filter: LineFilter) -> list[str]:
            return [one.text for one in stream(bank.text, line_filter)]

        everything = ["s0.0", "o5.0", "s599.0", "s600.0", "o1199.5", "s1250.0"]
        assert texts(LineFilter()) == texts(LineFilter("v")) == everything
        assert texts(LineFilter("w")) == []
        assert texts(LineFilter("v", ("ocr",))) == ["o5.0", "o1199.5"]
        assert texts(LineFilter("v", start=700.0)) == ["o5.0", "o1199.5", "s1250.0"]
        assert texts(LineFilter("v", end=600.0)) == everything[:3]
        assert texts(LineFilter("v", asked_at=601.0)) == everything[:3]
        assert texts(LineFilter(within={"v": (0.0, 3.0)})) == ["s0.0"]


def test_a_finder_ranks_lines_by_attention_too(tmp_path: Path) -> None:
    """Beside the kinds of lines; quoted words leave it out."""
    scan = AttentionScan(matching_backbone())
    with opened(tmp_path / "bank") as bank:
        write_video(bank, make_video("v", 1))
        bank.text.write(TextBlock("v", "s", "m", 0, TextSpan(0, 10.0, tuple(LINES), True)))
        finder = Finder(bank, ("subtitle",), line_scan=scan)
        best = finder.find(QUESTION)[0]
        assert best.lines[0].text == "Alice has a key" and "attention" in best.channels
        plan, limits = finder.plan('"a key"')
        assert set(finder.rankings(plan, None, limits)) == {"subtitle"}

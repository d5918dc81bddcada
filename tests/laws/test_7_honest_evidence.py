"""Law 7, honest evidence: cited spans were in the context, and "not in the video" cites nothing."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from encoders.text.lines import TextBlock, TextLine, TextSpan
from memory.schema import Evidence, Question
from pipeline.answer.citations import cite, cited_spans
from pipeline.answer.quotes.words import NAMES_ASKED, NO_ANSWER, NO_WORDS
from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config.compose import compose
from pipeline.needle_world import video
from pipeline.needle_world.scoring import cites_all, on_needles
from pipeline.schema import NOT_SAID, NOT_SEEN, Answer, CitedFrame, is_shown
from tests.support.qa import TEXT, ask, opened


def test_cited_frames_were_read(long_film, tmp_path):
    with opened(
        long_film, tmp_path / "bank", "read_tokens=40", "recent_frames=2", "cite_share=0.1"
    ) as (qa, source):
        qa.ingest(source)
        for asked_at in (math.inf, 31.5):
            question = Question(TEXT, source.info.video_id, asked_at)
            evidence = qa.bank.recall(question, read_tokens=40)
            read = {
                o: t
                for run in evidence.runs
                for o, t in zip(run.ordinals, run.tokens.times.tolist(), strict=True)
            }
            answer = qa.ask(question)
            assert answer.cited and answer.shown
            assert all(read[frame.ordinal] == frame.time for frame in answer.cited)
            assert [f.weight for f in answer.cited] == sorted(
                (f.weight for f in answer.cited), reverse=True
            )
            times = [frame.time for frame in answer.cited]
            for a, b in answer.spans:  # each begins and ends with a frame that was read and cited
                assert (
                    min(abs(a - t) for t in times) < 1e-3
                    and min(abs(b - 1 - t) for t in times) < 1e-3
                )
                assert max(read.values()) + 1 >= b - 1e-3
            assert all(any(a - 1e-3 <= t < b for a, b in answer.spans) for t in times)


def test_not_in_the_video_cites_nothing(film, tmp_path):
    with opened(film, tmp_path / "bank", says="not in the video") as (qa, source):
        qa.ingest(source)
        answer = ask(qa, source)
        assert (answer["text"], answer["shown"], answer["spans"], answer["cited"]) == (
            "not in the video",
            False,
            (),
            (),
        )
        assert answer["frames_read"] == 20
    with opened(film, tmp_path / "other", says="star, circle") as (qa, source):
        qa.ingest(source)
        answer = ask(qa, source)
        assert (answer["text"], answer["shown"]) == ("star, circle", True)


def test_what_counts_as_not_shown():
    assert not is_shown("not in the video") and not is_shown("It is Not in the Video.")
    assert is_shown("4821") and is_shown("")


def test_an_empty_answer_cannot_be_made() -> None:
    """An answer that says nothing, or that cites what it does not show, is refused where it is
    made."""
    answer = Answer("what?", "4821", True, ((1.0, 2.0),), (), "v", None, 1, 16, {})
    for text in ("", " ", "\n"):
        with pytest.raises(ValueError, match="without text"):
            replace(answer, text=text)
    with pytest.raises(ValueError, match="does not show"):
        replace(answer, shown=False)
    assert replace(answer, shown=False, spans=()).spans == ()


def test_a_model_that_says_nothing_cites_nothing(film, tmp_path, monkeypatch):
    """One question, several at once, and in pieces: a sentence, never an empty answer."""
    with opened(film, tmp_path / "bank") as (qa, source):
        qa.ingest(source)
        silent = qa.backbone.prompt.stop_ids()
        monkeypatch.setattr(
            qa.backbone.language_model,
            "decode",
            lambda hidden, cache, most, *rest: iter(()),
        )
        question = Question(TEXT, source.info.video_id)
        pieces: list[str] = []
        alone = qa.ask(question, pieces.append)
        assert silent and alone.text and "".join(pieces) == alone.text
        answers = qa.ask_all([question])
        for answer in (alone, *answers):
            assert isinstance(answer, Answer)
            assert answer.text == NO_ANSWER and not answer.shown
            assert (answer.spans, answer.cited, answer.lines) == ((), (), ())


OAK = """1
00:00:03,000 --> 00:00:06,000
The first pier was built of oak in 1721.

2
00:00:07,000 --> 00:00:10,000
Fishermen dragged their boats onto the sand.
"""


def embedded(film, folder, *overrides: str):
    """The parts of `reelbank ask` with the embedded model, on a copy of the film."""
    copy = folder / "talk.mp4"
    folder.mkdir(exist_ok=True)
    if not copy.exists():
        copy.write_bytes(film.read_bytes())
    common = [f"video={copy}", f"bank={folder / 'bank'}", "question=-"]
    config = compose("ask", [*common, *overrides])
    backbone = build_backbone(config)
    return build_qa(config, backbone), build_source(config, backbone)


def test_words_answer_what_the_embedded_model_cannot(film, tmp_path) -> None:
    """Quoted with its moment and channel; refused where it is not said; never empty."""
    (tmp_path / "talk.srt").write_text(OAK)
    qa, source = embedded(film, tmp_path, "text=subtitles")
    with qa.bank:
        qa.ingest(source)
        pieces: list[str] = []
        video = source.info.video_id
        said = qa.ask(Question("When was the first pier built?", video), pieces.append)
        assert said.text == '00:03 "The first pier was built of oak in 1721."'
        assert "".join(pieces) == said.text
        assert (said.shown, said.channel, said.cited_by) == (True, "subtitle", "quote")
        assert said.spans == ((3.0, 6.0),) and said.frames_read == 0
        assert said.confidence is not None and 0.4 < said.confidence <= 1
        quoted = [line for line in said.lines if line.read]
        assert [line.text for line in quoted] == ["The first pier was built of oak in 1721."]
        assert all(a <= line.start < b for line in quoted for a, b in said.spans)
        early = qa.ask(Question("When was the first pier built?", video, asked_at=2.5))
        absent = qa.ask(Question("How much does a helmet cost?", video))
        for answer in (early, absent):
            assert (answer.text, answer.shown) == (NOT_SAID, False)
            assert (answer.spans, answer.cited, answer.lines) == ((), (), ())
        cards = Question("What is the code on the card?", video)
        alone = qa.ask(cards)
        assert alone.frames_read > 0  # the model looked
        together = qa.ask_all([cards, Question("When was the first pier built?", video)])
        assert [one.text for one in together] == [alone.text, said.text]


@pytest.mark.slow
def test_a_thing_that_was_looked_for_in_vain_is_not_seen(film, tmp_path) -> None:
    """Only where an extractor knows its name and looked at the whole; nothing is cited then."""
    (tmp_path / "talk.srt").write_text(OAK)
    qa, source = embedded(film, tmp_path, "text=subtitles")
    video = source.info.video_id

    def looked(extractor: str, *names: str, last: bool = True) -> None:
        qa.bank.text.drop(video, extractor)
        kind = extractor.removesuffix("s")
        lines = tuple(TextLine(video, 1.0, 4.0, kind, name, 1.0) for name in names)
        span = TextSpan(0.0, 10.0, lines, last)
        qa.bank.text.write(TextBlock(video, extractor, "made up", 0, span))

    def said(text: str, asked_at: float = math.inf) -> str:
        answer = qa.ask(Question(text, video, asked_at))
        if not answer.shown:
            assert (answer.spans, answer.cited, answer.lines) == ((), (), ())
            assert (NAMES_ASKED in answer.warning) == (answer.text == NOT_SEEN)
        return answer.text

    with qa.bank:
        qa.ingest(source)
        assert said("Is there a giraffe?") == NOT_SAID  # nobody looked
        looked("objects", "dog", last=False)
        assert said("Is there a giraffe?") == NOT_SAID  # nobody looked at the end
        assert said("Is there a giraffe?", asked_at=9.0) == NOT_SEEN
        looked("objects", "dog")
        assert said("Is there a giraffe?") == said("Are there any giraffes?") == NOT_SEEN
        assert said("Is there anybody?") == NOT_SEEN
        assert said("Is there a dog?") == "dog: 00:01-00:04"
        # a dog is an animal, and no name of a class
        assert said("Is there an animal?") == said("How much does a giraffe cost?") == NOT_SAID
        assert said("Is there a guitar?") == NOT_SAID  # which labels alone know
        looked("labels")
        assert said("Is there a guitar?") == said("Is there a plane?") == NOT_SEEN
        assert said("Is there a vehicle?") == NOT_SAID
        qa.bank.text.drop(video, "subtitles")
        looked("objects")
        assert said("Is there a giraffe?") == NOT_SEEN  # of a film without any line
        assert said("What does the giraffe eat?") == NO_WORDS


@pytest.mark.slow
def test_a_film_without_words_gets_one_honest_sentence(film, tmp_path) -> None:
    qa, source = embedded(film, tmp_path, "text=none")
    with qa.bank:
        qa.ingest(source)
        answer = qa.ask(Question("What does the baby hold?", source.info.video_id))
        assert (answer.text, answer.shown, answer.channel) == (NO_WORDS, False, "")
        assert (answer.spans, answer.cited, answer.lines) == ((), (), ())


def frame_at(ordinal: int, time_: float, interval: float = 1.0) -> CitedFrame:
    return CitedFrame("toy", ordinal, 0, time_, time_ + interval, 0.5, None)


@pytest.mark.parametrize(
    ("times", "interval", "expected"),
    [
        ([], 1.0, ()),
        ([3.0], 1.0, ((3.0, 4.0),)),
        ([3.0, 4.0, 5.0], 1.0, ((3.0, 6.0),)),
        ([5.0, 3.0, 4.0], 1.0, ((3.0, 6.0),)),
        ([3.0, 5.0], 1.0, ((3.0, 4.0), (5.0, 6.0))),
        ([3.0, 4.04], 1.0, ((3.0, 5.04),)),  # uneven frame times are still neighbours
        ([3.0, 3.5, 4.5], 0.5, ((3.0, 4.0), (4.5, 5.0))),
        ([0.1 * i for i in range(5)], 0.1, ((0.0, 0.5),)),
    ],
)
def test_neighbouring_frames_become_one_span(times, interval, expected):
    assert (
        cited_spans(tuple(frame_at(i, t, interval) for i, t in enumerate(times)), interval)
        == expected
    )


@given(st.sets(st.integers(0, 60)))
def test_spans_cover_exactly_the_cited_seconds(seconds):
    found = cited_spans(tuple(frame_at(s, float(s)) for s in seconds), 1.0)
    assert {s for a, b in found for s in range(int(a), int(b))} == seconds
    assert all(b < c for (_, b), (c, _) in pairwise(found))


def test_which_frames_are_cited(film, tmp_path):
    with opened(film, tmp_path / "bank") as (qa, source):
        qa.ingest(source)
        evidence = qa.bank.recall(Question(TEXT, source.info.video_id), read_tokens=1000)
    hits = replace(evidence.hits, places=torch.tensor([4, 2]), scores=torch.tensor([0.9, 0.5]))
    evidence = replace(evidence, hits=hits)
    frame = evidence.names
    weights = dict.fromkeys(frame[:20], 0.01) | {frame[4]: 0.5, frame[7]: 0.2, frame[2]: 0.12}
    cited = cite(evidence, weights, share=0.25)
    assert [(f.ordinal, f.time, f.segment) for f in cited] == [(4, 4.0, 0), (7, 7.0, 0)]
    assert cited[0].score == pytest.approx(0.9) and cited[1].score is None
    assert [f.ordinal for f in cite(evidence, weights, share=0.2)] == [4, 7, 2]
    assert cite(evidence, {}, share=0.25) == ()
    even = dict.fromkeys(frame[:20], 1 / 20)
    assert len(cite(evidence, even, share=0.25)) == 20  # nothing stands out, nothing is hidden
    assert isinstance(evidence, Evidence)


def test_a_card_is_cited_alone_and_a_count_of_nothing_cites_nothing(tmp_path) -> None:
    """The embedded model's retrieval heads look at the card, and for "0" at no frame."""
    code = video.parse("code:4821@5.2", seed=1)
    footage = video.procedural_footage(3, (480, 270))
    video.write(tmp_path / "cards.mp4", (code,), 14.0, footage, fps=4)
    qa, source = embedded(tmp_path / "cards.mp4", tmp_path / "qa", "text=none")
    with qa.bank:
        qa.ingest(source)
        said = qa.ask(Question("What is the code?", source.info.video_id))
        assert (said.text, said.shown) == ("4821", True) and said.cited
        assert cites_all(said.spans, (code,)) and all(on_needles(said.spans, (code,)))
        none = qa.ask(Question("How many rings were shown?", source.info.video_id))
        assert (none.text, none.shown) == ("0", True)
        assert (none.spans, none.cited) == ((), ()) and none.recalled

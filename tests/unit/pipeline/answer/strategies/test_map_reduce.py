"""Map-reduce on the toy models: as many contexts as segments, findings that stay, and a reduction
by the model in levels.
"""

import threading
from dataclasses import replace

import pytest

from encoders.models.generation import Generation
from encoders.text.lines import FINDING, TextLine
from memory.schema import Question, VideoTitle
from pipeline.answer.schema import local
from pipeline.answer.strategies.call_log import ROOM
from pipeline.answer.strategies.mapping.text_levels import TextLevels, grouped, merged
from pipeline.answer.strategies.retrieve import Retrieve
from pipeline.runtime.cancel import Cancelled
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import Reading
from tests.support.qa import opened

ABOUT = "What is this film about?"
SAYS = "a red ring"


@pytest.fixture
def qa(film, tmp_path):
    options = ("answer=map_reduce", "segmenter.seconds=4", "answer.contexts=2")
    with opened(film, tmp_path / "bank", *options, says=SAYS) as (qa, source):
        qa.ingest(source)
        yield qa, source.info.video_id


def steps(answer) -> list[tuple[str, int]]:
    return [(call.step, call.contexts) for call in answer.trace.calls]


def test_every_segment_is_read_once(qa):
    parts, video_id = qa
    answer = parts.ask(Question(ABOUT, video_id))
    assert steps(answer) == [("map", 2), ("map", 2), ("map", 1), ("reduce", 1)]
    assert answer.frames_read == 20 and answer.cited_by == "finding"
    assert [line.channel for line in answer.lines] == [FINDING] * 5


def test_a_later_question_of_the_same_form_reads_the_findings(qa):
    parts, video_id = qa
    first = parts.ask(Question(ABOUT, video_id))
    second = parts.ask(Question(ABOUT, video_id))
    assert steps(second) == [("reduce", 1)] and second.trace.reused == 5
    assert (second.text, second.spans, second.lines) == (first.text, first.spans, first.lines)
    other = parts.ask(Question("Where is the ring?", video_id))
    assert other.trace.reused == 0


@pytest.mark.slow  # seconds of CPU
def test_findings_depend_on_the_reader_and_on_its_ranking(film, tmp_path):
    """Where the frames of a segment are read by their rank, the search decides what is said."""
    options = ("answer=map_reduce", "segmenter.seconds=4", "retriever=kv")
    ordered = (*options, "frame_order=edges")
    reused = []
    for own in (
        options, ordered, (*ordered, "query_pool=last"), (*ordered, "block_score=kmeans"),
        (*options, "reader.max_thinking_tokens=8"), (*options, "query_pool=last"), ordered,
    ):  # fmt: skip
        with opened(film, tmp_path / "bank", *own, says=SAYS) as (qa, source):
            qa.ingest(source)
            reused.append(qa.ask(Question(ABOUT, source.info.video_id)).trace.reused)
    assert reused == [0, 0, 0, 0, 0, 5, 5]


def test_findings_that_stay_are_whole_whatever_the_question_wants_of_its_answer(qa):
    parts, video_id = qa
    short = Question(ABOUT, video_id, generation=Generation(max_tokens=1))
    first = parts.ask(short)
    later = parts.ask(Question(ABOUT, video_id))
    assert first.text != SAYS == later.text and later.trace.reused == 5
    assert [line.text for line in later.lines] == [SAYS] * 5


def test_findings_are_no_words_of_the_film(qa):
    """A search, and an answer by another strategy, are as they were before."""
    parts, video_id = qa
    plain = replace(parts, answerer=replace(parts.answerer, strategy=Retrieve()))
    question, runs = Question("Is there a ring?", video_id), parts.bank.text.runs(video_id)
    before = plain.ask(question)
    parts.ask(Question(ABOUT, video_id))
    after = plain.ask(question)
    assert (before.text, before.lines, before.cited) == (after.text, after.lines, after.cited)
    assert parts.bank.text.runs(video_id) == runs


def test_findings_go_with_the_video(qa):
    parts, video_id = qa
    parts.ask(Question(ABOUT, video_id))
    assert parts.bank.findings.nbytes() > 0
    parts.bank.drop(video_id)
    assert parts.bank.findings.nbytes() == 0


def test_a_damaged_block_is_made_again(qa):
    parts, video_id = qa
    first = parts.ask(Question(ABOUT, video_id))
    (path,) = (parts.bank.root / "findings").rglob("*.jsonl")
    path.write_bytes(path.read_bytes().replace(b"ring", b"cake"))
    again = parts.ask(Question(ABOUT, video_id))
    assert again.trace.reused == 0 and again.lines == first.lines


def test_an_early_question_keeps_nothing_and_sees_nothing_later(qa):
    parts, video_id = qa
    early = parts.ask(Question(ABOUT, video_id, 9.5))
    assert early.frames_read == 10 and parts.bank.findings.nbytes() == 0


def test_it_ends_between_two_passes(qa):
    parts, video_id = qa
    cancelled, passes = threading.Event(), []
    reader = parts.answerer.batched_reader

    class Ending:
        def read(self, group, timer):
            passes.append(len(group))
            cancelled.set()
            return reader.read(group, timer)

    ending = replace(parts, answerer=replace(parts.answerer, batched_reader=Ending()))
    with pytest.raises(Cancelled):
        ending.ask(Question(ABOUT, video_id), cancelled=cancelled)
    assert passes == [2]


@pytest.mark.parametrize("limit", ["reduce_tokens", "window"])
def test_more_findings_than_a_prompt_holds_are_shortened_first(film, tmp_path, limit):
    tokens = 128 if limit == "reduce_tokens" else 2048
    options = ("answer=map_reduce", "segmenter.seconds=1", f"answer.reduce_tokens={tokens}")
    with opened(film, tmp_path / "bank", *options, says=SAYS) as (qa, source):
        if limit == "window":
            model = local(qa.answerer.reader, "a test").backbone.language_model
            model.max_positions = ROOM + 128
        qa.ingest(source)
        answer = qa.ask(Question(ABOUT, source.info.video_id))
        assert [step for step, _ in steps(answer)].count("shorten") >= 1
        assert steps(answer)[-1] == ("reduce", 1)
        assert max(call.text_tokens / call.contexts for call in answer.trace.calls) < 200


def line(start: float, text: str) -> TextLine:
    return TextLine("v", start, start + 1, FINDING, text, start + 1, parents=(int(start),))


def test_a_shortened_finding_rests_on_the_segments_of_all():
    one = merged([line(3, "c"), line(1, "a")], "both")
    assert (one.start, one.end, one.parents, one.text) == (1, 4, (1, 3), "both")


def test_groups_fit_the_budget_and_keep_the_order():
    lines = [line(i, "x" * 10) for i in range(5)]
    groups = grouped(lines, len, 60)
    assert [each for group in groups for each in group] == lines
    assert [len(group) for group in groups] == [2, 2, 1]


class Shortening:
    """Reads by repeating the first letter of every line, and remembers which lines it read."""

    window = None  # tokens that the model holds: nobody knows a limit

    def __init__(self) -> None:
        self.groups: list[tuple[TextLine, ...]] = []

    def read_all(self, step, group, timer):
        self.groups += [evidence.lines for evidence in group]
        return [Reading("".join(each.text[0] for each in evidence.lines), {}) for evidence in group]


def test_lines_of_several_films_are_shortened_film_by_film():
    lines = [
        replace(line(at, letter * 10), video_id=film)
        for film, letters in (("a", "xyz"), ("b", "pq"), ("c", "r"))
        for at, letter in enumerate(letters)
    ]
    titles = {film: VideoTitle(film) for film in "abc"}
    log = Shortening()
    levels = TextLevels(log, StageTimer(), len, 120, 8, titles)
    question = Question(ABOUT, tuple("abc"))
    level = levels.fit(question, lines)
    assert [(each.video_id, each.text) for each in level] == [
        ("a", "xyz"),
        ("b", "pq"),
        ("c", "r" * 10),  # alone: nothing to shorten
    ]
    assert [{each.video_id for each in group} for group in log.groups] == [{"a"}, {"b"}]
    narrow = TextLevels(Shortening(), StageTimer(), len, 45, 8, titles)
    both, third = narrow.fit(question, [level[0], level[1], replace(level[2], text="r")])
    assert (both.video_id, both.text, third.video_id) == ("", "xp", "c")
    assert [each.video_id for each in narrow.rests_on([both, third])] == ["a", "b", "c"]

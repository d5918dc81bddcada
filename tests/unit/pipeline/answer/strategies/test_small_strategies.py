"""Caption, chain, iterative, dual and second look on the toy models."""

import pytest

from encoders.errors import UserError
from memory.schema import Question
from pipeline.answer.strategies.caption import Caption
from pipeline.answer.strategies.chain import Chain
from pipeline.answer.strategies.iterative import Iterative
from pipeline.answer.strategies.second_look import SecondLook
from pipeline.needle_world.cards import NAMES
from tests.support.qa import opened

SAYS = "a red ring"
WHO = "Who enters?"


def ask(film, bank, *options, says=SAYS, text=WHO):
    with opened(film, bank, "read_tokens=24", *options, says=says) as (qa, source):
        qa.ingest(source)
        return qa.ask(Question(text, source.info.video_id))


def steps(answer) -> list[str]:
    return [call.step for call in answer.trace.calls]


@pytest.mark.slow
def test_caption_reads_lines_and_no_frame(film, tmp_path):
    answer = ask(film, tmp_path, "answer=caption")
    assert (answer.text, answer.frames_read, answer.visual_tokens) == (SAYS, 0, 0)
    assert steps(answer) == ["answer"] and answer.channel == "subtitle"
    assert [line.channel for line in answer.lines] == ["subtitle"] * 3
    assert answer.trace.why.endswith("and no frame, with the vision tower out of memory")
    summed = ask(film, tmp_path, "answer=caption", "answer.summarise_first=true")
    assert steps(summed) == ["shorten", "answer"]


def test_caption_unloads_the_tower_until_a_film_is_encoded(film, tmp_path):
    with opened(film, tmp_path, "answer=caption", says=SAYS) as (qa, source):
        tower = qa.backbone.model.get_encoder
        assert qa.ingest(source, until=1).new_segments == 2
        qa.ask(Question(WHO, source.info.video_id))
        assert tower(modality="video") is None
        assert qa.ingest(source).new_segments == 1 and tower(modality="video") is not None


def test_caption_without_lines_says_what_to_do(film, tmp_path):
    with pytest.raises(UserError, match="none of the video up to this moment; encode it with"):
        ask(film, tmp_path, "answer=caption", "text=none")
    with pytest.raises(UserError, match="none of the video"):
        ask(film, tmp_path, "answer=caption", "answer.kinds=[caption]")


def test_chain_reads_every_segment_in_turn(film, tmp_path):
    answer = ask(film, tmp_path, "answer=chain", "segmenter.seconds=4")
    assert steps(answer) == ["note"] * 5 + ["answer"] and answer.frames_read == 20
    assert answer.trace.notes == (SAYS,)


@pytest.mark.slow
def test_chain_keeps_its_note_short(film, tmp_path):
    long = " ".join(NAMES[:20])
    answer = ask(
        film, tmp_path, "answer=chain", "answer.note_tokens=16", "reader.max_new_tokens=30",
        says=long,
    )  # fmt: skip
    assert answer.trace.notes[0] and len(answer.trace.notes[0]) < len(long)


@pytest.mark.slow  # seconds of CPU
def test_chain_goes_on_from_the_note_of_an_earlier_question(film, tmp_path):
    """Also in another process, and of a stream that was taken up again: it reads what came since,
    and answers as from the beginning. A question about an earlier moment sees no later note."""
    options = ("answer=chain", "read_tokens=24", "segmenter.seconds=0.5", "fps=2")

    def asked(qa, video_id, **more):
        answer = qa.ask(Question(WHO, video_id, **more))
        return answer, len([call for call in answer.trace.calls if call.step == "note"])

    def plain(answer):
        return answer.text, answer.spans, answer.trace.notes

    with opened(film, tmp_path / "a", *options, says=SAYS) as (qa, source):
        qa.ingest(source, until=19)  # a block and four more
        first, steps_of_first = asked(qa, source.info.video_id)
        again, steps_of_again = asked(qa, source.info.video_id)
        assert (steps_of_first, first.trace.reused) == (20, 0)
        assert (steps_of_again, again.trace.reused) == (4, 16) and plain(again) == plain(first)
    with opened(film, tmp_path / "a", *options, says=SAYS) as (qa, source):
        qa.ingest(source, until=35)
        later, steps_of_later = asked(qa, source.info.video_id)
        early, _ = asked(qa, source.info.video_id, asked_at=4.4)
        assert (steps_of_later, later.trace.reused) == (20, 16)
        assert early.trace.reused == 0 and all(end <= 5.0 for _, end in early.spans)
        told, _ = asked(qa, source.info.video_id, asked_at=9.0, context="Earlier: who left?")
        assert told.trace.reused == 0  # the model reads what was said before as well
    for threshold in (0.5, 0.6):  # the same instruction, but another judge of what is not there
        more = ("abstention=first_token", f"abstention.threshold={threshold}")
        with opened(film, tmp_path / "a", *options, *more, says=SAYS) as (qa, source):
            assert asked(qa, source.info.video_id, asked_at=9.0)[0].trace.reused == 0
    fresh = (*options, "answer.keep_notes=false")
    with opened(film, tmp_path / "b", *fresh, says=SAYS) as (qa, source):
        qa.ingest(source, until=35)
        whole, steps_of_whole = asked(qa, source.info.video_id)
        assert (steps_of_whole, whole.trace.reused) == (36, 0) and plain(whole) == plain(later)


def test_iterative_stops_when_an_answer_suffices(film, tmp_path):
    answer = ask(film, tmp_path, "answer=iterative")
    assert steps(answer) == ["round 1"] and answer.text == SAYS


def test_iterative_reads_other_frames_in_every_round(film, tmp_path):
    answer = ask(film, tmp_path, "answer=iterative", says="not in the video")
    assert steps(answer) == ["round 1", "probe", "round 2", "probe", "round 3"]
    assert not answer.shown and answer.spans == () and len(answer.trace.notes) == 3
    assert answer.frames_read == 18  # of 20, none twice


@pytest.mark.slow  # seconds of CPU
def test_dual_says_whether_pictures_and_words_agree(film, tmp_path):
    answer = ask(film, tmp_path, "answer=dual")
    assert answer.text == SAYS and answer.trace.notes[-1].startswith("they agree")
    assert steps(answer) == ["answer", "answer"]
    mute = ask(film, tmp_path / "mute", "answer=dual", "text=none")
    assert mute.trace.notes == ("the video has no words",)


def test_second_look_reads_whole_segments(film, tmp_path):
    options = ("answer=second_look", "segmenter.seconds=4", "answer.segments=2")
    answer = ask(film, tmp_path, *options)
    assert steps(answer) == ["look", "look", "answer"] and answer.frames_read == 8
    assert answer.text == SAYS and len(answer.lines) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: Caption(line_tokens=1),
        lambda: Caption(kinds=["smell"]),
        lambda: Chain(note_tokens=1),
        lambda: Iterative(rounds=0),
        lambda: SecondLook(segments=0),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(UserError, match="answer\\."):
        make()

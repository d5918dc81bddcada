"""One writer and many askers: what can be asked when, what survives, and which messages come.

The embedded model runs where an answer has to be right, and toy models run elsewhere. Pictures are
pushed or really sent.
"""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from encoders.errors import UserError
from encoders.sources.file import FileSource
from encoders.sources.live.file_playback import FilePlayback
from encoders.sources.live.url_source import UrlSource
from memory.schema import Question
from pipeline.build import build_backbone, build_live, build_qa
from pipeline.config.compose import compose
from pipeline.live.encoder_turns import EncoderTurns
from pipeline.live.session import Session
from pipeline.qa import VideoQA
from tests.support.records import files
from tests.support.sessions import feed, pushed, wait_until_seen, wait_until_stored, world
from tests.support.streams import Sender
from tests.support.toys import toy_parts
from tests.support.videos import numbered, write_video

CODE = "What is the code on the card?"


def since(second: float) -> dict[str, tuple[tuple[float, float], ...]]:
    """Spans of a question about what came from this second of the stream on."""
    return {"page": ((second, math.inf),)}


@contextmanager
def parts(bank: Path, *overrides: str) -> Iterator[VideoQA]:
    config = compose("ask", ["video=x", "question=x", f"bank={bank}", *overrides])
    backbone = build_backbone(config)
    qa = build_qa(config, backbone)
    with qa.bank:
        yield qa


@pytest.mark.slow
def test_frames_of_the_open_segment_are_seen_and_nothing_after_the_question(embedded, tmp_path):
    paint = world("code:4821@10", "name:Alice@13")
    with embedded(tmp_path / "bank") as qa:
        source = pushed(qa)
        with Session(qa, source) as session:
            with pytest.raises(UserError, match="no frame yet"):
                session.ask(CODE)
            feed(source, paint, 0, 10)
            wait_until_seen(session, 9)
            assert qa.ask(Question(CODE, "page")).text == "not in the video"
            feed(source, paint, 10, 12)  # seconds 8 to 11 are the open segment
            wait_until_seen(session, 11)
            wait_until_stored(session, 1)
            assert len(qa.bank.catalog.segments("page")) == 1
            answer = qa.ask(Question(CODE, "page"))
            assert answer.text == "4821" and answer.spans == ((10.0, 12.0),)
            assert qa.ask(Question(CODE, "page", asked_at=9.5)).text == "not in the video"  # law 3
            feed(source, paint, 12, 20)
            wait_until_seen(session, 19)
            sealed = qa.ask(Question(CODE, "page"))
            assert sealed.text == "4821" and sealed.spans == answer.spans
            assert (
                {f.ordinal for f in sealed.cited} == {f.ordinal for f in answer.cited} == {10, 11}
            )  # the same frames, now on the disk
            assert qa.ask(Question(CODE, "page", spans=since(12.5))).text == "not in the video"
            assert (
                qa.ask(
                    Question(
                        "What is the secret word?",
                        "page",
                        16.0,
                        spans=since(12.0),
                    )
                ).text
                == "Alice"
            )
        assert session.status().state == "stopped" and session.status().dropped == 0
        rows = qa.bank.catalog.segments("page")
        # the open segment became a last, short one
        assert rows[-1].end == 20.0 and rows[-1].frames == 4


@pytest.mark.slow  # seconds of CPU
def test_open_frames_are_those_that_will_be_sealed(tmp_path):
    """This covers every compressor that keeps frames apart, and both segmenters: prefixes of a
    segment are encoded alike.
    """
    for overrides in (
        ["segmenter.seconds=6"],
        ["segmenter=scene", "segmenter.max_seconds=5", "compressor=framediff"],
    ):
        with parts(
            tmp_path / overrides[0], *toy_parts(), "prefill.dtype=float32", *overrides
        ) as qa:
            source, open_frames = pushed(qa), {}
            show = qa.bank.show

            def keep(segment, show=show, open_frames=open_frames):
                for i, at in enumerate(segment.times.tolist()):
                    open_frames.setdefault(
                        at,
                        (
                            segment.tokens.frames(i, i + 1),
                            segment.kv.frames(i, i + 1),
                            segment.clip[i],
                        ),
                    )
                show(segment)

            qa.bank.show = keep
            with Session(qa, source) as session:
                for second in range(10):
                    feed(source, lambda t: numbered(int(t), (56, 56)), second, second + 1)
                    wait_until_seen(session, second)
            count = 0
            for row in qa.bank.catalog.segments("page"):
                segment = qa.bank.catalog.read_segment("page", row.number)
                for i, at in enumerate(segment.times.tolist()):
                    tokens, kv, clip = open_frames[at]
                    assert np.allclose(
                        segment.tokens.frames(i, i + 1).tokens, tokens.tokens, atol=1e-4
                    )
                    assert np.allclose(segment.kv.frames(i, i + 1).keys, kv.keys, atol=1e-3)
                    assert np.allclose(segment.clip[i], clip, atol=1e-4)
                    count += 1
            assert count == 10


def test_the_tail_keeps_the_budget_and_the_newest(tmp_path):
    # six frames
    with parts(tmp_path / "bank", *toy_parts(), "read_tokens=24", "segmenter.seconds=8") as qa:
        source = pushed(qa)
        with Session(qa, source) as session:
            feed(source, lambda t: numbered(int(t), (56, 56)), 0, 7)
            wait_until_seen(session, 6)
            first = qa.bank.recall(Question("x", "page"), read_tokens=24)
            # nothing else is there
            assert [o for run in first.runs for o in run.ordinals] == [1, 2, 3, 4, 5, 6]
            feed(source, lambda t: numbered(int(t), (56, 56)), 7, 15)
            wait_until_seen(session, 14)
            wait_until_stored(session, 1)
            for kv in (True, False):
                found = qa.bank.recall(Question("x", "page"), read_tokens=24, kv=kv)
                ordinals = [o for run in found.runs for o in run.ordinals]
                assert (
                    len(ordinals) == 6 and ordinals[-3:] == [12, 13, 14] and max(ordinals[:3]) < 8
                )
                assert found.came_from["pending"] == 3 and found.recent >= 3
                assert all((run.kv is not None) == kv for run in found.runs)
            early = qa.bank.recall(Question("x", "page", asked_at=10.0), read_tokens=24)
            assert max(o for run in early.runs for o in run.ordinals) == 10
            late = qa.bank.recall(Question("x", "page", spans=since(9.0)), read_tokens=24)
            assert [o for run in late.runs for o in run.ordinals] == [9, 10, 11, 12, 13, 14]


def test_a_file_is_left_at_a_whole_segment_and_goes_on_with_the_same_bytes(tmp_path):
    write_video(tmp_path / "a.mp4", 30, 5)

    def film(qa: VideoQA, speed: float) -> FilePlayback:
        width, height = qa.backbone.frame_size
        return FilePlayback(FileSource(tmp_path / "a.mp4", 1.0, width=width, height=height), speed)

    with parts(tmp_path / "whole", *toy_parts()) as qa:
        width, height = qa.backbone.frame_size
        qa.ingest(FileSource(tmp_path / "a.mp4", 1.0, width=width, height=height))
    with parts(tmp_path / "bank", *toy_parts()) as qa:
        with Session(qa, film(qa, 20.0)) as session:
            wait_until_seen(session, 12)
        held = qa.bank.catalog.segments(session.info.video_id)
        assert session.status().state == "stopped" and 1 <= len(held) < 4
        assert not qa.bank.catalog.video(session.info.video_id).finished
        with Session(qa, film(qa, float("inf"))) as session:
            assert session.join(60).new_segments == 4 - len(held)
        assert qa.bank.catalog.video(session.info.video_id).finished
    assert files(tmp_path / "bank") == files(tmp_path / "whole")


def test_a_stream_is_taken_up_again_and_asked_by_the_clock(tmp_path):
    with parts(tmp_path / "bank", *toy_parts(), "fps=5", "segmenter.seconds=0.8") as qa:
        began = time.time()
        for first in (0, 6):  # of frames, five a second
            source = pushed(qa, fps=5.0)
            with Session(qa, source) as session:
                until = time.monotonic() + 20
                while source.frames_sampled < 6 and time.monotonic() < until:
                    source.push(numbered(source.frames_sampled, (56, 56)))
                    time.sleep(0.01)
                wait_until_seen(session, (first + 4) / 5)
                with pytest.raises(UserError, match="has not come yet"):
                    session.ask("x", since=session.now + 5)
            time.sleep(0.5)
        rows = qa.bank.catalog.segments("page")
        ends = [row.stop for row in rows]
        # a session's last frames are on the disk, and the next one begins another segment
        assert 6 in ends and ends[-1] == 12
        assert (
            began <= rows[0].wall
            and all(a.wall < b.wall for a, b in pairwise(rows))
            and rows[-1].wall < time.time()
        )
        later = rows[ends.index(6) + 1]
        # the pause is in the clock, and in the video one frame's time (0.2 s) of it
        assert later.wall - rows[0].wall > later.start - rows[0].start + 0.5 - 0.2
        for row in rows:
            assert session.video_time(row.wall + 0.1) == pytest.approx(row.start + 0.1, abs=2e-3)
        assert session.video_time(rows[0].wall - 100) == rows[0].start and session.video_time(
            time.time() + 3600
        ) == float("inf")
        answer = qa.ask(
            Question(
                "What is the code?",
                "page",
                later.start + 0.5,
                spans=since(later.start),
            )
        )
        assert 1 <= answer.frames_read <= 3


def test_a_source_is_what_the_name_says(tmp_path):
    write_video(tmp_path / "a.mp4", 2, 5)
    for video, kind in (
        (tmp_path / "a.mp4", FilePlayback),
        ("rtsp://user:secret@camera/door", UrlSource),
    ):
        config = compose("ask", [f"video={video}", "question=x", *toy_parts()])
        source = build_live(config, build_backbone(config))
        assert type(source) is kind and "secret" not in str(source.info)


def test_a_question_that_is_none_is_refused(tmp_path):
    with parts(tmp_path / "bank", *toy_parts()) as qa:
        source = pushed(qa)
        with Session(qa, source) as session:
            feed(source, lambda t: numbered(int(t), (56, 56)), 0, 3)
            wait_until_seen(session, 2)
            for text, told in (("  ", "is empty"), ("why " * 1000, "has 4000 letters")):
                with pytest.raises(UserError, match=told):
                    session.ask(text)
            stream = session.ask("x", since=1.2, until=1.8)
            list(stream)  # a picture holds until the next one
            assert stream.answer.frames_read == 1
            with pytest.raises(UserError, match="ends before it begins"):
                session.ask("x", since=1.0, until=0.5)


def test_an_unreachable_source_ends_the_session_with_a_sentence(tmp_path):
    with parts(tmp_path / "bank", *toy_parts()) as qa:
        session = Session(
            qa, UrlSource("tcp://127.0.0.1:9", 1.0, width=56, height=56, timeout_s=(2, 1))
        ).start()
        with pytest.raises(UserError, match="gives no picture"):
            session.wait_for_frame()
        assert session.status().state == "failed" and "gives no picture" in session.status().error
        with pytest.raises(UserError, match="gives no picture"):
            session.ask("What is the code?")
        with pytest.raises(UserError, match="gives no picture"):
            session.stop()


def test_a_session_that_fails_gives_its_turn_at_the_encoder_back(tmp_path):
    """Other streams wait for that turn, while somebody still holds the error."""

    def fails(segment: object) -> None:
        raise UserError("the disk is full")

    turns = EncoderTurns()
    with parts(tmp_path / "bank", *toy_parts()) as qa:
        session = Session(qa, pushed(qa), turns=turns)
        session.listen(fails)
        session.start()
        feed(session.source, world(), 0, 2)
        with pytest.raises(UserError, match="the disk is full") as error:
            session.join(60)
        got_it = threading.Event()

        def take() -> None:
            with turns.turn(lambda: (0.0, 0.0)):
                got_it.set()

        threading.Thread(target=take, daemon=True).start()
        assert got_it.wait(10) and error.value is not None


@pytest.mark.slow
def test_askers_in_many_threads_beside_the_writer(embedded, tmp_path):
    paint = world("code:4821@3")
    with embedded(tmp_path / "bank") as qa:
        source, errors, answers = pushed(qa, fps=2.0), [], []
        with Session(qa, source) as session:
            feed(source, paint, 0, 8)
            wait_until_seen(session, 7)
            stop = threading.Event()

            def ask() -> None:
                try:
                    while True:  # at least once, however late the thread begins
                        with session.ask(CODE) as stream:
                            text = "".join(stream)
                        answers.append((text, stream.answer.asked_at, stream.answer.spans))
                        if stop.is_set():
                            return
                except BaseException as error:
                    errors.append(error)

            askers = [threading.Thread(target=ask) for _ in range(8)]
            for asker in askers:
                asker.start()
            for second in range(8, 40, 8):  # the 64 frames at once could overfill the queue
                feed(source, paint, second, second + 8)
                wait_until_seen(session, second + 7, timeout=120)
            stop.set()
            for asker in askers:
                asker.join()
            figures = session.status()
        assert not errors and len(answers) >= 8
        said = {(text, bool(spans)) for text, _, spans in answers}
        assert said == {("4821", True)}, answers
        assert figures.answering == 0 and figures.dropped == 0


@pytest.mark.parametrize("cuts", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_a_cut_source_loses_nothing_that_is_sealed(tmp_path, cuts):
    with parts(
        tmp_path / "bank",
        *toy_parts(),
        "fps=10",
        "segmenter.seconds=0.5",
        "prefill.window_frames=4",
    ) as qa:
        with Sender(lambda s: numbered(round(s * 10), (64, 64)), (64, 64)) as there:
            source = UrlSource(
                there.url, 10.0, width=56, height=56, timeout_s=(5, 1), back_off_s=(0.05, 0.1),
                options={"probesize": "20000", "analyzeduration": "100000"},
            )  # fmt: skip
            sealed: dict[int, str] = {}
            with Session(qa, source) as session:
                session.wait_for_frame()
                for _ in range(cuts):
                    count = len(qa.bank.catalog.segments(session.info.video_id))
                    while len(qa.bank.catalog.segments(session.info.video_id)) < count + 1:
                        session.check()
                        time.sleep(0.01)
                    sealed |= {
                        row.number: row.checksum
                        for row in qa.bank.catalog.segments(session.info.video_id)
                    }
                    there.cut.set()
                    connected = there.connections
                    while there.connections == connected:
                        session.check()
                        time.sleep(0.01)
            assert session.status().reconnects >= cuts
        rows = {row.number: row.checksum for row in qa.bank.catalog.segments(session.info.video_id)}
        assert (
            len(sealed) >= cuts and sealed.items() <= rows.items() and qa.bank.check.verify() == []
        )
        assert sorted(rows) == list(range(len(rows)))

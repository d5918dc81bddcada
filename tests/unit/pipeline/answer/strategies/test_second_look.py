"""The second look decodes the film again, or says why it reads what the bank stores."""

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from encoders.errors import UserError
from memory.schema import Question
from pipeline.answer.reader import TokenReader
from pipeline.answer.strategies.second_look import SecondLook
from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config.compose import compose
from tests.support.families import FAMILIES
from tests.support.qa import opened, with_reader
from tests.support.toy_evidence import arguments_for, toy_of
from tests.support.videos import write_video

WHO = "Who enters?"
SAYS = "a red ring"
LOOK = ("answer=second_look", "segmenter.seconds=4")


class Listener:
    """A reader that keeps the evidence of each pass, and its logits where they are asked for."""

    def __init__(self, reader, with_logits=False):
        self._reader, self._with_logits = reader, with_logits
        self.evidence, self.logits = [], []

    def __getattr__(self, name):
        return getattr(self._reader, name)

    def read(self, evidence, timer, *more):
        if evidence.runs:
            self.evidence.append(evidence)
            if self._with_logits:
                self.logits.append(self._reader.logits(evidence, timer))
        return self._reader.read(evidence, timer, *more)

    @property
    def times(self) -> list[float]:
        return [t for one in self.evidence for run in one.runs for t in run.tokens.times.tolist()]


def looked(qa, video_ids, *, strategy=None, asked_at=math.inf, with_logits=False, **more):
    """(answer, what its passes read)."""
    listener = Listener(qa.answerer.reader, with_logits)
    answerer = replace(qa.answerer, reader=listener)
    if strategy is not None:
        answerer = replace(answerer, strategy=strategy)
    return answerer.ask(Question(WHO, video_ids, asked_at, **more)), listener


@pytest.fixture
def own_film(film, tmp_path):
    """A copy of the film that a test may remove."""
    return shutil.copy(film, tmp_path / "own.mp4")


def test_it_reads_more_frames_with_every_token_and_writes_nothing(own_film, tmp_path):
    bank = tmp_path / "bank"
    with opened(own_film, bank, "compressor=shrink", *LOOK, says=SAYS) as (qa, source):
        qa.ingest(source)
        before = {path: path.read_bytes() for path in (bank / "segments").rglob("*.*")}
        whole = qa.backbone.tokens_per_frame
        double = SecondLook(fps=2)
        answer, read = looked(qa, source.info.video_id, strategy=double)
        assert answer.text == SAYS and not answer.warning
        assert "decoded from the film at 2 frames a second" in answer.trace.why
        for one in read.evidence:
            (run,) = one.runs
            assert run.tokens.offsets.diff().tolist() == [whole] * len(run.tokens.times)
            assert len(run.tokens.tokens) <= qa.answerer.read_tokens
            assert one.interval == 0.5 and run.kv is not None
        assert len(read.times) == 3 * 8
        assert all(end - start <= 4.001 for start, end in answer.spans)
        again, _ = looked(qa, source.info.video_id, strategy=double)
        assert (again.text, again.spans) == (answer.text, answer.spans)
        few = SecondLook(segments=1, fps=5, most_frames=8)
        answer, read = looked(qa, source.info.video_id, strategy=few)
        assert len(read.times) == 8 and "at 2 frames a second" in answer.trace.why
        many, read = looked(qa, source.info.video_id, strategy=SecondLook(segments=1, fps=5))
        assert len(read.times) == 20 and "at 5 frames a second" in many.trace.why
        own, read = looked(qa, source.info.video_id)
        assert len(read.times) == 3 * 4 and "at 1 frames a second" in own.trace.why
        stored, old = looked(qa, source.info.video_id, strategy=SecondLook(from_film=False))
        assert len(old.times) == 3 * 4 and not stored.warning and "film" not in stored.trace.why
        assert before == {path: path.read_bytes() for path in (bank / "segments").rglob("*.*")}


def test_nothing_after_the_moment_and_outside_the_spans_is_read(own_film, tmp_path):
    with opened(own_film, tmp_path / "bank", *LOOK, says=SAYS) as (qa, source):
        qa.ingest(source)
        name, every = source.info.video_id, SecondLook(segments=9, fps=2)
        answer, read = looked(qa, name, strategy=every, asked_at=9.3)
        assert max(read.times) == 9.0 and len(read.times) == 19
        assert all(end <= 9.5 for _, end in answer.spans)
        spans = {name: ((5.2, 6.1), (10.0, 11.0))}
        _, read = looked(qa, name, strategy=every, spans=spans)
        times = sorted(read.times)
        assert times == [5.0, 5.6, 6.0, 9.6, 10.0, 10.6]  # of 5 pictures a second
        with pytest.raises(UserError, match="comes before the first frame"):
            looked(qa, name, asked_at=-1)


@pytest.mark.slow
def test_stored_frames_stand_in_and_the_answer_says_why(own_film, tmp_path):
    def broken(*_):
        raise UserError(f"{own_film} has no picture.")

    with opened(own_film, tmp_path / "bank", *LOOK, says=SAYS) as (qa, source):
        qa.ingest(source)
        name, info = source.info.video_id, source.info
        wanted, old = looked(qa, name, strategy=SecondLook(from_film=False))
        encoder = replace(qa.answerer.film_encoder, open_film=broken)
        damaged = replace(qa, answerer=replace(qa.answerer, film_encoder=encoder))
        for why in (
            "own.mp4 has no picture)",
            "own.mp4 is not the video that it was",
            "own.mp4 is not there",
            "rtsp://camera/1 is a stream, of which no file was kept",
        ):
            if "that it was" in why:
                own_film.write_bytes(b"another film")
            elif "there" in why:
                own_film.unlink()
            elif "stream" in why:
                stream = replace(info, path="rtsp://camera/1")
                qa.bank.record_video(stream, qa.ingester.interval, finished=True)
            answer, read = looked(damaged if "picture" in why else qa, name)
            assert answer.warning.count("The second look read stored frames, because") == 1
            assert f"{why}." in answer.warning and why in answer.trace.why
            assert (answer.text, answer.spans) == (wanted.text, wanted.spans)
            assert read.times == old.times


def test_a_frame_above_the_budget_is_read_as_it_was_stored(own_film, tmp_path):
    options = ("compressor=shrink", "read_tokens=3", "recent_frames=1", *LOOK)
    with opened(own_film, tmp_path / "bank", *options, says=SAYS) as (qa, source):
        qa.ingest(source)
        answer, read = looked(qa, source.info.video_id)
        assert "more than read_tokens=3." in answer.warning and read.times
        assert all(call.longest <= 3 for call in answer.trace.calls)


@pytest.mark.slow
def test_of_several_films_each_is_decoded_where_it_is_there(own_film, film, tmp_path):
    other = tmp_path / "other.mp4"
    write_video(other, 12, 5)
    with opened(own_film, tmp_path / "bank", *LOOK, says=SAYS) as (qa, source):
        qa.ingest(source)
    with opened(other, tmp_path / "bank", *LOOK, says=SAYS) as (qa, second):
        qa.ingest(second)
        other.unlink()
        names = [source.info.video_id, second.info.video_id]
        answer, read = looked(qa, names, strategy=SecondLook(segments=9, fps=2))
        rates = {run.video_id: one.interval for one in read.evidence for run in one.runs}
        assert rates == {names[0]: 0.5, names[1]: 1.0}
        assert "other.mp4 is not there" in answer.warning and "own.mp4" not in answer.warning


@pytest.mark.parametrize("family", ["llava_ov", pytest.param("qwen2_5_vl", marks=pytest.mark.slow)])
def test_at_the_banks_rate_the_film_gives_what_is_stored(family, own_film, tmp_path):
    """Within 1e-4, also where the moment cuts a temporal patch."""
    if family == "llava_ov":
        toy = opened(own_film, tmp_path / "bank", *LOOK)
        with toy as (qa, source):
            _equal(qa, source)
        return
    toy_of(family)
    own = arguments_for(FAMILIES[family], own_film, tmp_path / "bank", "text=none", *LOOK)
    config = compose("ask", [*own, "read_tokens=64"])
    backbone = build_backbone(config)
    source = build_source(config, backbone)
    qa = build_qa(config, backbone)
    with qa.bank:
        _equal(qa, source)


def _equal(qa, source):
    qa.ingest(source)
    qa = with_reader(qa, TokenReader)
    encoder = replace(qa.answerer.film_encoder, new_prefill=None)
    qa = replace(qa, answerer=replace(qa.answerer, film_encoder=encoder))
    fps = 1 / qa.ingester.interval
    for asked_at in (math.inf, 10.6):
        found = [
            looked(
                qa, source.info.video_id, asked_at=asked_at, with_logits=True,
                strategy=SecondLook(segments=4, fps=fps, from_film=from_film),
            )
            for from_film in (True, False)
        ]  # fmt: skip
        (answer, film), (old, stored) = found
        assert "decoded" in answer.trace.why and "decoded" not in old.trace.why
        assert film.times == stored.times and len(film.logits) == len(stored.logits) >= 3
        for own, other in zip(film.logits, stored.logits, strict=True):
            torch.testing.assert_close(own, other, atol=1e-4, rtol=0)
        assert (answer.text, answer.spans) == (old.text, old.spans)
        assert np.isfinite(film.times).all()


@pytest.mark.parametrize(
    "settings", [{"fps": 0.0}, {"fps": -1}, {"fps": math.nan}, {"most_frames": 0}, {"segments": 0}]
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(UserError, match=r"^answer\.\w+=[^.]*(\.0)? [^.]*\.$"):
        SecondLook(**settings)

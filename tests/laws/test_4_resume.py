"""Law 4, durable: an interrupted encoding resumes and writes the bytes of an uninterrupted one."""

import os
import signal
import subprocess
import sys

import pytest

from encoders.schema import VideoInfo
from tests.support.kv_policies import toy_codebook, toy_profile
from tests.support.paths import ROOT
from tests.support.qa import opened
from tests.support.records import files
from tests.support.toys import toy_parts
from tests.support.videos import write_video

MIDDLE = 3  # segments after which encoding is stopped


STOPPED = f"""
import os, signal, sys
from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config.compose import compose
config = compose("ask", sys.argv[1:])
backbone = build_backbone(config)
source = build_source(config, backbone)
qa = build_qa(config, backbone)
write = qa.bank.write
def and_die(segment):
    nbytes = write(segment)
    if segment.number == {MIDDLE - 1}:
        os.kill(os.getpid(), signal.SIGKILL)
    return nbytes
qa.bank.write = and_die
qa.ingest(source)
"""


WAYS = {
    "window": ("prefill.dtype=bfloat16", "prefill.window_frames=11", "segmenter.seconds=6"),
    "scene": (
        "prefill.dtype=bfloat16",
        "segmenter=scene",
        "segmenter.memory=24",
        "segmenter.warm_up=4",
    ),
    "thumbnails": ("source.keep=jpeg", "prefill.window_frames=11", "segmenter.seconds=6"),
    "int8": (
        "kv_dtype=int8",
        "token_dtype=int8",
        "prefill.window_frames=11",
        "segmenter.seconds=6",
    ),
    "int4": (
        "kv_dtype=int4",
        "token_dtype=int8",
        "prefill.window_frames=11",
        "segmenter.seconds=6",
        "compressor=merge",
    ),
    "carry": (
        "kv_dtype=int4",
        "token_dtype=int4",
        "prefill.window_frames=11",
        "segmenter.seconds=6",
        "compressor=carry",
        "compressor.threshold=0.2",
        "compressor.segments=3",
    ),
    "frame means": (
        "kv_policy=frame_means",
        f"kv_policy.profile={toy_profile()}",
        "prefill.window_frames=11",
        "segmenter.seconds=6",
    ),
    "low-rank keys": (
        "kv_policy=low_rank_keys",
        "kv_policy.loss=0.3",
        "prefill.window_frames=11",
        "segmenter.seconds=6",
    ),
    "codebook": (
        "kv_policy=product_quantization",
        f"kv_policy.codebook={toy_codebook()}",
        "prefill.window_frames=11",
        "segmenter.seconds=6",
    ),
}


def slow_but(*quick: str) -> list[object]:
    """The ways as parameters; all but these are slow tests."""
    return [way if way in quick else pytest.param(way, marks=pytest.mark.slow) for way in WAYS]


@pytest.fixture(scope="module")
def uninterrupted(long_film, tmp_path_factory):
    """Segment files of a whole pass in a way, made when asked for."""
    made: dict[str, dict[str, bytes]] = {}

    def whole(way):
        if way not in made:
            bank = tmp_path_factory.mktemp("whole") / "bank"
            with opened(long_film, bank, *WAYS[way]) as (qa, source):
                done = qa.ingest(source)
            made[way] = files(bank)
            assert done.segments == len(made[way]) > MIDDLE + 1 and done.frames == 42
        return made[way]

    return whole


@pytest.mark.parametrize("way", slow_but("window"))
def test_resume_after_sigkill_gives_the_same_bytes(long_film, tmp_path, uninterrupted, way):
    bank = tmp_path / "bank"
    overrides = [f"video={long_film}", f"bank={bank}", "question=x", *toy_parts(), *WAYS[way]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, *overrides], cwd=tmp_path, env=environment, timeout=120
    )
    assert done.returncode == -signal.SIGKILL
    with opened(long_film, bank, *WAYS[way]) as (qa, source):
        acknowledged = len(qa.bank.catalog.segments(source.info.video_id))
        assert MIDDLE <= acknowledged < len(uninterrupted(way))
        assert qa.ingest(source).new_segments == len(uninterrupted(way)) - acknowledged
        assert qa.bank.check.verify() == []
    assert files(bank) == uninterrupted(way)


def test_segments_that_go_on_without_thumbnails_are_told(film, tmp_path):
    with opened(film, tmp_path / "bank", "source.keep=jpeg") as (qa, source):
        assert "thumbnails" not in qa.ingest(source, until=0).warning
    with opened(film, tmp_path / "bank") as (qa, source):
        told = qa.ingest(source).warning
        assert "no thumbnails, as those before have; source.keep=jpeg makes them" in told
        stored = qa.bank.catalog.thumbnails(source.info.video_id, [0.0, 9.0])
        assert stored[0] is not None and stored[1] is None


class Stop(Exception):
    """Something went wrong in the middle."""


@pytest.mark.parametrize("way", slow_but("window", "int4"))
def test_resume_after_any_segment_gives_the_same_bytes(long_film, tmp_path, uninterrupted, way):
    """Stopped again and again: each run adds a segment or two."""

    def progress(seconds: float, nbytes: int) -> None:
        raise Stop

    runs = 0
    while True:
        with opened(long_film, tmp_path / "bank", *WAYS[way]) as (qa, source):
            if runs == len(uninterrupted(way)):
                assert qa.ingest(source).new_segments == 0
                break
            with pytest.raises(Stop):
                qa.ingest(source, progress)
            runs += 1
            # what was put is there, though it failed
            assert len(qa.bank.catalog.segments(source.info.video_id)) == runs
    assert files(tmp_path / "bank") == uninterrupted(way)


def test_a_write_that_fails_is_told_and_can_be_resumed(film, tmp_path):
    with opened(film, tmp_path / "whole") as (qa, source):
        qa.ingest(source)
    with opened(film, tmp_path / "bank") as (qa, source):
        write = qa.bank.write

        def full(segment) -> int:
            if segment.number == 1:
                raise OSError(28, "No space left on device")
            return write(segment)

        qa.bank.write = full
        with pytest.raises(OSError, match="No space left"):
            qa.ingest(source)
        assert not qa.bank.catalog.video(source.info.video_id).finished
    with opened(film, tmp_path / "bank") as (qa, source):
        assert qa.ingest(source).new_segments == 2
    assert files(tmp_path / "bank") == files(tmp_path / "whole")


@pytest.mark.parametrize("decoder", ["decord", "pyav", "shown:pyav"])
def test_a_pass_goes_on_under_the_rule_that_it_began_with(tmp_path, decoder):
    """Earlier versions sampled a picture once, however long it stood, and decoded by decord."""
    path = tmp_path / "film.mp4"
    # screen recording: a few pictures a second, then one that stands
    times = [i / 5 for i in range(60)] + [24 + i / 5 for i in range(60)]
    write_video(path, 0, times=times)
    begun = VideoInfo("", "", 0.0, decoder)
    with opened(path, tmp_path / "whole") as (qa, source):
        source.resume(begun)
        whole = qa.ingest(source)
    with opened(path, tmp_path / "bank") as (qa, source):
        source.resume(begun)
        qa.ingest(source, until=1)
    with opened(path, tmp_path / "bank") as (qa, source):
        assert qa.ingest(source).frames == whole.frames
        assert qa.bank.catalog.video(source.info.video_id).info.decoder == decoder
    assert files(tmp_path / "bank") == files(tmp_path / "whole")
    assert whole.frames == (36 if decoder == "shown:pyav" else 24)

"""A live session fed by a test: a pushed source, a painted needle world, and waiting for frames."""

import time
from collections.abc import Callable

import numpy as np

from encoders.sources.live.push_source import PushSource
from pipeline.live.session import Session
from pipeline.needle_world.cards import draw
from pipeline.needle_world.video import PlacedNeedle, parse, procedural_footage
from pipeline.qa import VideoQA

SIZE = (192, 108)


def pushed(qa: VideoQA, name: str = "page", fps: float = 1.0) -> PushSource:
    width, height = qa.backbone.frame_size
    return PushSource(name, fps, width=width, height=height, queue_frames=64)


def world(*needles: str) -> Callable[[float], np.ndarray]:
    """Pictures of a procedural scene with needles such as code:4821@31."""
    placed: list[PlacedNeedle] = [parse(text, i) for i, text in enumerate(needles)]
    footage = procedural_footage(3, SIZE)

    def paint(seconds: float) -> np.ndarray:
        picture = footage(seconds)
        for one in placed:
            if one.start <= seconds < one.end:
                draw(picture, one.needle, one.place)
        return np.asarray(picture)

    return paint


def feed(source: PushSource, paint, first: int, stop: int) -> None:
    """A picture of every second."""
    for second in range(first, stop):
        until = time.monotonic() + 20
        # the session is still being started
        while not source.push(paint(float(second)), at=float(second)):
            assert time.monotonic() < until
            time.sleep(0.01)


def wait_until_seen(session: Session, second: float, timeout: float = 60.0) -> None:
    until = time.monotonic() + timeout
    while session.status().seen_until < second or session.status().state == "waiting":
        session.check()
        assert time.monotonic() < until, session.status()
        time.sleep(0.01)


def wait_until_stored(session: Session, segments: int, timeout: float = 60.0) -> None:
    """Wait for the writer, which is behind what questions see while the machine is busy."""
    until = time.monotonic() + timeout
    catalog, video_id = session.qa.bank.catalog, session.source.info.video_id
    while len(catalog.segments(video_id)) < segments:
        session.check()
        assert time.monotonic() < until, session.status()
        time.sleep(0.01)

"""Ask about a stream while it runs: an answer knows what has been shown so far, and nothing later.

    python examples/ask_a_live_stream.py

The stream is painted by the script, one picture a second, as a camera would deliver it.
"""

import tempfile
import time
from pathlib import Path

import numpy as np

from encoders.sources.live.push_source import PushSource
from pipeline.build import build_backbone, build_qa
from pipeline.config.compose import compose
from pipeline.live.session import Session
from pipeline.needle_world import video as needle_video
from pipeline.needle_world.cards import draw

SIZE = (192, 108)
CARD = needle_video.parse("code:4821@12", 0)  # shows at second 12, for two seconds


def picture(second: int) -> np.ndarray:
    """The picture of the stream at this second: [height, width, 3] uint8."""
    canvas = needle_video.procedural_footage(seed=1, size=SIZE)(float(second))
    if CARD.start <= second < CARD.end:
        draw(canvas, CARD.needle, CARD.place)
    return np.asarray(canvas)


def show(source: PushSource, session: Session, seconds: range) -> None:
    """Deliver pictures, and wait until questions can see the last one."""
    for second in seconds:
        while not source.push(picture(second), at=float(second)):
            time.sleep(0.01)  # the queue is full: the encoder is behind
    while session.status().seen_until < seconds[-1]:
        session.check()
        time.sleep(0.01)


def main() -> None:
    """Ask before and after the card."""
    with tempfile.TemporaryDirectory() as folder:
        settings = compose("ingest", ["video=stream", f"bank={Path(folder) / 'bank'}"])
        backbone = build_backbone(settings)
        qa = build_qa(settings, backbone)
        width, height = backbone.frame_size
        source = PushSource("stream", 1.0, width=width, height=height, queue_frames=64)
        with qa.bank, Session(qa, source) as session:
            for seconds in (range(0, 10), range(10, 20)):
                show(source, session, seconds)
                pieces = session.ask("What is the code on the card?")
                print(f"at {seconds[-1]} s: {''.join(pieces)}")


if __name__ == "__main__":
    main()

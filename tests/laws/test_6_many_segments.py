"""Law 6: a bank of 100,000 segments opens in under a second, and a question reads only what it
recalls.

The test writes the files without waiting for the disk, and the rows in one transaction, because its
claims are about reading.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memory.bank import MemoryBank
from memory.schema import Question
from memory.storage.catalog import SegmentRow, VideoRow
from memory.storage.segments import segment_file
from tests.support.banks import opened
from tests.support.records import info, make_segment
from tests.support.retrievers import built

FRAMES = 4  # of a segment


def fill(root: Path, segments: int) -> None:
    """A bank with one video of so many segments, and the search rows that an earlier question left
    beside it.
    """
    rows = []
    with opened(root, built("uniform")) as bank:
        bank.record_video(info(), 1.0, finished=False)
        folder = bank._store.path("v", 0).parent
        for number in range(segments):
            segment = make_segment("v", number, tokens=[1] * FRAMES)
            data = segment_file.pack(segment)
            (folder / f"{number:06d}.safetensors").write_bytes(data)
            times, tokens = segment.times.numpy(), np.ones(FRAMES, np.int32)
            seal = segment_file.seal(data)
            rows.append(
                SegmentRow(
                    "v",
                    number,
                    segment.start,
                    segment.end,
                    FRAMES,
                    FRAMES * number,
                    len(data),
                    seal,
                    times,
                    tokens,
                )
            )
        bank._store.catalog_writer.add_all([VideoRow(info(), 1.0, True)], rows)
    with opened(root, built("fused")) as bank:
        bank.recall(Question("anything", "v"), read_tokens=64)


def ask(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Seconds of opening, of the first question and of the second."""
    read: list[tuple[int, int, int]] = []
    began = time.perf_counter()
    bank = MemoryBank.open(root, None, built("fused"), recent_frames=2, create=False)
    seconds = {"open": time.perf_counter() - began}
    with bank:
        real = bank._store.frames

        def frames_of(video_id: str, number: int, first: int, stop: int, *, kv: bool = True) -> Any:
            read.append((number, first, stop))
            return real(video_id, number, first, stop, kv=kv)

        monkeypatch.setattr(bank._store, "frames", frames_of)
        monkeypatch.setattr(bank._store, "get", None)  # no whole segment
        monkeypatch.setattr(bank._store, "index", None)  # no row of one
        for name in ("first", "second"):
            read.clear()
            began = time.perf_counter()
            evidence = bank.recall(Question(name, "v"), read_tokens=64)
            seconds[name] = time.perf_counter() - began
            assert evidence.frame_count == 64
            frames = {(run.segment, run.first) for run in evidence.runs}
            got = {(n, FRAMES * n + i) for n, first, stop in read for i in range(first, stop)}
            # those it recalls, no others
            assert got <= frames and len(got) == evidence.came_from["disk"] >= 60
            del evidence
    return seconds


def test_a_question_reads_what_it_recalls(tmp_path, monkeypatch):
    fill(tmp_path, 500)
    ask(tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_bank_of_a_hundred_thousand_segments(tmp_path, monkeypatch):
    fill(tmp_path, 100_000)
    told = [ask(tmp_path, monkeypatch) for _ in range(3)]
    seconds = {name: sorted(each[name] for each in told)[1] for name in told[0]}
    print(
        "\n100,000 segments, 400,000 frames, medians of 3: "
        + ", ".join(f"{k} {v:.3f} s" for k, v in seconds.items())
    )
    assert seconds["open"] < 1.0

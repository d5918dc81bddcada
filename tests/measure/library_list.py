"""How long the list of a library takes: GET /v1/videos of a bank with many films.

    python -m tests.measure.library_list --films 1000 --segments 60

A server with `whole_bank=true`, in this process. Every tenth film is a recording that knows when it
was. The films are rows of the catalog alone: the list opens no segment. Times are seconds of one
request after another, and CPU seconds of this process for each.
"""

import argparse
import logging
import statistics
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np

from encoders.schema import VideoInfo
from memory.storage.catalog import SegmentRow, VideoRow
from memory.storage.catalog_writer import CatalogWriter
from pipeline.server.app import Service
from tests.support import measurement_page
from tests.support.serving import serving
from tests.support.toys import toy_parts

FRAMES, BEGAN = 8, 1.7e9  # frames of a segment; Unix seconds of the first recording


def fill(service: Service, films: int, segments: int, folder: Path) -> None:
    """Add the rows of finished films, one segment of 8 s behind another."""
    videos, rows = [], []
    for film in range(films):
        name = f"film-{film:05d}"
        info = VideoInfo(name, str(folder / f"{name}.mp4"), float(FRAMES * segments), "pyav")
        videos.append(VideoRow(info, 1.0, finished=True))
        for number in range(segments):
            start = float(FRAMES * number)
            times = start + np.arange(FRAMES, dtype=np.float64)
            wall = BEGAN + film * 86400 + start if film % 10 == 0 else None
            tokens = np.full(FRAMES, 18, np.int32)
            rows.append(
                SegmentRow(name, number, start, start + FRAMES, FRAMES, FRAMES * number, 100_000,
                           "0" * 16, times, tokens, wall)
            )  # fmt: skip
    CatalogWriter(service.qa.bank._store.database).add_all(videos, rows)


def report(arguments: argparse.Namespace) -> int:
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    with (
        tempfile.TemporaryDirectory() as name,
        serving(Path(name), "whole_bank=true", *toy_parts()) as (address, service),
    ):
        fill(service, arguments.films, arguments.segments, Path(name))
        seconds, cpu, nbytes = [], [], 0
        for _ in range(arguments.times):
            began, used = time.perf_counter(), time.process_time()
            response = httpx.get(f"{address}/v1/videos", timeout=600)
            seconds.append(time.perf_counter() - began)
            cpu.append(time.process_time() - used)
            assert len(response.json()["data"]) == arguments.films
            nbytes = len(response.content)
    print("| films | segments | requests | seconds, median (least-most) | CPU seconds | bytes |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {arguments.films} | {arguments.films * arguments.segments} | {arguments.times} | "
        f"{statistics.median(seconds):.3f} ({min(seconds):.3f}-{max(seconds):.3f}) | "
        f"{statistics.median(cpu):.3f} | {nbytes} |"
    )
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=int, default=1000)
    parser.add_argument("--segments", type=int, default=60, help="of each film")
    parser.add_argument("--times", type=int, default=7, help="requests")
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()

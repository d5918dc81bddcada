"""The second part of the benchmark: each component of a bank measured alone.

Files, index, retrievers, the reader's own overhead, questions at once and long banks. Shapes are
those of the configured backbone. "Cold" means that the files were pushed out of the page cache; a
disk or a host may still have them. Builds what it needs from the configuration; knows no baseline.
"""

from collections.abc import Sequence
from pathlib import Path

from encoders.models.families.llava_onevision import LlavaOneVision
from pipeline.build import build_qa
from pipeline.config.tasks.evaluation_settings import BenchSettings
from pipeline.evaluation.speed import ready_frames
from pipeline.evaluation.speed.components import (
    concurrency,
    frame_index,
    long_banks,
    retrievers,
    store_files,
)
from pipeline.evaluation.speed.schema import BenchRow, Recompose, Table


def measure(
    config: BenchSettings,
    backbone: LlavaOneVision,
    recompose: Recompose,
    work: Path,
    rows: list[BenchRow],
) -> None:
    """Measure every component; rows are added to `rows` as they come."""
    own = recompose([])
    own.bank = str(work / "short")
    frames = ready_frames.noise_frames(
        max(config.lengths), config.fps, backbone.frame_size, video_id="short"
    )
    qa = build_qa(own, backbone)
    with qa.bank:
        qa.ingest(ready_frames.ReadyFrames(frames, config.fps))
        pattern = [
            qa.bank.catalog.read_segment("short", row.number)
            for row in qa.bank.catalog.segments("short")
        ]
        rows += concurrency.measure_batch(config, qa)
        rows += concurrency.measure_overhead(config, qa)
        provenance = dict(qa.bank.provenance)
        clip = qa.ingester.clip
    whole = [segment for segment in pattern if len(segment) == len(pattern[0])]
    rows += store_files.measure(config, whole, work)
    rows += frame_index.measure(config, clip)
    rows += retrievers.measure(config, backbone, recompose, whole[0])
    rows += long_banks.measure(config, backbone, recompose, whole, provenance, work)


def tables(rows: Sequence[BenchRow]) -> list[Table]:
    """The tables that have rows."""
    makers = [
        store_files.table,
        frame_index.table,
        retrievers.table,
        concurrency.batch_table,
        concurrency.overhead_table,
        long_banks.question_table,
        long_banks.append_table,
    ]
    return [table for table in (make(rows) for make in makers) if table.rows]

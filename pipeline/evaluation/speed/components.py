"""The second part: files, index, retrievers, the reader's own overhead, questions at once and long banks, each measured alone.

Shapes are those of the configured backbone. Cold: after the files were pushed out of the page cache (a disk or a host may still
have them). Builds what it needs from the configuration; no baseline.
"""

from collections.abc import Sequence
from pathlib import Path

from encoders.models.llava_onevision import LlavaOneVision
from pipeline.build import build_qa
from pipeline.config.settings import BenchSettings
from pipeline.evaluation.speed import footage, frame_index
from pipeline.evaluation.speed.concurrency import (
    _at_once,
    _at_once_table,
    _overhead,
    _overhead_table,
)
from pipeline.evaluation.speed.long_banks import _append_table, _long_banks, _long_table
from pipeline.evaluation.speed.retrievers import _retrievers, _retrievers_table
from pipeline.evaluation.speed.schema import Recompose, Row, Table
from pipeline.evaluation.speed.store_files import _files, _files_table


def measure(
    config: BenchSettings,
    backbone: LlavaOneVision,
    recompose: Recompose,
    work: Path,
    rows: list[Row],
) -> None:
    """Everything of this part, into `rows` as it comes."""
    own = recompose([])
    own.bank = str(work / "short")
    frames = footage.noise(max(config.lengths), config.fps, backbone.frame_size, video_id="short")
    qa = build_qa(own, backbone)
    with qa.bank:
        qa.ingest(footage.ReadyFrames(frames, config.fps))
        pattern = [
            qa.bank.catalog.read_segment("short", row.number)
            for row in qa.bank.catalog.segments("short")
        ]
        rows += _at_once(config, qa)
        rows += _overhead(config, qa)
        provenance = dict(qa.bank.provenance)
        clip = qa.ingester.clip
    whole = [segment for segment in pattern if len(segment) == len(pattern[0])]
    rows += _files(config, whole, work)
    rows += frame_index.measure(config, clip)
    rows += _retrievers(config, backbone, recompose, whole[0])
    rows += _long_banks(config, backbone, recompose, whole, provenance, work)


def tables(rows: Sequence[Row]) -> list[Table]:
    """Of the rows."""
    made = [
        _files_table,
        frame_index.table,
        _retrievers_table,
        _at_once_table,
        _overhead_table,
        _long_table,
        _append_table,
    ]
    return [table for table in (make(rows) for make in made) if table.rows]


# ---- questions at once, and the decoder's own step


# ---- files


# ---- retrievers


# ---- long banks


# ---- tables

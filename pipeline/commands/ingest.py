"""`reelbank ingest`: encodes a video into a bank, or adds words to one that is encoded."""

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encoders.errors import UserError
from encoders.schema import FrameSource
from pipeline.commands.terminal import progress_bar
from pipeline.config import units
from pipeline.config.settings import IngestSettings
from pipeline.config.units import format_time
from pipeline.schema import IngestReport

if TYPE_CHECKING:
    from pipeline.qa import VideoQA


@contextmanager
def _opened(config: IngestSettings) -> Iterator[tuple["VideoQA", Any]]:
    """The parts and the video's source; closes the bank."""
    from encoders.sources.container import check_file

    # before torch and a model are loaded: a wrong path is told at once
    check_file(Path(config.video))
    from pipeline.build import build_backbone, build_qa, build_source

    backbone = build_backbone(config)
    # before the bank is opened: a file that is no video creates nothing
    source = build_source(config, backbone)
    qa = build_qa(config, backbone)
    gc.freeze()  # what was imported and loaded stays; see cli.main
    gc.enable()
    try:
        yield qa, source
    finally:
        qa.bank.close()


def _encode(config: IngestSettings, qa: "VideoQA", source: FrameSource) -> IngestReport:
    known = qa.bank.catalog.video(source.info.video_id)
    if known is not None and qa.ingester.began is not None:
        _refuse_other_began(config, qa, source.info.video_id)
    if known is not None and known.finished:
        return qa.ingest(source)
    with progress_bar(Path(config.video).name, source.info.duration) as report:
        return qa.ingest(source, report)


def _refuse_other_began(config: IngestSettings, qa: "VideoQA", video_id: str) -> None:
    """UserError when the bank says otherwise when a file began: it did so once."""
    began = qa.bank.catalog.began(video_id, qa.bank.catalog.next(video_id)[0])
    if began != qa.ingester.began and qa.bank.catalog.segments(video_id):
        stored = "without began=" if began is None else f"with began={units.written(began)}"
        raise UserError(
            f"began={config.began} does not fit: {config.video} is in bank {config.bank} {stored}; leave began= out, or encode "
            "into another bank=DIR"
        )


def run(config: IngestSettings) -> int:
    """reelbank ingest."""
    if config.is_missing("video") and (config.text or config.dense):
        return _words_alone(config)
    with _opened(config) as (qa, source):
        done = _encode(config, qa, source)
    if config.format == "json":
        print(json.dumps(asdict(done)))
        return 0
    new = (
        f"{done.new_segments} new segments, {done.nbytes / 1e6:.1f} MB"
        if done.new_segments
        else "nothing new"
    )
    print(
        f"{config.video}: {format_time(done.video_seconds)} in {done.segments} segments, {done.frames} frames ({new}, "
        f"{done.seconds['total']:.1f} s) in bank {config.bank}"
    )
    if done.text_lines:
        print(
            "words: "
            + ", ".join(f"{count} lines by {name}" for name, count in done.text_lines.items())
        )
    if done.warning:
        print(f"warning: {done.warning}")
    return 0


def _words_alone(config: IngestSettings) -> int:
    """The words of all videos of a bank; their pictures stay as they are."""
    from memory.bank import MemoryBank
    from memory.retrieval.uniform import UniformRetriever
    from pipeline.build import build_extractors, build_sentence_encoder
    from pipeline.ingest.text import TextExtraction

    if "captions" in config.text:
        raise UserError(
            "text=captions asks the model about the encoded video; give video=FILE as well"
        )
    extractors, sentence_encoder = (
        build_extractors(config.text),
        build_sentence_encoder(config.dense),
    )
    table: list[dict[str, Any]] = []
    with MemoryBank.open(
        config.bank, None, UniformRetriever(), recent_frames=0, create=False
    ) as held:
        held.begin_writing()
        if sentence_encoder is not None:
            held.text.refuse_other_vectors(sentence_encoder.made_with)
        text = TextExtraction(held, extractors, (), sentence_encoder)
        for video in held.catalog.videos():
            failed = ""
            try:
                with text.extracting(video.info):
                    pass
            except UserError as error:  # its file is gone, say; the other videos go on
                failed = str(error)
            texts = held.text.runs(video.info.video_id)
            lines = (
                text.line_counts(video.info.video_id)
                if extractors
                else {run.extractor: run.lines for run in texts}
            )
            note = failed or text.notes(video.info.video_id)
            table.append(
                {
                    "video_id": video.info.video_id,
                    "path": video.info.path,
                    "text_lines": lines,
                    "warning": note,
                }
            )
    if config.format == "json":
        print(json.dumps({"bank": config.bank, "videos": table}))
        return 0
    for row in table:
        counts = (
            ", ".join(f"{count} lines by {name}" for name, count in row["text_lines"].items())
            or "no words"
        )
        print(
            f"{row['video_id']}  {counts}  {row['path']}"
            + (f"\nwarning: {row['warning']}" if row["warning"] else "")
        )
    if not table:
        print("no video yet; `reelbank ingest video=FILE` adds one")
    return 0

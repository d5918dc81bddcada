"""`reelbank import`: what other programs found in a film of the bank becomes lines of it.

Checks the settings and reports; encoders/text/records/ reads. Loads no video model.
"""

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from encoders.errors import UserError
from encoders.schema import VideoInfo
from encoders.text.lines import TextBlock, VideoFile
from encoders.text.records.record import IMPORT_PREFIX
from pipeline.config.tasks.file_settings import ImportSettings
from pipeline.config.tasks.pipeline_settings import OutputFormat

if TYPE_CHECKING:
    from encoders.text.records.record import Record, RecordRules
    from memory.bank import MemoryBank
    from memory.storage.catalog import VideoRow

_RULES = 1  # of how records become lines
_DETECTION_SCORE = 0.5  # least score, as detectors list what they hardly believe as well
_NO_NAME = re.compile(r"[^\w.-]+")


@dataclass(frozen=True)
class _Import:
    """What an import did."""

    name: str
    path: str  # of the film
    video_id: str
    records: int
    lines: dict[str, int]  # kind -> lines
    left_out: dict[str, int]  # why -> records
    is_new: bool  # False: the bank had just that
    note: str = ""


def run(settings: ImportSettings) -> int:
    """reelbank import."""
    from memory.bank import MemoryBank
    from memory.retrieval.uniform import UniformRetriever
    from pipeline.videos import find_video

    _check(settings)
    name = _NO_NAME.sub("_", settings.name or Path(settings.file).name)
    with MemoryBank.open(
        settings.bank, None, UniformRetriever(), recent_frames=0, create=False
    ) as bank:
        row = find_video(bank, settings.video)
        assert row is not None  # video= is not empty
        if settings.remove:
            return _remove(bank, row.info, name)
        done = _take(settings, bank, row, name)
    if settings.format == OutputFormat.json:
        print(json.dumps(vars(done)))
    else:
        _print(done)
    return 0


def _check(settings: ImportSettings) -> None:
    from encoders.text.records.record import RECORD_KINDS

    if not settings.video:
        raise UserError("video= is empty; name a film of the bank")
    if settings.kind and settings.kind not in RECORD_KINDS:
        known = ", ".join(RECORD_KINDS)
        raise UserError(f"kind={settings.kind} is not known; use one of {known}")
    if settings.min_score is not None and not 0 <= settings.min_score <= 1:
        raise UserError(f"min_score={settings.min_score:g} is no score; use 0 to 1")
    if not 0 <= settings.frame_rate < 1e6:
        raise UserError(
            f"frame_rate={settings.frame_rate:g} is no rate; give the frames per second"
        )


def _take(settings: ImportSettings, bank: "MemoryBank", row: "VideoRow", name: str) -> _Import:
    from encoders.text.records.record_file import read_records
    from encoders.text.records.record_lines import lines_of, spans_of, with_ends, within
    from pipeline.ingest.text import embed_lines, video_file
    from pipeline.sentence_encoder import build_sentence_encoder, fitting

    video = video_file(row.info)
    length = max(row.info.duration, bank.catalog.duration(row))
    found, note = read_records(Path(settings.file), _rules(settings, video, length))
    records = with_ends(found)
    sure = [one for one in records if one.score >= _least(settings, one)]
    # of a film that the bank holds in part, or of which it dropped the beginning
    begin = max(video.begin, 0.0 if row.pruned is None else row.pruned.start)
    end = length if video.end is None else min(video.end, length)
    inside = [one for one in sure if one.start < end and (one.end or 0.0) > begin]
    lines = within(lines_of(inside, video.video_id), begin, end)
    extractor, made_with = f"{IMPORT_PREFIX}{name}", _made_with(settings, length)
    before = {run.extractor: run for run in bank.text.runs(video.video_id)}.get(extractor)
    # a damaged bank may have lost a part of the lines
    is_new = (
        before is None
        or before.made_with != made_with
        or bool(bank.text.missing(video.video_id, extractor))
    )
    sentence_encoder = fitting(build_sentence_encoder(settings.dense), bank.text)
    bank.begin_writing()
    if is_new:
        start = 0.0 if row.pruned is None else row.pruned.start
        spans = spans_of(lines, start, end, note)
        bank.text.write(
            *(TextBlock(video.video_id, extractor, made_with, 0, span) for span in spans),
            replaces=True,
        )
    if sentence_encoder is not None:
        embed_lines(bank, sentence_encoder, video.video_id)
    left_out = {
        "below the score": len(records) - len(sure),
        "outside of the part that the bank has": len(sure) - len(inside),
    }
    return _Import(
        name,
        row.info.path,
        video.video_id,
        len(records),
        dict(Counter(line.kind for line in lines)),
        {why: count for why, count in left_out.items() if count},
        is_new,
        note,
    )


def _rules(settings: ImportSettings, video: VideoFile, length: float) -> "RecordRules":
    from encoders.sources.identity import why_not_file
    from encoders.sources.pictures import picture_size
    from encoders.text.records.record import RecordRules

    size = None if why_not_file(video.video_id, video.path) else picture_size(video.path)
    return RecordRules(
        length,
        settings.kind,
        settings.frame_rate,
        settings.first_frame,
        None if size is None else (size.width, size.height),
    )


def _least(settings: ImportSettings, record: "Record") -> float:
    from encoders.text.records.record import DETECTION

    if settings.min_score is not None:
        return settings.min_score
    return _DETECTION_SCORE if record.kind == DETECTION else 0.0


def _made_with(settings: ImportSettings, length: float) -> str:
    """The bytes of the file, and what says how they are read."""
    digest = hashlib.sha256(Path(settings.file).read_bytes()).hexdigest()[:16]
    names = ("kind", "min_score", "frame_rate", "first_frame")
    values = ", ".join(f"{name}={getattr(settings, name)}" for name in names)
    return f"Records({_RULES}, {digest}, {values}, length={length:g})"


def _remove(bank: "MemoryBank", info: VideoInfo, name: str) -> int:
    runs = (run.extractor for run in bank.text.runs(info.video_id))
    names = [each.removeprefix(IMPORT_PREFIX) for each in runs if each.startswith(IMPORT_PREFIX)]
    if name not in names:
        raise UserError(
            f"{info.path or info.video_id} has no records {name}; "
            + (f"it has {', '.join(names)}" if names else "none were imported")
        )
    bank.begin_writing()
    bank.text.drop(info.video_id, f"{IMPORT_PREFIX}{name}")
    print(f"{info.path}: removed {name}")
    return 0


def _print(done: _Import) -> None:
    counts = [f"{count} {_named(kind, count)}" for kind, count in done.lines.items()]
    again = "" if done.is_new else " (nothing new)"
    records = f"{done.records} record{'' if done.records == 1 else 's'}"
    print(f"{done.path}: {', '.join(counts) or 'no lines'} of {records} from {done.name}{again}")
    for why, count in done.left_out.items():
        print(f"{count} of them are left out, {why}")
    if done.note:
        print(f"warning: {done.note}")


def _named(kind: str, count: int) -> str:
    return f"line{'' if count == 1 else 's'} of {kind}"

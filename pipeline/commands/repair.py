"""`reelbank bank action=repair`: drops what is damaged, and encodes it again if the video is there.

One damaged segment is one segment to encode: its window is rebuilt from the segments before it, so
it gets its original bytes, and later segments stay as they are. Without the video the number stays
free: questions work without it, and a later `ingest` of the video fills it.
A quantized bank no longer has the original window (memory/storage/segments/recent_window.py). The
segment is then encoded behind what the bank stores of earlier frames, so its bytes can differ from
the original ones. Checksums are compared, and the outcome says which case it was.

Order: 1 find all damage, 2 load a model if one is needed (other settings than those of the bank are
refused here, before anything is dropped), 3 video by video: drop, then encode from the first
missing number to the last, 4 repair recent windows and text, and delete damaged rows of further
frame embedders, and what questions had encoded.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from encoders.errors import UserError
from encoders.schema import FrameSource, VideoPart
from encoders.sources.identity import why_not_file
from memory import rebuild
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from memory.storage.catalog import VideoRow
from memory.storage.manifest import WriterLock
from memory.storage.os_errors import as_user_errors
from pipeline.build import build_backbone, build_qa, open_video
from pipeline.config.tasks.bank_settings import RepairSettings
from pipeline.config.tasks.pipeline_settings import OutputFormat
from pipeline.ingest.ingester import Ingester


@dataclass(frozen=True, slots=True)
class Repaired:
    """The outcome of one repair."""

    video_id: str  # "" for the catalog
    number: int | None  # of the segment; None for anything else
    start: float  # seconds of video time
    end: float
    problem: str
    outcome: str
    whole: bool  # False: it is missing now

    def __str__(self) -> str:
        name = f"{self.video_id} " if self.video_id else ""
        segment = ""
        if self.number is not None:
            segment = f"segment {self.number} ({self.start:.1f}-{self.end:.1f} s): "
        return f"{name}{segment}{self.problem}: {self.outcome}"


@dataclass(frozen=True, slots=True)
class _Damage:
    """A damaged or missing segment."""

    start: float  # seconds of video time
    end: float
    problem: str
    checksum: str  # of the original bytes; "" if unknown


Damages = dict[int, _Damage]  # by the number of the segment


def run(settings: RepairSettings) -> int:
    """Repair, and print every outcome; 1 when something is missing now."""
    outcomes = repair(settings)
    if settings.format == OutputFormat.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes]))
    else:
        for outcome in outcomes:
            print(outcome)
        print(f"{settings.bank}: {_tally(outcomes)}")
    return 0 if all(outcome.whole for outcome in outcomes) else 1


def _tally(outcomes: list[Repaired]) -> str:
    whole = sum(outcome.whole for outcome in outcomes)
    missing = len(outcomes) - whole
    if not outcomes:
        return "nothing was damaged"
    return f"{whole} mended, " + (f"{missing} missing" if missing else "all is whole")


def repair(settings: RepairSettings) -> list[Repaired]:
    """Repair the bank of the settings.

    UserError when the bank was made with other settings: only a lost catalog is rebuilt then.
    """
    root = Path(settings.bank)
    outcomes = _repair_root(root)
    with MemoryBank.open(
        root, None, UniformRetriever(), recent_frames=0, create=False, repair=True
    ) as bank:
        bank.begin_writing()
        damaged = _find_damage(bank)  # 1
        with_file = {video_id for video_id in damaged if _obstacle(_row(bank, video_id)) is None}
        ingester = _ingester(settings, bank) if with_file else None  # 2
        windows = {problem.path: problem.text for problem in bank.check.clear_window()}
        for video_id, segments in damaged.items():  # 3
            own = ingester if video_id in with_file else None
            outcomes += _repair_segments(settings, bank, own, video_id, segments)
        return [  # 4
            *outcomes,
            *_repair_records(bank),
            *_repair_windows(bank, windows),
            *_repair_text(bank),
            *_repair_embeddings(bank),
            *_repair_encoded(bank),
        ]


def _repair_root(root: Path) -> list[Repaired]:
    """Mend what opening the bank needs: its folders, writer.lock, bank.json, and the catalog."""
    if not root.is_dir():
        return []  # opening tells
    with as_user_errors(root):
        outcomes = [
            _file_repaired("", f"{path}: {what}", "set aside or deleted")
            for path, what in rebuild.clear_ways(root)
        ]
        lock = WriterLock(root)
        try:
            lost = "it was gone" if rebuild.is_lost(root) else rebuild.damage(root)
            if lost is not None:
                rebuild.mend(root)
                problem, outcome = f"the catalog: {lost}", "rebuilt from the segments"
                outcomes.append(_file_repaired("", problem, outcome))
            what = rebuild.mend_manifest(root)
            if what is not None:
                outcome = "written again from the catalog"
                outcomes.append(_file_repaired("", f"bank.json: {what}", outcome))
        finally:
            lock.release()
    return outcomes


def _find_damage(bank: MemoryBank) -> dict[str, Damages]:
    """Damaged and missing segments of every video that has any, in their order. UserError if this
    user may not read a file: it may be whole."""
    damaged: dict[str, Damages] = {}
    for problem in bank.check.verify():
        if problem.kind == "rights":
            raise UserError(
                f"{problem}; give yourself the rights (chmod -R u+rwX {bank.root}) and repair "
                "again, as nothing was dropped"
            )
        if problem.number is not None:
            row = next(
                row
                for row in bank.catalog.segments(problem.video_id)
                if row.number == problem.number
            )
            damage = _Damage(row.start, row.end, problem.text, row.checksum)
            damaged.setdefault(problem.video_id, {})[problem.number] = damage
    for video in bank.catalog.videos():
        for gap in bank.catalog.gaps(video.info.video_id):
            for number in range(gap.first, gap.stop):
                damage = _Damage(gap.start, gap.end, "missing since before", "")
                damaged.setdefault(video.info.video_id, {})[number] = damage
    return {video_id: dict(sorted(segments.items())) for video_id, segments in damaged.items()}


def _repair_segments(
    settings: RepairSettings,
    bank: MemoryBank,
    ingester: Ingester | None,
    video_id: str,
    segments: Damages,
) -> list[Repaired]:
    """Drop the damaged segments of a video, and encode them again with the ingester."""
    video, last = _row(bank, video_id), max(bank.catalog.next(video_id)[0] - 1, *segments)
    bank.discard(video_id, segments)
    obstacle = None
    try:
        if ingester is not None:
            source = _source(settings, ingester, video)
            ingester.ingest(source, until=None if video.finished else last)
    except UserError as error:
        obstacle = str(error)
    checksums = {row.number: row.checksum for row in bank.catalog.segments(video_id)}
    outcomes = []
    for number, damage in segments.items():
        if number in checksums:
            outcome = "encoded again" + _difference(bank, damage.checksum, checksums[number])
        else:
            outcome = f"dropped, and missing from now on, as {obstacle or _obstacle(video)}"
        outcomes.append(
            Repaired(
                video_id,
                number,
                damage.start,
                damage.end,
                damage.problem,
                outcome,
                number in checksums,
            )
        )
    return outcomes


def _difference(bank: MemoryBank, before: str, after: str) -> str:
    """A remark on the bytes of a segment; "" if they are the original ones."""
    if before == after or (not before and not bank.storage_format.keeps_window):
        return ""
    bytes_ = (
        "its bytes are not those that it had"
        if before
        else "its bytes can differ from those that it had"
    )
    if bank.storage_format.keeps_window:
        behind = "behind what the quantised bank stores of the frames before it"
        return f" {behind}, so {bytes_}"
    return f", but {bytes_}"


def _repair_windows(bank: MemoryBank, before: dict[Path, str]) -> list[Repaired]:
    """Fill lost blocks of recent windows from the segments. before: the problem of each file."""
    outcome = "replaced by what the bank stores of it"
    return [
        _file_repaired(
            problem.video_id,
            f"block {problem.path.name} of its window: {before.get(problem.path, problem.text)}",
            outcome,
        )
        for problem in bank.check.refill_window()
    ]


def _repair_records(bank: MemoryBank) -> list[Repaired]:
    """Write lost records of videos again."""
    outcomes = []
    for problem in bank.check.verify_videos():
        video = _row(bank, problem.video_id)
        bank.record_video(video.info, video.interval, video.finished)
        text = f"{problem.path.name}: {problem.text}"
        outcomes.append(_file_repaired(problem.video_id, text, "written again"))
    return outcomes


def _repair_text(bank: MemoryBank) -> list[Repaired]:
    """Write files of text again, from the catalog."""
    return [
        _file_repaired(
            problem.video_id,
            f"text {problem.path.parent.name}/{problem.path.name}: {problem.text}",
            "written again",
        )
        for problem in bank.check.repair_text()
    ]


def _repair_embeddings(bank: MemoryBank) -> list[Repaired]:
    """Delete damaged rows of further frame embedders, which the film gives again."""
    return [
        _file_repaired(
            problem.video_id,
            f"pictures {problem.path.parent.name}/{problem.path.name}: {problem.text}",
            "deleted; `reelbank add FILM clip=[...]` makes them again",
        )
        for problem in bank.check.clear_embeddings()
    ]


def _repair_encoded(bank: MemoryBank) -> list[Repaired]:
    """Delete damaged files of what questions had encoded."""
    return [
        _file_repaired(
            problem.video_id,
            f"encoded segment {problem.path.name}: {problem.text}",
            "deleted; a question that reads it encodes it again",
        )
        for problem in bank.check.clear_encoded()
    ]


def _file_repaired(video_id: str, problem: str, outcome: str) -> Repaired:
    return Repaired(video_id, None, 0, 0, problem, outcome, True)


def _ingester(settings: RepairSettings, bank: MemoryBank) -> Ingester:
    """An ingester into this bank, which this process has locked.

    UserError when the bank was made with other settings.
    """
    qa = build_qa(settings, build_backbone(settings))
    qa.bank.close()
    text = replace(qa.ingester.text, bank=bank)
    return replace(qa.ingester, bank=bank, text=text)


def _source(settings: RepairSettings, ingester: Ingester, video: VideoRow) -> FrameSource:
    part = VideoPart.parse(video.info.video_id)
    source = open_video(
        settings, ingester.backbone, video.info.path, start=part.start, end=part.end
    )
    if source.info.video_id != video.info.video_id:
        raise UserError(f"{video.info.path} is not the video that it was")
    return source


def _obstacle(video: VideoRow) -> str | None:
    """Why a video cannot be encoded again; None when it can."""
    return why_not_file(video.info.video_id, video.info.path) or None


def _row(bank: MemoryBank, video_id: str) -> VideoRow:
    video = bank.catalog.video(video_id)
    if video is None:
        raise UserError(
            f"video {video_id} has segments but no row in the catalog of bank {bank.root}; "
            "drop it by hand"
        )
    return video

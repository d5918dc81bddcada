"""Mend a bank: drop what is damaged, and encode it again where the video is still there.

Knows no command line. One damaged segment is one segment to encode: its window is rebuilt from the segments before it, so it
gets the bytes that it had, and what was encoded after it stays as it is. Where the video is gone the number stays free:
questions go on without it, and a later `ingest` of the video fills it.
In a quantised bank the window as it was made is gone (memory/storage/recent_window.py): the segment is encoded behind what is stored of the
frames before it, so its bytes can differ from those that it had. Sums are compared, and the outcome says which it was.
Order: 1 find everything, 2 load a model if one is needed (a bank made with other settings is refused here, before anything
is dropped), 3 video by video: drop, then encode from the first number that is missing to the last, 4 what is wrong with
recent windows and with text.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from encoders.errors import UserError
from encoders.schema import FrameSource, VideoPart
from encoders.sources.container import fingerprint
from memory import rebuild
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from memory.storage.catalog import VideoRow
from pipeline.build import build_backbone, build_qa, open_video
from pipeline.config.settings import RepairSettings
from pipeline.ingest.ingester import Ingester


@dataclass(frozen=True, slots=True)
class Mended:
    """What became of one thing that was wrong."""

    video_id: str  # "" for the catalog
    number: int | None  # of the segment; None when it was something else
    start: float  # seconds of video time that it concerns
    end: float
    problem: str
    outcome: str
    whole: bool  # False: it is missing now

    def __str__(self) -> str:
        name = f"{self.video_id} " if self.video_id else ""
        which = (
            ""
            if self.number is None
            else f"segment {self.number} ({self.start:.1f}-{self.end:.1f} s): "
        )
        return f"{name}{which}{self.problem}: {self.outcome}"


def mend(config: RepairSettings) -> list[Mended]:
    """Repair the bank at config.bank. UserError when the settings are not those of the bank: then nothing has changed but
    a catalog that was rebuilt."""
    root = Path(config.bank)
    lost = "it was gone" if rebuild.is_lost(root) else rebuild.damage(root)
    with MemoryBank.open(
        root, None, UniformRetriever(), recent_frames=0, create=False, repair=True
    ) as bank:
        bank.begin_writing()
        done = (
            []
            if lost is None
            else [Mended("", None, 0, 0, f"the catalog: {lost}", "rebuilt from the segments", True)]
        )
        hurt = _hurt(bank)  # 1
        there = {video_id for video_id in hurt if _why_not(_row(bank, video_id)) is None}
        ingester = _ingester(config, bank) if there else None  # 2
        windows = {problem.path: problem.text for problem in bank.check.clear_window()}
        for video_id, segments in hurt.items():  # 3
            done += _mended(
                config, bank, ingester if video_id in there else None, video_id, segments
            )
        return done + _rows(bank) + _windows(bank, windows) + _text(bank)  # 4


# number -> start, end, what is wrong, checksum that it had ("" if unknown)
Hurt = dict[int, tuple[float, float, str, str]]


def _hurt(bank: MemoryBank) -> dict[str, Hurt]:
    """Damaged and missing segments of every video that has any."""
    found: dict[str, Hurt] = {}
    for problem in bank.check.verify():
        if problem.number is not None:
            row = next(
                row
                for row in bank.catalog.segments(problem.video_id)
                if row.number == problem.number
            )
            found.setdefault(problem.video_id, {})[problem.number] = (
                row.start,
                row.end,
                problem.text,
                row.checksum,
            )
    for video in bank.catalog.videos():
        for gap in bank.catalog.gaps(video.info.video_id):
            for number in range(gap.first, gap.stop):
                found.setdefault(video.info.video_id, {})[number] = (
                    gap.start,
                    gap.end,
                    "missing since before",
                    "",
                )
    return {video_id: dict(sorted(segments.items())) for video_id, segments in found.items()}


def _mended(
    config: RepairSettings,
    bank: MemoryBank,
    ingester: Ingester | None,
    video_id: str,
    segments: Hurt,
) -> list[Mended]:
    video, last = _row(bank, video_id), max(bank.catalog.next(video_id)[0] - 1, *segments)
    bank.discard(video_id, segments)
    why = None
    try:
        if ingester is not None:
            ingester.ingest(
                _source(config, ingester, video), until=None if video.finished else last
            )
    except UserError as error:
        why = str(error)
    there = {row.number: row.checksum for row in bank.catalog.segments(video_id)}
    done = []
    for number, (start, end, problem, checksum) in segments.items():
        outcome = f"dropped, and missing from now on, as {why or _why_not(video)}"
        if number in there:
            outcome = "encoded again" + _unlike(bank, checksum, there[number])
        done.append(Mended(video_id, number, start, end, problem, outcome, number in there))
    return done


def _unlike(bank: MemoryBank, before: str, after: str) -> str:
    """What is to be said of a segment's bytes; nothing where they are those that it had."""
    if before == after or (not before and not bank.storage_format.keeps_window):
        return ""
    bytes_ = (
        "its bytes are not those that it had"
        if before
        else "its bytes can differ from those that it had"
    )
    behind = (
        "behind what the quantised bank stores of the frames before it"
        if bank.storage_format.keeps_window
        else ""
    )
    return f" {behind}, so {bytes_}" if behind else f", but {bytes_}"


def _windows(bank: MemoryBank, before: dict[Path, str]) -> list[Mended]:
    """Put what the segments store in the place of lost blocks of recent windows. before: what was wrong with them."""
    outcome = "replaced by what the bank stores of it"
    return [
        Mended(
            p.video_id,
            None,
            0,
            0,
            f"block {p.path.name} of its window: {before.get(p.path, p.text)}",
            outcome,
            True,
        )
        for p in bank.check.refill_window()
    ]


def _rows(bank: MemoryBank) -> list[Mended]:
    """Write again what is kept of videos beside their segments, where it was lost."""
    done = []
    for problem in bank.check.verify_videos():
        video = _row(bank, problem.video_id)
        bank.record_video(video.info, video.interval, video.finished)
        done.append(
            Mended(
                problem.video_id,
                None,
                0,
                0,
                f"{problem.path.name}: {problem.text}",
                "written again",
                True,
            )
        )
    return done


def _text(bank: MemoryBank) -> list[Mended]:
    """Write files of text again, from the catalog."""
    return [
        Mended(
            p.video_id,
            None,
            0,
            0,
            f"text {p.path.parent.name}/{p.path.name}: {p.text}",
            "written again",
            True,
        )
        for p in bank.check.repair_text()
    ]


def _ingester(config: RepairSettings, bank: MemoryBank) -> Ingester:
    """Encodes into this bank, which is locked already. Raises UserError when the bank was made with other settings."""
    qa = build_qa(config, build_backbone(config))
    qa.bank.close()
    text = replace(qa.ingester.text, bank=bank)
    return replace(qa.ingester, bank=bank, text=text)


def _source(config: RepairSettings, ingester: Ingester, video: VideoRow) -> FrameSource:
    part = VideoPart.parse(video.info.video_id)
    source = open_video(config, ingester.backbone, video.info.path, start=part.start, end=part.end)
    if source.info.video_id != video.info.video_id:
        raise UserError(f"{video.info.path} is not the video that it was")
    return source


def _why_not(video: VideoRow) -> str | None:
    """Why a video cannot be encoded again; None when it can."""
    path = Path(video.info.path)
    if not video.info.path or not path.is_file():
        return f"{path} is not there" if video.info.path else "nobody knows where the video is"
    if not video.info.video_id.startswith(fingerprint(path)):
        return f"{path} is not the video that it was"
    return None


def _row(bank: MemoryBank, video_id: str) -> VideoRow:
    video = bank.catalog.video(video_id)
    if video is None:
        raise UserError(
            f"video {video_id} has segments but no row in the catalog of bank {bank.root}; drop it by hand"
        )
    return video

"""Which video of a bank is meant: by id, or by the file at a path; and where its file lies. Knows
no encoder."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from encoders.errors import UserError
from encoders.schema import VideoPart
from memory.bank import MemoryBank
from memory.storage.catalog import VideoRow
from pipeline.config.tasks.pipeline_settings import AUTO_TEXT


def find_video(bank: MemoryBank, video: str) -> VideoRow | None:
    """The video of an id or a path; None when it is empty.

    A path means the bytes that are there now, whatever the bank calls them. The path of a file that
    is gone means the video that was made of it.

    UserError when no video of the bank, or more than one, is meant.
    """
    if not video:
        return None
    videos = bank.catalog.videos()
    by_id = next((row for row in videos if row.info.video_id == video), None)
    if by_id is not None:
        return by_id
    path = Path(video)
    by_path = [row for row in videos if _is_path(row.info.path, path)]
    meant = by_path
    if path.is_file():
        from encoders.sources.container import fingerprint  # it loads a decoder of films

        name = fingerprint(path)
        meant = [row for row in videos if VideoPart.parse(row.info.video_id).id == name]
    if not meant and by_path:
        raise UserError(
            f"video={video} is not the video that it was in bank {bank.name}; "
            f"give the id of the one in the bank ({_ids(by_path)})"
        )
    if not meant:
        raise UserError(
            f"video={video} is not in bank {bank.name}; "
            f"`reelbank bank bank={bank.root}` lists what is"
        )
    if len(meant) > 1:
        raise UserError(
            f"video={video} is {len(meant)} videos of bank {bank.name} "
            f"({_ids(meant)}); give one of these ids"
        )
    return meant[0]


def by_path(videos: Iterable[VideoRow]) -> list[VideoRow]:
    """The videos in the order in which people list files: an id is a hash, and means nothing."""
    return sorted(videos, key=lambda row: (row.info.path, row.info.video_id))


def every_id(videos: Sequence[VideoRow], bank: str | Path) -> list[str]:
    """The ids of all videos of a bank, ordered by their paths. UserError where there is none."""
    ids = [row.info.video_id for row in by_path(videos)]
    if not ids:
        raise UserError(f"bank {bank} holds no video; `reelbank add FILM` encodes the first one")
    return ids


def has_all(bank: MemoryBank, path: Path, extractors: Collection[str]) -> bool:
    """Whether a bank has all of a video file: every segment, and the words of these extractors.

    extractors: names of text=. Words that nobody asked for (text=auto) are extracted while a film
    is encoded, so none is missing later.
    """
    from encoders.sources.container import fingerprint

    row = bank.catalog.video(fingerprint(path))
    if row is None or not row.finished or bank.catalog.gaps(row.info.video_id):
        return False
    runs = {run.extractor for run in bank.text.runs(row.info.video_id)}
    return AUTO_TEXT in extractors or runs >= set(extractors)


def follow_file(bank: MemoryBank, video: VideoRow, path: Path) -> bool:
    """Record the path of a file that has these bytes, where the recorded one has them no more.

    path: absolute. Returns whether it was recorded: a copy beside the file that is known is not.
    UserError where the bank cannot be written.
    """
    from encoders.sources.identity import why_not_file  # it loads a decoder of films

    if not why_not_file(video.info.video_id, video.info.path):
        return False
    bank.record_video(replace(video.info, path=str(path)), video.interval, video.finished)
    return True


def _is_path(stored: str, path: Path) -> bool:
    """Whether a path is the stored one. A bank of before 2026-12 may hold a relative path, of an
    unknown folder: that is itself alone.
    """
    return bool(stored) and (stored == str(path) or Path(stored) == path.absolute())


def _ids(rows: list[VideoRow]) -> str:
    return ", ".join(row.info.video_id for row in rows)

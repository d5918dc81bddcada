"""Which video of a bank a setting means: by id or by path. Knows no encoder."""

from pathlib import Path

from encoders.errors import UserError
from memory.bank import MemoryBank
from memory.storage.catalog import VideoRow
from pipeline.config.settings import BankSettings, FindSettings


def find_video(settings: BankSettings | FindSettings, bank: MemoryBank) -> VideoRow | None:
    """The video of video=; None when the setting is empty.

    UserError when no video of the bank, or more than one, is meant.
    """
    if not settings.video:
        return None
    videos = bank.catalog.videos()
    by_id = next((row for row in videos if row.info.video_id == settings.video), None)
    if by_id is not None:
        return by_id
    path = Path(settings.video).absolute()
    by_path = [row for row in videos if row.info.path and Path(row.info.path).absolute() == path]
    if not by_path:
        raise UserError(
            f"video={settings.video} is not in bank {settings.bank}; "
            f"`reelbank bank bank={settings.bank}` lists what is"
        )
    if len(by_path) > 1:
        ids = ", ".join(row.info.video_id for row in by_path)
        raise UserError(
            f"video={settings.video} is {len(by_path)} videos of bank {settings.bank} ({ids}); "
            "give one of these ids"
        )
    return by_path[0]

"""`reelbank bank action=compact`: stores old segments in fewer bits, or says which ones."""

import json
import time
from dataclasses import asdict

from encoders.errors import UserError
from memory.bank import MemoryBank
from memory.storage.retention import Rule
from memory.storage.segments.segment_codec import StorageFormat
from pipeline.config import units
from pipeline.config.tasks.bank_settings import BankSettings
from pipeline.config.tasks.pipeline_settings import OutputFormat
from pipeline.videos import find_video

_SMALLEST = "int4"


def check(settings: BankSettings) -> None:
    """UserError on an age or a type that is none, and without an age."""
    if not settings.older_than:
        raise UserError("action=compact rewrites what is old; give older_than=1d.")
    _before(settings)
    _format(settings)


def run(settings: BankSettings, bank: MemoryBank) -> int:
    """Rewrite the segments within the age, or with dry_run=true only list them."""
    video = find_video(bank, settings.video)
    rule = Rule(None if video is None else video.info.video_id, _before(settings))
    done = bank.compaction.run(rule, _format(settings), dry_run=settings.dry_run)
    paths = {row.info.video_id: row.info.path for row in bank.catalog.videos()}
    if settings.format == OutputFormat.json:
        table = [asdict(each) | {"path": paths[each.video_id]} for each in done]
        result = {"bank": settings.bank, "dry_run": settings.dry_run, "compacted": table}
        print(json.dumps(result | {"left_bytes": bank.catalog.nbytes()}))
        return 0
    for each in done:
        size = f"{each.segments} segments, {each.seconds:.1f} s, {each.before / 1e6:.3f} MB"
        if settings.dry_run:
            print(f"would read {each.video_id}: {size}  {paths[each.video_id]}")
        else:
            now = f"{each.nbytes / 1e6:.3f} MB now"
            print(f"compacted {each.video_id}: {size}, {now}  {paths[each.video_id]}")
    if not done:
        print(f"{settings.bank}: nothing to compact")
    return 0


def _before(settings: BankSettings) -> float:
    """Unix seconds before which segments are old."""
    return time.time() - units.parse_age("older_than", settings.older_than)


def _format(settings: BankSettings) -> StorageFormat:
    return StorageFormat(settings.kv_dtype or _SMALLEST, settings.token_dtype or _SMALLEST)

"""`reelbank bank action=prune`: deletes the oldest segments, or says which ones it would delete."""

import json
import time
from dataclasses import asdict

from encoders.errors import UserError
from memory.bank import MemoryBank
from memory.storage.retention import Rule
from pipeline.config import units
from pipeline.config.tasks.bank_settings import BankSettings
from pipeline.config.tasks.pipeline_settings import OutputFormat
from pipeline.videos import find_video


def check(settings: BankSettings) -> None:
    """UserError on limits that are none, and when no limit is given."""
    _limits(settings)
    if not (settings.video or settings.older_than or settings.max_bytes):
        raise UserError(
            "action=prune deletes what it is told to; "
            "give video=ID, older_than=7d or max_bytes=10GB"
        )


def run(settings: BankSettings, bank: MemoryBank) -> int:
    """Delete the segments within the limits, or with dry_run=true only list them."""
    video = find_video(bank, settings.video)
    before, max_bytes = _limits(settings)
    paths = {row.info.video_id: row.info.path for row in bank.catalog.videos()}
    rule = Rule(None if video is None else video.info.video_id, before, max_bytes)
    cuts = bank.prune(rule, settings.dry_run)
    left = bank.catalog.nbytes() - sum(cut.nbytes for cut in cuts if settings.dry_run)
    if settings.format == OutputFormat.json:
        table = [asdict(cut) | {"path": paths[cut.video_id]} for cut in cuts]
        result = {"bank": settings.bank, "dry_run": settings.dry_run, "pruned": table}
        print(json.dumps(result | {"left_bytes": left}))
        return 0
    verb = "would delete" if settings.dry_run else "deleted"
    for cut in cuts:
        whole = " (all of it)" if cut.first is None else ""
        size = f"{cut.segments} segments, {cut.seconds:.1f} s, {cut.nbytes / 1e6:.3f} MB"
        print(f"{verb} {cut.video_id}: {size}{whole}  {paths[cut.video_id]}")
    if not cuts:
        print(f"{settings.bank}: nothing to prune")
    if max_bytes is not None and left > max_bytes:
        others = "other videos are left alone, and " if settings.video else ""
        print(
            f"{settings.bank}: {left / 1e6:.3f} MB stay, more than "
            f"max_bytes={settings.max_bytes}: {others}"
            "what an unfinished video's encoder goes on with is kept"
        )
    return 0


def _limits(settings: BankSettings) -> tuple[float | None, float | None]:
    """(Unix seconds before which segments go, bytes that may stay); None without that limit."""
    before = None
    if settings.older_than:
        before = time.time() - units.parse_age("older_than", settings.older_than)
    max_bytes = units.parse_size("max_bytes", settings.max_bytes) if settings.max_bytes else None
    return before, max_bytes

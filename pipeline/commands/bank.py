"""`reelbank bank`: checks the settings, opens the bank, and does what it is told to.

Knows no encoder. A mistake is a UserError before anything changes.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from encoders.errors import UserError
from pipeline.config.tasks.bank_settings import BankSettings, RepairSettings
from pipeline.config.tasks.pipeline_settings import OutputFormat

if TYPE_CHECKING:
    from memory.bank import MemoryBank
    from memory.bank_check import Problem

# settings of some actions only
_SETTINGS_OF = {
    "ls": ("video", "start", "end", "since", "until"),
    "prune": ("video", "older_than", "max_bytes", "dry_run"),
    "compact": ("video", "older_than", "dry_run", "kv_dtype", "token_dtype"),
}


def run(settings: BankSettings | RepairSettings) -> int:
    """reelbank bank; exit code 1 when the bank has damage, or when damage stays after a repair."""
    if isinstance(settings, RepairSettings):
        from pipeline.commands import repair

        return repair.run(settings)
    if settings.action not in ("ls", "verify", "prune", "compact"):
        raise UserError(
            f"action={settings.action} is not known; use ls, verify, repair, prune or compact."
        )
    _refuse_other_settings(settings)
    from memory.bank import MemoryBank
    from memory.bank_check import Problem
    from memory.retrieval.uniform import UniformRetriever
    from memory.storage.database import CatalogDamagedError
    from memory.storage.manifest import ManifestDamagedError
    from pipeline.commands import bank_compact, bank_list, bank_prune

    actions = {"ls": bank_list, "prune": bank_prune, "compact": bank_compact}
    action = actions.get(settings.action)
    if action is not None:
        action.check(settings)
    try:
        with MemoryBank.open(
            settings.bank, None, UniformRetriever(), recent_frames=0, create=False
        ) as bank:
            return _verify(settings, bank) if action is None else action.run(settings, bank)
    except (CatalogDamagedError, ManifestDamagedError) as error:
        if settings.action != "verify":
            raise
        # without these files, no other file can be expected
        kind, name = "catalog", "catalog.sqlite"
        if isinstance(error, ManifestDamagedError):
            kind, name = "manifest", "bank.json"
        return _report(settings, [Problem(kind, Path(settings.bank) / name, str(error))], 0)


def _refuse_other_settings(settings: BankSettings) -> None:
    """UserError on a setting that the action does not use."""
    for key in dict.fromkeys(key for keys in _SETTINGS_OF.values() for key in keys):
        value = getattr(settings, key)
        if value in (None, "", False) or key in _SETTINGS_OF.get(settings.action, ()):
            continue
        users = [f"action={action}" for action, keys in _SETTINGS_OF.items() if key in keys]
        raise UserError(
            f"{key}={value} has no effect with action={settings.action}; it is for "
            f"{', '.join(users)}"
        )


def _verify(settings: BankSettings, bank: "MemoryBank") -> int:
    problems = bank.check.verify()
    count = sum(len(bank.catalog.segments(video.info.video_id)) for video in bank.catalog.videos())
    return _report(settings, problems, count)


def _report(settings: BankSettings, problems: "Sequence[Problem]", segments: int) -> int:
    """Print the problems; 1 when there are any. segments: how many the bank has."""
    if settings.format == OutputFormat.json:
        print(json.dumps([asdict(problem) | {"path": str(problem.path)} for problem in problems]))
    elif problems:
        print("\n".join(str(problem) for problem in problems))
    else:
        print(f"{settings.bank}: all {segments} segments are whole")
    return 1 if problems else 0

"""`reelbank resident`: says whether a bank has a resident process, or ends it."""

import time
from collections.abc import Mapping, Sequence

from encoders.errors import UserError
from pipeline.config.default_bank import default_bank
from pipeline.config.units import format_duration
from pipeline.resident.client import request

_SECONDS_TO_END = 30.0  # for the command that runs


def run(words: Sequence[str], options: Mapping[str, str]) -> int:
    """reelbank resident [status|stop]; exit code 1 where status finds none."""
    action = words[0] if words else "status"
    if action not in ("status", "stop") or len(words) > 1:
        raise UserError(f"reelbank resident {' '.join(words)} is not known; use status or stop")
    bank = options.get("bank") or default_bank()
    reply = request(bank, action)
    if reply is None or "status" not in reply:
        print(f"no resident process of bank {bank}")
        return int(action == "status")
    status = reply["status"]
    if action == "status":
        since = format_duration(status["seconds"])
        print(f"process {status['pid']} of bank {bank}: {status['commands']} commands in {since}")
        return 0
    if not status["ends"]:
        raise UserError(
            f"process {status['pid']} serves bank {bank} to others as well; stop it where it was "
            "started"
        )
    until = time.monotonic() + _SECONDS_TO_END
    while request(bank, "status") is not None:
        if time.monotonic() > until:
            raise UserError(
                f"process {status['pid']} of bank {bank} still runs a command; it ends after that"
            )
        time.sleep(0.02)
    print(f"stopped process {status['pid']} of bank {bank}")
    return 0

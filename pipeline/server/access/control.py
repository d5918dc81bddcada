"""`reelbank keys`: makes, lists and revokes the keys of a server, also while it runs."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from encoders.errors import UserError
from pipeline.config.default_bank import default_bank
from pipeline.server.access.key import new_key
from pipeline.server.access.key_file import KeyFile, key_file_of

_ACTIONS = ("ls", "add", "revoke")


def run(words: Sequence[str], options: Mapping[str, str]) -> int:
    """reelbank keys [ls | add NAME | revoke NAME]."""
    action, names = (words[0], words[1:]) if words else ("ls", ())
    if action not in _ACTIONS:
        raise UserError(f"reelbank keys {action} is not known; use {', '.join(_ACTIONS)}")
    if len(names) != (action != "ls"):
        raise UserError(
            f"reelbank keys {action} takes {'no name' if action == 'ls' else 'one name'}, as in "
            f"`reelbank keys {action}{'' if action == 'ls' else ' laptop'}`"
        )
    bank = options.get("bank") or default_bank()
    file = KeyFile(Path(options.get("keys") or key_file_of(bank)).expanduser())
    is_json = options.get("format") == "json"
    if action == "ls":
        return _list(file, is_json)
    if action == "revoke":
        key = file.revoke(names[0])
        print(json.dumps({"revoked": key.name}) if is_json else f"revoked {key.name}")
        return 0
    try:
        per_minute = int(options.get("rate", "0"))
    except ValueError:
        raise UserError(f"--rate {options['rate']} is no number; give requests a minute") from None
    rights = [each.strip() for each in options.get("rights", "ask").split(",")]
    banks = [each for each in options.get("banks", "").split(",") if each]
    key, token = new_key(names[0], rights, banks, per_minute, time.time())
    file.add(key)
    if is_json:
        print(json.dumps({"name": key.name, "rights": key.rights, "key": token}))
        return 0
    print(token)  # alone on stdout, so that a script can take it
    print(
        f"key {key.name} of {file.path}: {', '.join(key.rights)}; it is not shown again",
        file=sys.stderr,
    )
    return 0


def _list(file: KeyFile, is_json: bool) -> int:
    keys = sorted(file.keys().values(), key=lambda key: key.name)
    if is_json:
        rows = [{name: each for name, each in key.to_dict().items() if name != "digest"}
                for key in keys]  # fmt: skip
        print(json.dumps({"keys": rows}))
        return 0
    if not keys:
        print(f"no keys in {file.path}")
    for key in keys:
        made = datetime.fromtimestamp(key.made).strftime("%Y-%m-%d %H:%M")
        rate = f", {key.per_minute} requests a minute" if key.per_minute else ""
        banks = f", of {', '.join(key.banks)}" if key.banks else ""
        print(f"{key.name}: {', '.join(key.rights)}{rate}{banks}; made {made}")
    return 0

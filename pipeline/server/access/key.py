"""A named key: who asks, what they may do, and which banks they may see. Knows no file."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from encoders.errors import UserError

RIGHTS = ("ask", "add", "delete", "admin")  # admin: all of them, and metrics and streams
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PREFIX = "rb"  # what a scanner for leaked secrets can look for


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is kept. The secret is not in it."""

    name: str
    id: str  # public part of the token
    digest: str  # SHA-256 of the secret, in hex: a secret of 256 random bits needs no slow hash
    rights: tuple[str, ...]
    banks: tuple[str, ...] = ()  # absolute folders; (): every bank of the server
    per_minute: int = 0  # requests; 0: no limit
    made: float = 0.0  # Unix seconds

    def may(self, right: str) -> bool:
        """Whether it has a right."""
        return right in self.rights or "admin" in self.rights

    def sees(self, bank: str | Path) -> bool:
        """Whether it may see a bank. "" is one that nobody knows any more."""
        return not self.banks or (bool(str(bank)) and absolute(bank) in self.banks)

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Key":
        """From `to_dict`. TypeError or KeyError on anything else."""
        rights, banks = tuple(values["rights"]), tuple(values["banks"])
        return cls(**{**values, "rights": rights, "banks": banks})


def new_key(
    name: str, rights: Sequence[str], banks: Sequence[str], per_minute: int, made: float
) -> tuple[Key, str]:
    """A key and its token, which nobody can see again. UserError on a name or a right that is none.

    banks: folders; (): every bank of the server.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name!r} is no name for a key; use up to 64 letters, digits, dots, dashes and "
            "underscores"
        )
    wrong = [right for right in rights if right not in RIGHTS]
    if wrong or not rights:
        raise UserError(f"rights={','.join(rights)} is not known; use {', '.join(RIGHTS)}")
    if per_minute < 0:
        raise UserError(f"per_minute={per_minute} is too small; use 0 for no limit, or more")
    secret, key_id = secrets.token_urlsafe(32), secrets.token_hex(6)
    kept = tuple(right for right in RIGHTS if right in rights)
    folders = tuple(absolute(bank) for bank in banks)
    key = Key(name, key_id, digest(secret), kept, folders, per_minute, made)
    return key, f"{_PREFIX}_{key_id}_{secret}"


def split_token(token: str) -> tuple[str, str]:
    """The id and the secret of a token; ("", "") where it is none."""
    prefix, _, rest = token.partition("_")
    key_id, _, secret = rest.partition("_")
    return (key_id, secret) if prefix == _PREFIX and key_id and secret else ("", "")


def digest(secret: str) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


def is_secret_of(key: Key | None, secret: str) -> bool:
    """Whether a secret is that of a key, in a time that does not depend on either; False without
    a key."""
    expected = digest("") if key is None else key.digest
    return hmac.compare_digest(digest(secret), expected) and key is not None and bool(secret)


def absolute(bank: str | Path) -> str:
    """The folder of a bank as keys name it."""
    return str(Path(bank).expanduser().resolve())

"""Who may do what: the named keys of a server, and the one key of api_key=.

Order: 1 the key, 2 its rate, 3 its right for the path, 4 the bank that the path changes. A refusal
says what is missing, and nothing of other keys.
"""

import hashlib
import hmac
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence

from starlette.requests import Request
from starlette.types import Scope

from encoders.errors import UserError
from pipeline.server.access.key import Key, is_secret_of, split_token
from pipeline.server.access.key_file import KeyFile
from pipeline.server.access.rate_limit import RateLimit
from pipeline.server.errors import ApiError

log = logging.getLogger(__name__)

_KEY = "reelbank.key"  # of a request's state
_STAYS = "reelbank.stays"  # the same: whether the request would still be admitted
_SHARED = Key("api_key", "", "", ("admin",))  # the key of api_key=, which may do everything

# what is of the first bank of the server as a whole
_OF_FIRST_BANK = ("/v1/files", "/metrics")
# (method, beginning of the path) -> the right; the first match counts
_RIGHTS: tuple[tuple[str, str, str], ...] = (
    ("*", "/metrics", "admin"),
    ("DELETE", "/v1/files", "delete"),
    ("POST", "/v1/files", "add"),
    ("POST", "/v1/videos", "add"),
    ("DELETE", "/v1/videos", "add"),
    ("GET", "/v1/", "ask"),
    ("HEAD", "/v1/", "ask"),
    ("POST", "/v1/chat/", "ask"),
    ("POST", "/v1/responses", "ask"),
    ("POST", "/v1/embeddings", "ask"),
    ("POST", "/v1/search", "ask"),
    ("*", "/", "admin"),
)


class Doorkeeper:
    """Admits requests. Safe in threads."""

    def __init__(
        self, api_key: str = "", keys: KeyFile | None = None, banks: Sequence[str] = ()
    ) -> None:
        """api_key: may do everything; "": there is none. keys: named ones. banks: folders that the
        server reads; the first one takes what is added."""
        self._digest = hashlib.sha256(api_key.encode()).digest() if api_key else b""
        self._file, self._banks, self._rates = keys, tuple(banks), RateLimit()
        # further banks that a key may be for: those of streams, which come and go
        self.stream_banks: Callable[[], Collection[str]] = tuple
        # once there were named keys, a file that is gone opens nothing
        self._is_named = keys is not None and keys.exists

    @property
    def is_closed(self) -> bool:
        """Whether a key is required."""
        self._is_named = self._is_named or (self._file is not None and self._file.exists)
        return bool(self._digest) or self._is_named

    def admit(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        """Let a request pass, and keep its key in the scope. ApiError 401, 403 or 429."""
        state = scope.setdefault("state", {})
        if not self.is_closed:
            state[_STAYS] = lambda: not self.is_closed
            return
        key = self._key(headers.get(b"authorization", b""))  # 1
        if key is None:
            raise ApiError(
                401,
                "The API key is missing or wrong; send Authorization: Bearer KEY.",
                code="invalid_api_key",
            )
        state[_KEY], state[_STAYS] = key, lambda: self._is_current(key)
        seconds = self._rates.wait(key.id, key.per_minute)  # 2
        if seconds:
            raise ApiError(
                429,
                f"The key {key.name} may make {key.per_minute} requests a minute.",
                code="rate_limit_exceeded",
                retry_after=math.ceil(seconds),
            )
        method, path = scope.get("method", "GET"), scope["path"]
        require(key, right_of(method, path))  # 3
        if self._banks and not any(map(key.sees, (*self._banks, *self.stream_banks()))):  # 4
            raise _no_bank(key)
        if path.startswith(_OF_FIRST_BANK) and not key.sees(self._banks[0] if self._banks else ""):
            raise _no_bank(key)

    def _is_current(self, key: Key) -> bool:
        """Whether a key that was admitted still is one."""
        if key is _SHARED:
            return True
        try:
            return self._file is not None and self._file.keys().get(key.id) == key
        except UserError:
            return False

    def _key(self, header: bytes) -> Key | None:
        scheme, _, sent = header.partition(b" ")
        token = sent.strip() if scheme.lower() == b"bearer" else b""
        is_shared = hmac.compare_digest(hashlib.sha256(token).digest(), self._digest or b"-" * 32)
        key_id, secret = split_token(token.decode("latin-1"))
        try:
            key = None if self._file is None else self._file.keys().get(key_id)
        except UserError as error:  # nobody gets in where the keys cannot be read
            log.error("reelbank: %s", error)
            raise ApiError(
                503, "The keys of this server cannot be read; its log says why."
            ) from None
        is_named = is_secret_of(key, secret)
        if self._digest and is_shared:
            return _SHARED
        return key if is_named else None


def right_of(method: str, path: str) -> str:
    """The right that a request needs."""
    return next(
        right for own, begin, right in _RIGHTS if own in ("*", method) and path.startswith(begin)
    )


def key_of(scope: Scope) -> Key | None:
    """The key of an admitted request; None where none is required."""
    key = scope.get("state", {}).get(_KEY)
    return key if isinstance(key, Key) else None


def stays_admitted(scope: Scope) -> bool:
    """Whether a request that was admitted still would be: its key may be revoked meanwhile, or keys
    may be required by now. For responses without an end."""
    stays = scope.get("state", {}).get(_STAYS)
    return stays is None or bool(stays())


def require(key: Key | None, right: str) -> None:
    """ApiError 403 where a key lacks a right."""
    if key is not None and not key.may(right):
        what = "manage this server" if right == "admin" else right
        raise ApiError(
            403,
            f"The key {key.name} may not {what}; its rights are {', '.join(key.rights)}.",
            code="missing_right",
        )


def sees(request: Request, bank: object) -> bool:
    """Whether the key of a request may see a bank."""
    key = key_of(request.scope)
    return key is None or key.sees(str(bank))


def _no_bank(key: Key) -> ApiError:
    return ApiError(403, f"The key {key.name} may not see this bank.", code="missing_bank")

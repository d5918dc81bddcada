"""`notify=webhook`: a notice as a signed POST.

Signed as Standard Webhooks (standardwebhooks.com) says, so that a library of a receiver checks it:
`webhook-signature: v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`. Any 2xx is success.
Redirects are not followed: the address was chosen with care, and its answer may not send notices
elsewhere. The secret comes from the environment with each notice.
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
import time
from urllib.parse import urlsplit

from encoders.errors import UserError
from encoders.extras import require_extra
from encoders.sources.live.address import without_password
from pipeline.alerts.schema import DeliveryError, Notice

_PASSING = (408, 409, 425, 429)  # statuses below 500 after which a later try may succeed
_PICTURE_BYTES = 256 << 10  # a larger picture is left out of the body


class Webhook:
    """One address."""

    def __init__(
        self,
        *,
        url: str = "",
        secret_env: str = "REELBANK_WEBHOOK_SECRET",
        timeout_s: float = 10.0,
        picture: bool = True,
    ) -> None:
        """secret_env: environment variable with the secret, whsec_BASE64 or plain text. timeout_s:
        without an answer. picture: the JPEG is in the body. UserError on an address that is none,
        or without a secret.
        """
        require_extra("alerts", "notify=webhook")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(
                f"notify.webhook.url={url!r} is no address; write one such as "
                "https://example.org/hooks/reelbank"
            )
        if not os.environ.get(secret_env):
            raise UserError(
                f"notify=webhook signs what it sends; set the environment variable {secret_env} to "
                "the secret that the receiver knows"
            )
        self._url, self._secret_env = url, secret_env
        self._timeout_s, self._picture = timeout_s, picture

    @property
    def address(self) -> str:
        return without_password(self._url)

    def send(self, notice: Notice) -> None:
        """POST the notice. DeliveryError."""
        import httpx

        body = self._body(notice)
        seconds = str(int(time.time()))
        headers = {
            "content-type": "application/json",
            "user-agent": "reelbank",
            "webhook-id": notice.id,
            "webhook-timestamp": seconds,
            "webhook-signature": sign(os.environ[self._secret_env], notice.id, seconds, body),
        }
        try:
            # streamed: the body of the answer is of no interest, however long it is
            with httpx.stream(
                "POST", self._url, content=body, headers=headers, timeout=self._timeout_s
            ) as response:
                status = response.status_code
        except httpx.TimeoutException:
            raise DeliveryError(f"gives no answer in {self._timeout_s:g} s") from None
        except httpx.HTTPError as error:
            raise DeliveryError(f"cannot be reached ({error})") from None
        if not 200 <= status < 300:
            passes = status >= 500 or status in _PASSING
            raise DeliveryError(f"answers {status}", passes=passes)

    def _body(self, notice: Notice) -> bytes:
        body = dict(notice.body)
        if self._picture and notice.picture is not None and notice.picture.exists():
            jpeg = notice.picture.read_bytes()
            if len(jpeg) <= _PICTURE_BYTES:
                body["picture"] = {
                    "media_type": "image/jpeg",
                    "base64": base64.b64encode(jpeg).decode(),
                }
        return json.dumps(body).encode()


def sign(secret: str, notice_id: str, seconds: str, body: bytes) -> str:
    """The header webhook-signature of Standard Webhooks. secret: whsec_BASE64, or plain text.
    seconds: Unix time, as it is sent."""
    key = secret.encode()
    if secret.startswith("whsec_"):
        try:
            key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            raise DeliveryError("has a secret whsec_... that is no base64") from None
    signed = f"{notice_id}.{seconds}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()

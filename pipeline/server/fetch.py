"""Videos at URLs -> pieces of bytes, for a server that must not become somebody's way into its network.

Knows HTTP through httpcore; no video and no bank. What is closed here:
- only http and https, only hosts of the allow-list (none by default), no user names in URLs, ports 80 and 443 unless named
- a host whose addresses are not all public is refused (loopback, private, link-local, ...), unless that is allowed
- the connection goes to an address that was looked at: a name that resolves otherwise a moment later changes nothing
- a redirect is a new URL and is looked at in the same way; there may be five
- no proxy of the environment, no cookies, no credentials; size and time are bounded
"""

import ipaddress
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

import httpcore

from pipeline.server.errors import ApiError

_REDIRECTS = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}
_CONNECT_S = 10.0
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class Fetcher:
    """`with fetcher.pieces(url) as pieces: ...`"""

    # "videos.example.org", "*.example.org" (all below it), either with :port; none: no URL is taken
    hosts: tuple[str, ...]
    private: bool  # whether addresses that are not public are allowed
    seconds: float  # for all of a download

    @contextmanager
    def pieces(self, url: str) -> Iterator[Iterator[bytes]]:
        """The body of the final answer. ApiError 400 when the URL is not allowed, 502 when the host does not give it, 504
        when it takes too long."""
        ends = time.monotonic() + self.seconds
        try:
            with httpcore.ConnectionPool(network_backend=_Pinned(self.private), retries=0) as pool:
                for _ in range(6):
                    parts = self._allowed(url)
                    headers = [
                        (b"Host", _host_header(parts)),
                        (b"User-Agent", b"reelbank"),
                        (b"Accept-Encoding", b"identity"),
                    ]
                    limits = dict.fromkeys(
                        ("connect", "read", "write", "pool"), min(_CONNECT_S, self.seconds)
                    )
                    with pool.stream(
                        "GET", url, headers=headers, extensions={"timeout": limits}
                    ) as response:
                        if response.status in _REDIRECTS:
                            url = urljoin(url, _header(response, b"location"))
                            continue
                        if response.status != 200:
                            raise ApiError(
                                502,
                                f"{parts.hostname} answered {response.status} instead of a video.",
                                param="url",
                            )
                        yield _before(response.iter_stream(), ends, parts.hostname or "")
                        return
            raise ApiError(502, "The URL leads to one redirect after another.", param="url")
        except httpcore.TimeoutException as error:
            raise ApiError(
                504, "The host of the URL does not answer in time.", param="url"
            ) from error
        except (
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.UnsupportedProtocol,
        ) as error:
            why = str(error) or type(error).__name__
            raise ApiError(
                502, f"The URL cannot be fetched ({why}); check it.", param="url"
            ) from error

    def _allowed(self, url: str) -> SplitResult:
        """The URL in parts. ApiError when it is not one that may be fetched."""
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower().rstrip("."), parts.port
        except ValueError:
            raise ApiError(400, "The URL cannot be read; check it.", param="url") from None
        if parts.scheme not in _PORTS:
            raise ApiError(400, "Only http and https URLs (and data: URLs) are taken.", param="url")
        if (
            not host
            or not url.isascii()
            or any(letter.isspace() or not letter.isprintable() for letter in url)
        ):
            raise ApiError(400, "The URL cannot be read; check it.", param="url")
        if parts.username is not None or parts.password is not None:
            raise ApiError(400, "A URL with a user name or password is not taken.", param="url")
        if not any(_fits(allowed, host, port or _PORTS[parts.scheme]) for allowed in self.hosts):
            raise ApiError(
                400,
                f"Videos are not fetched from {host}"
                + (f":{port}" if port else "")
                + "; upload the file to /v1/files, or have "
                "the host allowed with hosts=[...] when the server is started.",
                code="host_not_allowed",
                param="url",
            )
        return parts


def _fits(allowed: str, host: str, port: int) -> bool:
    name, _, only = (
        allowed.lower().rpartition(":")
        if ":" in allowed and not allowed.endswith("]")
        else (allowed.lower(), "", "")
    )
    if port != int(only) if only else port not in _PORTS.values():
        return False
    name = name.strip("[]")
    return host.endswith(name[1:]) if name.startswith("*.") else host == name


def _before(pieces: Iterable[bytes], ends: float, host: str) -> Iterator[bytes]:
    for piece in pieces:
        if time.monotonic() > ends:
            raise ApiError(
                504, f"{host} is too slow; upload the file to /v1/files instead.", param="url"
            )
        yield piece


def _header(response: httpcore.Response, name: bytes) -> str:
    found = [value.decode("latin-1") for key, value in response.headers if key.lower() == name]
    if not found:
        raise ApiError(502, "The URL leads to a redirect without a target.", param="url")
    return found[0]


def _host_header(parts: SplitResult) -> bytes:
    return parts.netloc.encode("ascii")


class _Pinned(httpcore.NetworkBackend):
    """Resolves a name once, looks at every address, and connects to one of these and nothing else."""

    def __init__(self, private: bool) -> None:
        self._private, self._backend = private, httpcore.SyncBackend()

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
                    socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None) -> httpcore.NetworkStream:  # fmt: skip
        failed: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in self.addresses(host, port):
            try:
                return self._backend.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed

    def addresses(self, host: str, port: int) -> list[str]:
        """ApiError when any of the host's addresses is not public: a name with both kinds is a trick."""
        try:
            found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} is not known") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not self._private and not all(is_public(address) for address in addresses):
            raise ApiError(
                400,
                f"{host} is not a public address, and those are not fetched from.",
                code="host_not_allowed",
                param="url",
            )
        return addresses


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet, also where an IPv6 address carries an IPv4 one."""
    found = ipaddress.ip_address(address.split("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped or found in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)))
        carried = found.sixtofour or (found.teredo[1] if found.teredo else None)
        if carried is not None and not is_public(str(carried)):
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved

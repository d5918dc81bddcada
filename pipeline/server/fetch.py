"""Downloads videos from URLs without giving clients access to the server's network (SSRF).

Knows HTTP through httpcore; no video and no bank. The rules:
- Only http and https, and only hosts on the allow-list (empty by default). No user names in URLs.
  Ports 80 and 443 unless the list names another.
- A host with any non-public address (loopback, private, link-local, ...) is refused, unless private
  addresses are allowed.
- The connection goes to the address that was checked, so DNS rebinding has no effect.
- Each redirect is checked like a new URL. At most five are followed.
- No proxy from the environment, no cookies, no credentials. Size is limited, and so is the time of
  the whole download: names, connections, heads, redirects, and a body that comes in drops.
"""

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import httpcore

from pipeline.server.errors import ApiError

_REDIRECTS = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}
_STEP_S = 10.0  # for each connection and each read
_SLOW_S, _SLOW_BYTES_S = 10.0, 10_000  # a host that sends less over so many seconds is given up
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class Fetcher:
    """`with fetcher.pieces(url) as pieces: ...`"""

    # "videos.example.org" or "*.example.org" (all subdomains), optionally with :port
    hosts: tuple[str, ...]
    private: bool  # whether non-public addresses are allowed
    seconds: float  # time limit for a download, redirects included

    @contextmanager
    def pieces(self, url: str) -> Iterator[Iterator[bytes]]:
        """The body of the final response, in pieces.

        ApiError 400 when the URL is not allowed, 502 when the host fails, 504 after the time limit.
        """
        clock = _Clock(self.seconds)
        try:
            with httpcore.ConnectionPool(
                network_backend=_PinnedBackend(self.private, clock), retries=0
            ) as pool:
                for _ in range(6):
                    parts = self._allowed(url)
                    url = parts.geturl()
                    headers = [
                        (b"Host", _host_header(parts)),
                        (b"User-Agent", b"reelbank"),
                        (b"Accept-Encoding", b"identity"),
                    ]
                    limits = dict.fromkeys(("connect", "read", "write", "pool"), _STEP_S)
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
                        yield _checked(response.iter_stream(), clock, parts.hostname or "")
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
        """The parsed URL. ApiError 400 when it may not be downloaded."""
        try:
            parts = urlsplit(url)
            host, port = _without_dot(parts.hostname or ""), parts.port
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
        if not any(_matches(allowed, host, port or _PORTS[parts.scheme]) for allowed in self.hosts):
            raise ApiError(
                400,
                f"Videos are not fetched from {host}"
                + (f":{port}" if port else "")
                + "; upload the file to /v1/files, or have "
                "the host allowed with hosts=[...] when the server is started.",
                code="host_not_allowed",
                param="url",
            )
        # a final dot says that the name is complete; certificates and servers do not expect it
        return parts._replace(netloc=_netloc(host, port))


def _netloc(host: str, port: int | None) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"


def _without_dot(host: str) -> str:
    return host.lower().removesuffix(".")


def _matches(allowed: str, host: str, port: int) -> bool:
    name, _, only = (
        allowed.lower().rpartition(":")
        if ":" in allowed and not allowed.endswith("]")
        else (allowed.lower(), "", "")
    )
    if port != int(only) if only else port not in _PORTS.values():
        return False
    name = _without_dot(name.strip("[]"))
    return host.endswith(name[1:]) if name.startswith("*.") else host == name


class _Clock:
    """The time that is left for a whole download."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds

    def left(self, at_most: float | None, error: type[Exception]) -> float:
        """Seconds for the next step. Raises `error` when none is left."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise error("the time is up")
        return left if at_most is None else min(left, at_most)


def _checked(pieces: Iterator[bytes], clock: _Clock, host: str) -> Iterator[bytes]:
    """The pieces. ApiError 504 when the time is up, or when they come in drops."""
    error = ApiError(504, f"{host} is too slow; upload the file to /v1/files instead.", param="url")
    since, count = time.monotonic(), 0
    while True:
        try:
            clock.left(None, httpcore.ReadTimeout)
            piece = next(pieces, None)
        except httpcore.TimeoutException:
            raise error from None
        if piece is None:
            return
        count += len(piece)
        seconds = time.monotonic() - since
        if seconds > _SLOW_S:
            if count < _SLOW_BYTES_S * seconds:
                raise error
            since, count = time.monotonic(), 0
        yield piece


def _header(response: httpcore.Response, name: bytes) -> str:
    values = [value.decode("latin-1") for key, value in response.headers if key.lower() == name]
    if not values:
        raise ApiError(502, "The URL leads to a redirect without a target.", param="url")
    return values[0]


def _host_header(parts: SplitResult) -> bytes:
    return parts.netloc.encode("ascii")


class _PinnedBackend(httpcore.NetworkBackend):
    """Resolves a name once, checks every address, and connects only to one of these."""

    def __init__(self, private: bool, clock: _Clock) -> None:
        self._private, self._clock, self._backend = private, clock, httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        last_error: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in self.addresses(host, port):
            seconds = self._clock.left(timeout, httpcore.ConnectTimeout)
            try:
                stream = self._backend.connect_tcp(
                    address, port, seconds, local_address, socket_options
                )
                return _TimedStream(stream, self._clock)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last_error = error
        raise last_error

    def addresses(self, host: str, port: int) -> list[str]:
        """All addresses of a host.

        ApiError 400 when any of them is not public: a name with both kinds is an attack.
        """
        try:
            infos = self._look_up(host.strip("[]"), port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} is not known") from error
        addresses = list(dict.fromkeys(str(info[4][0]) for info in infos))
        if not self._private and not all(is_public(address) for address in addresses):
            raise ApiError(
                400,
                f"{host} is not a public address, and those are not fetched from.",
                code="host_not_allowed",
                param="url",
            )
        return addresses

    def _look_up(self, host: str, port: int) -> list[Any]:
        """socket.getaddrinfo, which takes no time limit, in a thread that may be left behind."""
        result: Future[list[Any]] = Future()

        def look_up() -> None:
            try:
                result.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            except BaseException as error:
                result.set_exception(error)

        Thread(target=look_up, name="look-up", daemon=True).start()
        seconds = self._clock.left(_STEP_S, httpcore.ConnectTimeout)
        try:
            return result.result(seconds)
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"{host} is not looked up in time") from None


class _TimedStream(httpcore.NetworkStream):
    """A connection whose every step ends when the time of the download is up."""

    def __init__(self, stream: httpcore.NetworkStream, clock: _Clock) -> None:
        self._stream, self._clock = stream, clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._clock.left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._clock.left(timeout, httpcore.WriteTimeout))

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        seconds = self._clock.left(timeout, httpcore.ConnectTimeout)
        return _TimedStream(
            self._stream.start_tls(ssl_context, server_hostname, seconds), self._clock
        )

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def close(self) -> None:
        self._stream.close()


def is_public(address: str) -> bool:
    """Whether an address is on the public internet. Checks IPv4 addresses inside IPv6 too."""
    parsed = ipaddress.ip_address(address.split("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped or parsed in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)))
        ipv4 = parsed.sixtofour or (parsed.teredo[1] if parsed.teredo else None)
        if ipv4 is not None and not is_public(str(ipv4)):
            return False
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved

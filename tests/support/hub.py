"""A hub on this machine: a real HTTP server with the few addresses that huggingface_hub asks for.

It can be slow, break connections, spoil bytes, and refuse repositories.
"""

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin")


@dataclass
class Hub:
    """What the server holds and does. Change it while it runs."""

    address: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)  # repository -> name -> bytes
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)  # -> status, error code
    breaks: Counter[str] = field(default_factory=Counter)  # name -> how often it breaks off
    break_after: int = 0  # bytes
    spoiled: set[str] = field(default_factory=set)  # names whose bytes come wrong
    seconds_per_chunk: float = 0.0
    # (method, name, first byte) of every request for a file
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)  # name -> bytes

    def gets(self, name: str) -> list[int]:
        """First byte of each request for the content of a file."""
        return [first for method, one, first in self.requests if (method, one) == ("GET", name)]


@contextmanager
def running_hub(files: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    """A hub with these repositories."""
    hub = Hub(files=files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _sibling(name: str, data: bytes) -> dict[str, Any]:
    one: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git_hash(data)}
    if name.endswith(LARGE):
        sha256 = hashlib.sha256(data).hexdigest()
        one["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 134}
    return one


def _leaf(name: str, data: bytes) -> dict[str, Any]:
    one: dict[str, Any] = {
        "type": "file", "path": name, "size": len(data), "oid": git_hash(data),
    }  # fmt: skip
    if name.endswith(LARGE):
        sha256 = hashlib.sha256(data).hexdigest()
        one["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 134}
    return one


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self._serve()

        def do_GET(self) -> None:
            self._serve()

        def _serve(self) -> None:
            path = unquote(urlsplit(self.path).path)
            api = re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/(revision|tree)/([^/]+))?", path)
            file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
            match = api or file
            if match is None:
                return self._say(200, b"")
            repository = match[1]
            if repository in hub.refused or repository not in hub.files:
                status, code = hub.refused.get(repository, (404, "RepoNotFound"))
                return self._say(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})
            files = hub.files[repository]
            if api:
                if api[2] == "tree":
                    data: Any = [_leaf(*one) for one in files.items()]
                else:
                    siblings = [_sibling(*one) for one in files.items()]
                    data = {"id": repository, "sha": COMMIT, "siblings": siblings}
                return self._say(200, json.dumps(data).encode(), {"X-Repo-Commit": COMMIT})
            assert file is not None
            if file[3] not in files:
                return self._say(404, b"", {"X-Error-Code": "EntryNotFound"})
            return self._send(file[3], files[file[3]])

        def _say(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def _send(self, name: str, data: bytes) -> None:
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            first = int(asked[1]) if asked else 0
            hub.requests.append((self.command, name, first))
            body = data[first:]
            if name in hub.spoiled:
                body = body[:-1] + bytes([body[-1] ^ 1])
            self.send_response(206 if asked else 200)
            etag = hashlib.sha256(data).hexdigest() if name.endswith(LARGE) else git_hash(data)
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(body)))
            if asked:
                self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            if self.command == "HEAD":
                return
            stop = len(body)
            if hub.breaks[name] > 0:
                hub.breaks[name] -= 1
                stop = min(stop, hub.break_after)
            for begin in range(0, stop, 1 << 16):
                piece = body[begin : min(begin + (1 << 16), stop)]
                try:
                    self.wfile.write(piece)
                except OSError:  # the client has gone
                    self.close_connection = True
                    return
                hub.sent[name] += len(piece)
                time.sleep(hub.seconds_per_chunk)
            if stop < len(body):
                self.close_connection = True
                self.connection.close()

    return Handler

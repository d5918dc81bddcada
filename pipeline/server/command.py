"""`reelbank serve`: checks the settings, builds the parts of a server, and runs it until a signal.

Order: 1 settings, 2 port, 3 model and bank, 4 uploaded videos. A mistake in any of them is one
sentence on stderr before the first request is accepted.
"""

import gc
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from encoders.errors import UserError
from encoders.extras import require_extra
from pipeline.config.tasks.server_settings import (
    AlertSettings,
    ListenSettings,
    ServeSettings,
)
from pipeline.runtime.heap_trimmer import HeapTrimmer
from pipeline.runtime.malloc import share_heaps

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

    from encoders.models.backbone import VideoModel
    from encoders.schema import FrameSource
    from pipeline.engine import Engine
    from pipeline.server.access.key_file import KeyFile
    from pipeline.server.app import Service
    from pipeline.server.files import FileStore
    from pipeline.server.intake.body_line import BodyLine

EMBEDDED = (
    "The built-in model knows cards with a 4-digit code, a name, a coloured shape or an icon, "
    "and nothing else of the world; start the server with another backbone= for real footage."
)
_MINIMUM = {
    "running": 1,
    "waiting": 0,
    "seconds": 0.001,
    "body_seconds": 0.001,
    "bodies": 1,
    "uploads": 1,
    "bodies_mb": 1,
    "upload_mb": 1,
    "request_mb": 1,
    "files_gb": 0.001,
    "letters": 1,
    "round_tokens": 0,
    "answer_tokens": 1,
    "port": 0,
}


def no_browser(address: str) -> None:
    """Nothing opens the page."""


def run(
    config: ServeSettings,
    beside: "Callable[[Service], AbstractContextManager[object]]" = nullcontext,
    *,
    greeting: str = "reelbank: serving",
    show: "Callable[[str], None]" = no_browser,
) -> int:
    """reelbank serve. beside: what runs as long as the server does. show: gets the address of the
    page on this machine, once it is there."""
    require_extra("serve", "reelbank serve")
    check(config)  # 1
    share_heaps()
    listening = listen(config)  # 2
    try:
        import uvicorn

        from pipeline.server.app import build_app

        service = build_service(config)
        app = build_app(service)
        gc.freeze()  # imported modules and weights are never garbage; see pipeline.cli.entry
        gc.enable()
        announce(config, listening, greeting, has_login=requires_login(config))
        with beside(service), HeapTrimmer():
            host = "localhost" if config.host in ("0.0.0.0", "::") else shown_host(config.host)
            show(f"http://{host}:{listening.getsockname()[1]}")
            uvicorn.Server(uvicorn_settings(app)).run(sockets=[listening])
        return 0
    finally:
        listening.close()


def uvicorn_settings(app: "ASGIApp") -> "uvicorn.Config":
    """Uvicorn's settings: quiet, proxy headers ignored, 10 s for running answers at shutdown."""
    import uvicorn

    from pipeline.server.intake.protocol import HttpProtocol

    return uvicorn.Config(
        app,
        http=HttpProtocol,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=10,
    )


def check(config: ListenSettings) -> None:
    """UserError on a setting that is out of range."""
    for name, minimum in _MINIMUM.items():
        value = getattr(config, name, minimum)  # the page has fewer of them
        if not value >= minimum:
            raise UserError(f"{name}={value} is too small; use {minimum:g} or more.")
    if config.port > 65535:
        raise UserError(f"port={config.port} is too large; use one up to 65535.")
    if isinstance(config, ServeSettings) and config.bodies_mb < config.request_mb:
        raise UserError(
            f"bodies_mb={config.bodies_mb} is less than one request of request_mb="
            f"{config.request_mb}; make it larger."
        )
    if isinstance(config, AlertSettings):
        from pipeline.alerts.alert_center import check_alerts

        check_alerts(config)
    for host in config.hosts:
        _, _, port = (
            host.rpartition(":") if ":" in host and not host.endswith("]") else (host, "", "0")
        )
        if not host or "/" in host or not port.isdigit():
            raise UserError(
                f"hosts=[{host}] is no host; write a name such as videos.example.org, "
                "*.example.org or name:8080."
            )


class Listening(Protocol):
    """Settings of a server: where it listens, and for which banks."""

    host: str
    port: int
    bank: str
    also_banks: list[str]


def listen(config: Listening) -> socket.socket:
    """A listening socket. UserError when the address is in use or not of this machine."""
    try:
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        return socket.create_server((config.host, config.port), family=family)
    except OSError as error:
        raise UserError(
            f"host={config.host} port={config.port} cannot be listened at "
            f"({error.strerror or error}); give another port="
        ) from error


def announce(config: Listening, listening: socket.socket, what: str, *, has_login: bool) -> None:
    """Print the address on stderr. Warn when the server is reachable without a key or login."""
    port = listening.getsockname()[1]
    host = shown_host(config.host)
    banks = ", ".join(f"bank {each}" for each in (config.bank, *config.also_banks))
    print(
        f"{what} at http://{host}:{port}, {banks}; Ctrl-C stops it",
        file=sys.stderr,
        flush=True,
    )
    if not is_local(config.host) and not has_login:
        print(
            f"warning: host={config.host} lets everybody who can reach this machine use it; set "
            "api_key=, and put TLS before it",
            file=sys.stderr,
            flush=True,
        )


def shown_host(host: str) -> str:
    """A host as it stands in an address."""
    return f"[{host}]" if ":" in host else host


def is_local(host: str) -> bool:
    """Whether only this machine can reach a server at this address."""
    return host in ("127.0.0.1", "localhost", "::1")


def requires_login(config: ServeSettings) -> bool:
    """Whether clients need a key."""
    return key_file(config).exists or bool(api_key(config))


def api_key(config: ServeSettings) -> str:
    """The key from the settings, else from the environment, which other users cannot read."""
    return own_or_environment(config.api_key)


def key_file(config: ServeSettings) -> "KeyFile":
    """The named keys. UserError where keys= names a file that is not there."""
    from pipeline.server.access.key_file import KeyFile, key_file_of

    file = KeyFile(Path(config.keys or key_file_of(config.bank)))
    if config.keys and not file.exists:
        raise UserError(
            f"keys={config.keys} is not there; make a key with `reelbank keys add NAME --keys "
            f"{config.keys}`, or leave keys= out"
        )
    file.keys()  # refuses a file that cannot be read
    return file


def own_or_environment(own: str) -> str:
    """The key of a setting, else that of the variable; "": none."""
    return own or os.environ.get("REELBANK_API_KEY", "")


def build_service(config: ServeSettings) -> "Service":
    """Steps 3 and 4: the parts of a server (pipeline/server/app.Service)."""
    from encoders.models.clip import NoFrameEmbedder
    from encoders.schema import embedder_name
    from pipeline.build import build_backbone, build_qa, build_rewriter
    from pipeline.conversation.round_memory import RoundMemory
    from pipeline.frame_embedder import build_clip, option_name
    from pipeline.further_embedders import build_further
    from pipeline.server.access.audit_log import AuditLog
    from pipeline.server.access.doorkeeper import Doorkeeper
    from pipeline.server.admission import AdmissionQueue
    from pipeline.server.answering import Answering
    from pipeline.server.app import RequestLimits, Service
    from pipeline.server.encode_queue import EncodeQueue
    from pipeline.server.fetch import Fetcher
    from pipeline.server.intake.body_line import BodyLine
    from pipeline.server.page.feeds import Feeds
    from pipeline.server.search.search_api import SearchApi
    from pipeline.server.streams.build_streams import build_sources, build_streams

    backbone = build_backbone(config)
    rounds = RoundMemory(
        backbone,
        history_tokens=config.history_tokens,
        tell_rounds=_told_rounds(config, reads_text=backbone.reads_text),
        rewriter=build_rewriter(config.follow_up, backbone),
    )
    new_source = source_factory(config, backbone)
    files = open_files(config, new_source)
    clip = build_clip(config)
    further = build_further(config, clip)
    qa = build_qa(config, backbone, clip, further)
    questions = AdmissionQueue("questions", config.running, config.waiting)
    embedders = {option_name(clip): clip} if not isinstance(clip, NoFrameEmbedder) else {}
    embedders |= {embedder_name(key): one for key, one in further.searching.items()}
    encode_queue = EncodeQueue(qa, lambda file: new_source(file.path), config.waiting)
    fetcher = Fetcher(tuple(config.hosts), config.private, config.seconds)
    answering = Answering(
        qa,
        files,
        fetcher,
        encode_queue,
        rounds,
        running=config.running,
        seconds=config.seconds,
        round_tokens=config.round_tokens,
    )
    doorkeeper = Doorkeeper(api_key(config), key_file(config), (config.bank, *config.also_banks))
    sources = build_sources(config, backbone)
    streams = build_streams(config, backbone, clip, qa, sources, questions)
    if streams is not None:
        doorkeeper.stream_banks = lambda: streams.banks
        answering.streams = lambda: [
            name for name, each in streams.streams.items() if each.qa.bank is qa.bank
        ]
    return Service(
        qa=qa,
        files=files,
        encode_queue=encode_queue,
        answering=answering,
        streams=streams,
        feeds=None if streams is None else Feeds(streams, sources, encode_queue, new_source),
        about=EMBEDDED if backbone.questions == "needle_world" else "",
        stream_hosts=None
        if is_local(config.host) and not config.hosts
        else tuple(host.lower() for host in config.hosts),
        searching=SearchApi(
            {f"{config.model}-{name}": one for name, one in embedders.items()},
            lambda: _search_engine(config),
            questions,
            config.whole_bank,
            config.letters,
            config.seconds,
        ),
        questions=questions,
        chat_bodies=BodyLine("requests", config.bodies, config.bodies_mb * 10**6),
        upload_bodies=upload_line(config),
        limits=RequestLimits(
            config.letters,
            config.answer_tokens,
            config.request_mb * 10**6,
            config.upload_mb * 10**6,
            config.body_seconds,
        ),
        model=config.model,
        created=int(time.time()),
        names=tuple(config.names),
        doorkeeper=doorkeeper,
        # keys may also be made while the server runs
        audit=AuditLog(
            Path(config.audit or f"{Path(config.bank)}-audit.log"),
            lambda: bool(config.audit) or doorkeeper.is_closed,
        ),
        answers_from_bank=config.whole_bank,
    )


def _search_engine(config: ServeSettings) -> "Engine":
    """Searches over the banks of a server, with its parts."""
    from pipeline.config.compose import compose
    from pipeline.engine import Engine

    names = ("bank", "also_banks", "fps", "clip", "further_clips", "backbone")
    finding = compose("find", []).changed(**{name: getattr(config, name) for name in names})
    return Engine(finding=finding.changed(dense=config.dense) if config.dense else finding)


def _told_rounds(config: ServeSettings, *, reads_text: bool) -> int:
    """How many earlier rounds the model reads, at most."""
    from pipeline.conversation.history import MAX_ROUNDS

    if config.tell_rounds is not None:
        return config.tell_rounds
    return MAX_ROUNDS if reads_text else 0


def open_files(config: ListenSettings, new_source: Callable[[Path], "FrameSource"]) -> "FileStore":
    """The store of uploaded videos, beside the bank by default."""
    from pipeline.server.files import FileStore

    return FileStore(
        Path(config.files or f"{Path(config.bank)}-files"),
        lambda path: float(new_source(path).info.duration),
        file_bytes=config.upload_mb * 10**6,
        total_bytes=int(config.files_gb * 10**9),
    )


def upload_line(config: ListenSettings) -> "BodyLine":
    """The bound on uploads that are under way; their bytes are on disk."""
    from pipeline.server.intake.body_line import BodyLine

    return BodyLine("uploads", config.uploads, config.files_gb * 10**9)


def source_factory(
    config: ListenSettings, backbone: "VideoModel"
) -> Callable[[Path], "FrameSource"]:
    """A function that opens any file as a frame source, whole, with these settings."""
    from pipeline.build import open_video

    return lambda path: open_video(config, backbone, str(path))

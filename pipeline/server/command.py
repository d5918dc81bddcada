"""`reelbank serve`: checks the settings, builds the parts of a server, listens until it is told to stop.

Order: 1 settings, 2 the port, 3 the model and the bank, 4 the videos that were handed in before. A mistake in one of them is
told in one sentence before anybody is answered.
"""

import gc
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from encoders.errors import UserError

if TYPE_CHECKING:
    from encoders.models.backbone import Backbone
    from encoders.schema import FrameSource

_LEAST = {
    "running": 1, "waiting": 0, "seconds": 0.001, "body_seconds": 0.001, "upload_mb": 1, "request_mb": 1, "files_gb": 0.001,
    "letters": 1, "port": 0,
}  # fmt: skip


def serve(config: DictConfig) -> int:
    """reelbank serve."""
    check(config)  # 1
    listening = listen(config)  # 2
    try:
        import uvicorn

        from pipeline.server.app import build_app

        service = build_service(config)
        app = build_app(service)
        gc.freeze()  # what was imported and loaded stays; see cli.main
        gc.enable()
        told(config, listening, "reelbank: serving")
        uvicorn.Server(uvicorn_settings(app)).run(sockets=[listening])
        return 0
    finally:
        listening.close()


def uvicorn_settings(app: Any) -> Any:
    """How uvicorn runs an application here: quiet, no trust in headers of proxies, answers end before it does."""
    import uvicorn

    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=10,
    )


def check(config: DictConfig) -> None:
    """UserError on a setting outside its range."""
    for name, least in _LEAST.items():
        if name in config and not config[name] >= least:
            raise UserError(f"{name}={config[name]} is too small; use {least:g} or more.")
    if config.port > 65535:
        raise UserError(f"port={config.port} is too large; use one up to 65535.")
    for host in config.get("hosts", []):
        _, _, port = (
            host.rpartition(":") if ":" in host and not host.endswith("]") else (host, "", "0")
        )
        if not host or "/" in host or not port.isdigit():
            raise UserError(
                f"hosts=[{host}] is no host; write a name such as videos.example.org, *.example.org or name:8080."
            )


def listen(config: DictConfig) -> socket.socket:
    """The socket. UserError when the address is taken or not this machine's."""
    try:
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        return socket.create_server((config.host, config.port), family=family)
    except OSError as error:
        raise UserError(
            f"host={config.host} port={config.port} cannot be listened at ({error.strerror or error}); give another port="
        ) from error


def told(config: DictConfig, listening: socket.socket, what: str) -> None:
    """Say on stderr where the server is, and warn when it is open to others without a lock."""
    port = listening.getsockname()[1]
    host = f"[{config.host}]" if ":" in config.host else config.host
    print(
        f"{what} at http://{host}:{port}, bank {config.bank}; Ctrl-C stops it",
        file=sys.stderr,
        flush=True,
    )
    if config.host not in ("127.0.0.1", "localhost", "::1") and not locked(config):
        print(
            f"warning: host={config.host} lets everybody who can reach this machine use it; set api_key= or auth=, and put TLS "
            "before it",
            file=sys.stderr,
            flush=True,
        )


def locked(config: DictConfig) -> bool:
    """Whether users have to show something to come in."""
    return bool(api_key(config) or config.get("auth"))


def api_key(config: DictConfig) -> str:
    """Of the settings, or else of the environment, where other users of the machine do not see it."""
    return str(config.get("api_key") or os.environ.get("REELBANK_API_KEY", ""))


def build_service(config: DictConfig) -> Any:
    """3 and 4: the parts of a server (pipeline/server/app.Service)."""
    from pipeline.build import build_backbone, build_qa
    from pipeline.server.admission import Line
    from pipeline.server.answering import Answering
    from pipeline.server.app import Limits, Service
    from pipeline.server.encode_queue import Encodings
    from pipeline.server.fetch import Fetcher
    from pipeline.server.files import FileStore

    backbone = build_backbone(config)
    new = new_source(config, backbone)
    files = FileStore(
        Path(config.files or f"{Path(config.bank)}-files"),
        lambda path: float(new(path).info.duration),
        file_bytes=config.upload_mb * 10**6,
        total_bytes=int(config.files_gb * 10**9),
    )
    qa = build_qa(config, backbone)
    encodings = Encodings(qa, lambda file: new(file.path), config.waiting)
    fetcher = Fetcher(tuple(config.hosts), config.private, config.seconds)
    return Service(
        qa=qa,
        files=files,
        encodings=encodings,
        answering=Answering(
            qa, files, fetcher, encodings, running=config.running, seconds=config.seconds
        ),
        questions=Line("questions", config.running, config.waiting),
        uploads=Line("uploads", 4, 0),
        limits=Limits(
            config.letters, config.request_mb * 10**6, config.upload_mb * 10**6, config.body_seconds
        ),
        model=config.model,
        created=int(time.time()),
        names=tuple(config.names),
        api_key=api_key(config),
    )


def new_source(config: DictConfig, backbone: "Backbone") -> Callable[[Path], "FrameSource"]:
    """The frames of any file, whole, with these settings."""
    from pipeline.build import build_source

    # the schema of a server knows no video=
    plain = OmegaConf.create(OmegaConf.to_container(config))

    def new(path: Path) -> "FrameSource":
        merged = OmegaConf.merge(plain, {"video": str(path), "start": 0.0, "end": None})
        return build_source(merged, backbone)  # type: ignore[arg-type]

    return new

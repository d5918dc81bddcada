"""The application of `reelbank demo`: the page at /, its routes below /watch, and access control.

Knows HTTP and Gradio's paths; builds neither the model nor the bank. Gradio can also serve files,
take uploads, and forward requests. Only the paths that the page uses are open.
"""

import asyncio
import base64
import hmac
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import gradio as gr
from fastapi import FastAPI
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.demo import page
from pipeline.demo.conversations import Conversations, NewDialogue
from pipeline.demo.feeds import Feeds
from pipeline.demo.routes import FRAME_BYTES, add_routes
from pipeline.live.dialogue import Dialogue
from pipeline.server import errors
from pipeline.server.access.doorkeeper import Doorkeeper
from pipeline.server.errors import ApiError
from pipeline.server.files import FileStore
from pipeline.server.guard import BodyLimit, Guard
from pipeline.server.intake.body_line import BodyLine

log = logging.getLogger("reelbank.demo")

_ALLOWED_PATHS = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)|/(assets|static|svelte|_app)/.*|/watch/.*|"
    r"/gradio_api/(queue/(join|data)|heartbeat/[a-z0-9]+|startup-events|app_id|cancel|reset|theme\.css)/?"
)
_MAX_NAME_BYTES = 255
_HEADERS = {
    # scripts and fonts from this server only; Gradio's own code needs inline and eval
    "Content-Security-Policy": "default-src 'self'; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "frame-ancestors 'none'; base-uri 'self'; form-action 'self'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Demo:
    """The parts of a running page."""

    feeds: Feeds
    files: FileStore
    upload_bytes: int
    body_seconds: float
    upload_bodies: BodyLine
    other_bodies: BodyLine
    names: tuple[str, ...] = ()
    about: str = ""  # a sentence on what the model can answer
    auth: str = ""  # user:password; "" = no login
    new_dialogue: NewDialogue = Dialogue  # of a page about a feed

    def close(self) -> None:
        self.feeds.close()
        self.feeds.qa.bank.close()
        self.files.close()


def build_app(demo: Demo) -> FastAPI:
    """The application. It closes the demo at shutdown."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(demo.close)

    app = FastAPI(title="Reelbank", openapi_url=None, lifespan=lifespan)
    errors.install(app)
    add_routes(app, demo.feeds, demo.files)
    app.add_middleware(AccessMiddleware, auth=demo.auth)
    app.add_middleware(
        Guard,
        names=demo.names,
        doorkeeper=Doorkeeper(),
        bodies={
            "/watch/upload": BodyLimit(demo.upload_bytes + (1 << 20), demo.upload_bodies),
            "/watch/frame/": BodyLimit(FRAME_BYTES, demo.other_bodies),
            "": BodyLimit(1 << 16, demo.other_bodies),
        },
        body_seconds=demo.body_seconds,
    )
    blocks = page.build(Conversations(demo.feeds, demo.new_dialogue), demo.about)
    return gr.mount_gradio_app(
        app,
        blocks,
        "/",
        footer_links=[],
        blocked_paths=["/"],
        allowed_paths=[],
        max_file_size=1,
        ssr_mode=False,
        show_error=False,
        enable_monitoring=False,
        theme=_theme(),
        css=page.CSS,
        head=f"<script>{page.SCRIPT}</script>",
    )


def _theme() -> gr.themes.Base:
    """Local fonts only, nothing is downloaded. Text has a contrast of at least 4.5 to 1."""
    font = ["system-ui", "sans-serif"]
    theme = gr.themes.Default(
        primary_hue="teal", neutral_hue="slate", font=font, font_mono=["ui-monospace", "monospace"]
    )
    return theme.set(
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
    )


def _is_allowed(path: str) -> bool:
    """Whether the page uses this path. Gradio fails at names that are too long for a file."""
    return (
        _ALLOWED_PATHS.fullmatch(path) is not None
        and ".." not in path
        and path.isprintable()
        and max(len(name.encode()) for name in path.split("/")) <= _MAX_NAME_BYTES
    )


class AccessMiddleware:
    """ASGI middleware: optional login, closed paths, security headers."""

    def __init__(self, app: ASGIApp, auth: str) -> None:
        """auth: user:password for HTTP Basic; "" = no login."""
        self._app, self._credentials = app, auth.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {key.lower() for key, _ in message["headers"]}
                more = [(key.lower().encode(), value.encode()) for key, value in _HEADERS.items()]
                message["headers"] = [
                    *message["headers"],
                    *(pair for pair in more if pair[0] not in present),
                ]
            await send(message)

        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        if not self._is_authorized(dict(scope["headers"]).get(b"authorization", b"")):
            headers = {"WWW-Authenticate": 'Basic realm="Reelbank", charset="UTF-8"'}
            body = ApiError(401, "Log in with the name and password of this page.").body()
            await JSONResponse(body, 401, headers)(scope, receive, send_with_headers)
        elif not _is_allowed(scope["path"]):
            await ApiError(404, "There is nothing here.").response()(
                scope, receive, send_with_headers
            )
        else:
            try:
                await self._app(scope, receive, send_with_headers)
            except Exception as error:
                # Gradio has answered 500; its traceback tells nothing about this server
                if not scope["path"].startswith("/gradio_api/"):
                    raise
                log.warning("Gradio cannot answer %s: %r", scope["path"], error)

    def _is_authorized(self, header: bytes) -> bool:
        if not self._credentials:
            return True
        scheme, _, credentials = header.partition(b" ")
        try:
            return scheme.lower() == b"basic" and hmac.compare_digest(
                base64.b64decode(credentials, validate=True), self._credentials
            )
        except ValueError:
            return False

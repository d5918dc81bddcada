"""`reelbank demo`: checks the settings, builds the parts of the page, runs it until a signal.

The order is that of `reelbank serve` (pipeline/server/command.py).
"""

import functools
import gc
import os
from typing import TYPE_CHECKING

from encoders.errors import UserError
from encoders.extras import require_extra
from pipeline.config.tasks.server_settings import DemoSettings
from pipeline.conversation.history import check_bounds
from pipeline.server import command

if TYPE_CHECKING:
    from pipeline.demo.app import Demo

EMBEDDED = (
    "The built-in model knows cards with a 4-digit code, a name, a coloured shape or an icon, "
    "and nothing else of the world; "
    "start the page with another backbone= for real footage."
)


def run(config: DemoSettings) -> int:
    """reelbank demo."""
    require_extra("demo", "reelbank demo")
    check(config)
    listening = command.listen(config)
    try:
        import uvicorn

        from pipeline.demo.app import build_app

        app = build_app(build_demo(config))
        gc.freeze()
        gc.enable()
        command.announce(
            config,
            listening,
            "reelbank: open the page",
            has_login=command.requires_login(config),
        )
        uvicorn.Server(command.uvicorn_settings(app)).run(sockets=[listening])
        return 0
    finally:
        listening.close()


def check(config: DemoSettings) -> None:
    """UserError when a setting is out of range."""
    command.check(config)
    if auth(config) and not all(auth(config).partition(":")[::2]):
        raise UserError("auth= is no login; write auth=NAME:PASSWORD")
    check_bounds(config.history_tokens, config.tell_rounds)


def auth(config: DemoSettings) -> str:
    """The login from the settings, else from the environment, which other users cannot read."""
    return config.auth or os.environ.get("REELBANK_AUTH", "")


def build_demo(config: DemoSettings) -> "Demo":
    """The parts of the page (pipeline/demo/app.Demo)."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from pipeline.alerts.alert_center import AlertCenter
    from pipeline.build import build_backbone, build_qa, build_rewriter, build_thumbnail_maker
    from pipeline.conversation.history import History
    from pipeline.demo.app import Demo
    from pipeline.demo.feeds import Feeds
    from pipeline.live.dialogue import Dialogue
    from pipeline.server.intake.body_line import BodyLine

    backbone = build_backbone(config)
    rewriter = build_rewriter(config.follow_up, backbone)
    # refuses before the bank opens
    History(backbone, config.history_tokens, config.tell_rounds, rewriter)
    new_source = command.source_factory(config, backbone)
    files = command.open_files(config, new_source)
    feeds = Feeds(
        build_qa(config, backbone),
        new_source,
        AlertCenter.of(config),
        size=backbone.frame_size,
        hosts=None
        if command.is_local(config.host) and not config.hosts
        else tuple(host.lower() for host in config.hosts),
        at_once=config.running,
        thumbnail=build_thumbnail_maker(config),
    )
    return Demo(
        feeds=feeds,
        files=files,
        upload_bytes=config.upload_mb * 10**6,
        body_seconds=config.body_seconds,
        upload_bodies=command.upload_line(config),
        other_bodies=BodyLine("requests", config.bodies, config.bodies_mb * 10**6),
        names=tuple(config.names),
        about=EMBEDDED if backbone.questions == "needle_world" else "",
        auth=auth(config),
        new_dialogue=functools.partial(
            Dialogue,
            history_tokens=config.history_tokens,
            tell_rounds=config.tell_rounds,
            rewriter=rewriter,
        ),
    )

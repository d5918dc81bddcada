"""`reelbank mcp`: tools for agents over the Model Context Protocol, on stdio or at an address.

On stdio, stdout carries the protocol and nothing else; all messages are on stderr.
"""

import asyncio
import gc
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from encoders.errors import UserError
from encoders.extras import require_extra
from pipeline.config.tasks.server_settings import AgentTransport, McpSettings

if TYPE_CHECKING:
    from pipeline.agents.agent_server import AgentServer
    from pipeline.server.guard import Guard

_BODY_BYTES = 1 << 20  # of a request; a question is short
_BODIES = 64  # requests that may arrive at once
_BODY_S = 60.0


def run(settings: McpSettings) -> int:
    """reelbank mcp. On stdio it ends when the client closes it, over HTTP with a signal."""
    require_extra("mcp", "reelbank mcp")
    check(settings)
    from pipeline.agents.agent_server import AgentServer
    from pipeline.agents.clip_folder import ClipFolder
    from pipeline.agents.film_roots import FilmRoots
    from pipeline.agents.schema import ReplyLimits
    from pipeline.agents.toolbox import Toolbox
    from pipeline.engine import Engine

    roots = FilmRoots([root for root in (settings.root, *settings.also_roots) if root])
    clips = ClipFolder(settings.clips)
    limits = ReplyLimits(settings.items, settings.letters, settings.pixels, settings.clip_seconds)
    gc.enable()  # a server goes on for weeks
    with ExitStack() as stack:
        engine = stack.enter_context(Engine.of(settings))
        toolbox = Toolbox(engine, roots, clips, limits)
        agents = stack.enter_context(closing(AgentServer(toolbox, settings.waiting)))
        if settings.transport == AgentTransport.http:
            _listen(settings, agents)
        else:
            asyncio.run(_talk(agents))
    return 0


def check(settings: McpSettings) -> None:
    """UserError on a setting that is out of range."""
    for name in ("items", "letters", "pixels", "waiting"):
        value = getattr(settings, name)
        if value < 1:
            raise UserError(f"{name}={value} is too small; use 1 or more")
    if not settings.clip_seconds > 0:
        raise UserError(f"clip_seconds={settings.clip_seconds:g} is no length; use more than 0")
    if not 0 <= settings.port <= 65535:
        raise UserError(f"port={settings.port} is none; use one from 0 to 65535")


async def _talk(agents: "AgentServer") -> None:
    """One client on stdin and stdout; what anything else prints goes to stderr."""
    from mcp.server.stdio import stdio_server

    server = agents.server
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


def build_app(settings: McpSettings, agents: "AgentServer") -> "Guard":
    """The application at /mcp, behind the checks of `reelbank serve`: host, origin, key, size."""
    from mcp.server.transport_security import TransportSecuritySettings

    from pipeline.server.access.doorkeeper import Doorkeeper
    from pipeline.server.command import own_or_environment
    from pipeline.server.guard import BodyLimit, Guard
    from pipeline.server.intake.body_line import BodyLine

    # the guard knows the names of this server, and answers in its own words
    unchecked = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    return Guard(
        agents.server.streamable_http_app(transport_security=unchecked),
        names=tuple(settings.names),
        doorkeeper=Doorkeeper(own_or_environment(settings.api_key)),
        bodies={"": BodyLimit(_BODY_BYTES, BodyLine("requests", _BODIES, _BODIES * _BODY_BYTES))},
        body_seconds=_BODY_S,
    )


def _listen(settings: McpSettings, agents: "AgentServer") -> None:
    import uvicorn

    from pipeline.server import command

    listening = command.listen(settings)
    try:
        command.announce(
            settings,
            listening,
            "reelbank: serving agents (/mcp)",
            has_login=bool(command.own_or_environment(settings.api_key)),
        )
        app = build_app(settings, agents)
        uvicorn.Server(command.uvicorn_settings(app)).run(sockets=[listening])
    finally:
        listening.close()

"""A Model Context Protocol server over a toolbox: lists tools, runs calls in threads, reports
progress, and ends a call that is cancelled behind the current segment.

Knows the protocol; no bank and no transport. A refusal is the result of the tool, as one sentence,
so that the agent reads it and can do better.
"""

import asyncio
import base64
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

from mcp import MCPError, types
from mcp.server import Server, ServerRequestContext
from pydantic import ValidationError

from encoders.errors import UserError
from pipeline.agents.schema import Reply, RunningCall
from pipeline.agents.toolbox import Toolbox
from pipeline.agents.tools import TOOLS, AgentTool, Lane
from pipeline.runtime.cancel import Cancelled
from pipeline.server.errors import as_sentence

log = logging.getLogger("reelbank.agents")

_PROGRESS_S = 0.2  # between two messages of progress
_INSTRUCTIONS = (
    "Reelbank answers questions about films. list_videos says what is there. find gives moments "
    "for a few words, ask an answer with moments, read_lines the words of a stretch, frame a "
    "picture, clip a file. Times are seconds of video time. Check an answer with frame or "
    "read_lines before you rely on it."
)


class AgentServer:
    """`server` speaks the protocol over any transport, to any number of clients."""

    def __init__(self, toolbox: Toolbox, waiting: int) -> None:
        """waiting: calls that may run or wait; further ones are refused."""
        self.server: Server = Server(
            "reelbank",
            version=version("reelbank"),
            title="Reelbank",
            instructions=_INSTRUCTIONS,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_read_resource=self._read_resource,
        )
        self._toolbox, self._waiting = toolbox, waiting
        self._calls: list[RunningCall] = []
        self._lock = threading.Lock()  # of _calls
        self._lanes = {lane: ThreadPoolExecutor(lane.value[1], lane.value[0]) for lane in Lane}

    def close(self) -> None:
        """End the calls that run, encoding behind its current segment, and wait for them."""
        with self._lock:
            for call in self._calls:
                call.cancelled.set()
        for lane in self._lanes.values():
            lane.shutdown(cancel_futures=True)

    # ---- requests

    async def _list_tools(
        self, _context: ServerRequestContext, _params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[tool.description() for tool in TOOLS.values()])

    async def _call_tool(
        self, context: ServerRequestContext, params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        try:
            tool = _parsed(params)
            return _result(await self._run(context, tool))
        except (UserError, OSError) as error:
            return _refusal(str(error))
        except Cancelled:
            return _refusal("The call was ended, as the server stops")
        except Exception:
            log.exception("the tool %s failed", params.name)
            return _refusal("The tool failed; the log of the server says why")

    async def _list_resources(
        self, _context: ServerRequestContext, _params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        links = self._toolbox.clips.links[-self._waiting :]
        own = [types.Resource(**link.model_dump(exclude={"type"})) for link in links]
        return types.ListResourcesResult(resources=own)

    async def _read_resource(
        self, _context: ServerRequestContext, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        try:
            link, data = await asyncio.to_thread(self._toolbox.clips.read, params.uri)
        except (UserError, OSError) as error:
            raise MCPError(types.INVALID_PARAMS, as_sentence(str(error))) from error
        content = types.BlobResourceContents(
            uri=link.uri, mime_type=link.mime_type, blob=base64.b64encode(data).decode()
        )
        return types.ReadResourceResult(contents=[content])

    # ---- calls

    async def _run(self, context: ServerRequestContext, tool: AgentTool) -> Reply:
        """Run a tool in a thread of its lane. Where the request is cancelled, the tool ends soon,
        or never begins."""
        call = RunningCall()
        with self._lock:
            if len(self._calls) >= self._waiting:
                raise UserError(f"{len(self._calls)} calls run or wait already; try again later")
            self._calls.append(call)
        try:
            work = self._lanes[tool.lane].submit(tool.run, self._toolbox, call)
        except RuntimeError:  # the lanes are closed
            self._forget(call)
            raise UserError("The server stops; start it again") from None
        work.add_done_callback(lambda _: self._forget(call))
        reply = asyncio.wrap_future(work)
        try:
            reached = -1.0  # the protocol wants numbers that rise
            while not reply.done():
                await asyncio.wait({reply}, timeout=_PROGRESS_S)
                newest = call.progress
                if newest is not None and newest.seconds > reached:
                    reached = newest.seconds
                    await context.session.report_progress(reached, newest.total, newest.note)
            return reply.result()
        finally:
            call.cancelled.set()
            reply.cancel()

    def _forget(self, call: RunningCall) -> None:
        with self._lock:
            self._calls = [one for one in self._calls if one is not call]


def _parsed(params: types.CallToolRequestParams) -> AgentTool:
    """The tool with its arguments. UserError in one sentence."""
    kind = TOOLS.get(params.name)
    if kind is None:
        raise UserError(f"There is no tool {params.name[:60]!r}; use one of {', '.join(TOOLS)}")
    try:
        return kind.model_validate(params.arguments or {})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "arguments"
        raise UserError(
            f"{params.name} cannot take {where[:60]} ({first['msg'].lower()}); its arguments are "
            f"{', '.join(kind.model_fields)}"
        ) from None


def _result(reply: Reply) -> types.CallToolResult:
    text = types.TextContent(text=json.dumps(reply.values, ensure_ascii=False))
    return types.CallToolResult(content=[text, *reply.blocks], structured_content=reply.values)


def _refusal(text: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=as_sentence(text))], is_error=True)

"""`reelbank mcp`: the tools, called by the protocol's own client over stdio and over HTTP."""

import asyncio
import base64
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image

from encoders.errors import UserError
from encoders.sources.container import inspect
from pipeline.agents import command
from pipeline.agents.agent_server import AgentServer
from pipeline.agents.clip_folder import ClipFolder
from pipeline.agents.film_roots import FilmRoots
from pipeline.agents.schema import ReplyLimits
from pipeline.agents.toolbox import Toolbox
from pipeline.agents.tools import TOOLS
from pipeline.config.compose import compose
from pipeline.engine import Engine
from tests.support.paths import ROOT
from tests.support.serving import listening
from tests.support.toys import toy_parts
from tests.support.videos import numbered, write_video

httpx = pytest.importorskip("httpx2")
mcp = pytest.importorskip("mcp")

from mcp import Client, StdioServerParameters  # noqa: E402
from mcp.client.streamable_http import streamable_http_client  # noqa: E402

LIMITS = ReplyLimits(items=3, letters=60, pixels=48, clip_seconds=10)
WORDS = ("the budget is 4821", "a red car goes by", "thanks for coming")


def film(path: Path, seconds: float = 12, first: int = 0) -> Path:
    """A film whose pictures count from `first`, with three subtitles."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, seconds, 5, paint=lambda number, _: numbered(first + number, (64, 64)))
    cues = [
        f"{number}\n00:00:{2 * number:02},000 --> 00:00:{2 * number + 1:02},500\n{words}\n"
        for number, words in enumerate(WORDS, 1)
    ]
    path.with_suffix(".srt").write_text("\n".join(cues))
    return path


def silent(info: Any) -> Any:
    """No progress."""
    return nullcontext(lambda seconds, nbytes: None)


class SlowEngine(Engine):
    """An engine that waits after each segment, so that there is a middle to cancel in."""

    def add(self, path: str, show_progress: Any = silent, **more: Any) -> Any:
        @contextmanager
        def slowly(info: Any) -> Iterator[Any]:
            with show_progress(info) as show:

                def wait(seconds: float, nbytes: int) -> None:
                    show(seconds, nbytes)
                    time.sleep(0.3)

                yield wait

        return super().add(path, slowly, **more)


@dataclass
class Served:
    """A server at an address, with its parts."""

    address: str
    engine: Engine
    agents: AgentServer
    films: Path
    clips: Path


@contextmanager
def served(folder: Path, *overrides: str, waiting: int = 16) -> Iterator[Served]:
    """A server of real parts with the toy model, and a film in its bank."""
    films, clips = folder / "films", folder / "clips"
    film(films / "talk.mp4")
    settings = compose("mcp", [f"bank={folder / 'bank'}", *toy_parts(), *overrides])
    engine = SlowEngine.of(settings)
    toolbox = Toolbox(engine, FilmRoots([str(films)]), ClipFolder(str(clips)), LIMITS)
    agents = AgentServer(toolbox, waiting)
    with engine, closing(agents), listening(command.build_app(settings, agents)) as address:
        engine.add(str(films / "talk.mp4"))
        yield Served(f"{address}/mcp", engine, agents, films, clips)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("mcp"), "api_key=sesame") as one:
        yield one


@asynccontextmanager
async def client(server: Served, key: str = "sesame") -> AsyncIterator[Any]:
    """The protocol's own client over HTTP."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with (
        httpx.AsyncClient(headers=headers, timeout=30) as http,
        Client(streamable_http_client(server.address, http_client=http)) as one,
    ):
        yield one


def call(server: Served, tool: str, **arguments: Any) -> Any:
    """One call by a client of its own."""

    async def go() -> Any:
        async with client(server) as one:
            return await one.call_tool(tool, arguments)

    return asyncio.run(go())


def values(result: Any) -> dict[str, Any]:
    """What a tool gave, which is the same as JSON in its text."""
    assert not result.is_error, result.content
    assert json.loads(result.content[0].text) == result.structured_content
    return result.structured_content


def refusal(result: Any) -> str:
    """The one sentence of a tool that refused."""
    (content,) = result.content
    assert result.is_error
    assert content.text.endswith(".") and "\n" not in content.text, content.text
    return content.text


def test_the_tools_say_what_they_take(server: Served) -> None:
    async def go() -> list[Any]:
        async with client(server) as one:
            assert "find" in (one.instructions or "")
            return (await one.list_tools()).tools

    tools = {tool.name: tool for tool in asyncio.run(go())}
    assert set(tools) == {
        "list_videos", "add_video", "find", "ask", "read_lines", "frame", "clip"
    }  # fmt: skip
    for name, tool in tools.items():
        assert tool.description
        properties = tool.input_schema["properties"]
        assert set(properties) == set(TOOLS[name].model_fields)
        assert all(one["description"] for one in properties.values())
    writing = {n for n, one in tools.items() if not one.annotations.read_only_hint}
    assert writing == {"add_video", "clip"}


def test_films_moments_and_an_answer(server: Served) -> None:
    (row,) = values(call(server, "list_videos"))["videos"]
    assert row["path"] == str(server.films / "talk.mp4") and row["finished"]
    assert row["lines"] == {"subtitles": 3} and row["seconds"] == pytest.approx(12, abs=0.5)

    found = values(call(server, "find", query="red car", top=99))["moments"]
    assert found[0]["start"] <= 4 < found[0]["end"] and "red car" in found[0]["words"]
    assert len(found) <= LIMITS.items
    by_name = values(call(server, "find", query="red car", videos=["talk.mp4"]))["moments"]
    assert by_name[0]["video"] == row["video"]

    alike = values(call(server, "find", like_video="talk.mp4", like_second=2.0, top=1))["moments"]
    assert alike[0]["channels"] == ["picture"] and abs(alike[0]["start"] - 2) >= 4

    answer = values(call(server, "ask", question="What is the budget?", videos=[row["video"]]))
    words = sum(len(line["text"]) for line in answer["lines"])
    assert len(answer["answer"]) + words <= LIMITS.letters
    assert len(answer["moments"]) <= LIMITS.items


def test_lines_come_in_order_and_go_on_where_they_end(server: Served) -> None:
    first = values(call(server, "read_lines", video="talk.mp4", end=12))
    assert [line["text"] for line in first["lines"]] == [*WORDS]
    assert first["count"] == 3 and "next_start" not in first
    part = values(call(server, "read_lines", video="talk.mp4", start=3.8, end=5.0))
    assert [line["text"] for line in part["lines"]] == [WORDS[1]]
    assert values(call(server, "read_lines", video="talk.mp4", end=12, kinds=["ocr"]))["count"] == 0

    toolbox = Toolbox(server.engine, FilmRoots([]), ClipFolder(""), ReplyLimits(3, 40, 48, 10))
    reply = toolbox.read_lines("talk.mp4", 0, 12, []).values
    assert [line["text"] for line in reply["lines"]] == [*WORDS[:2]]
    assert reply["next_start"] == 6.0


def test_a_frame_is_a_jpeg_within_the_bounds(server: Served) -> None:
    result = call(server, "frame", video="talk.mp4", second=3, pixels=4000)
    assert values(result)["second"] == 3
    image = result.content[1]
    assert image.type == "image" and image.mime_type == "image/jpeg"
    with Image.open(io.BytesIO(base64.b64decode(image.data))) as picture:
        assert picture.format == "JPEG" and max(picture.size) == LIMITS.pixels
    end = refusal(call(server, "frame", video="talk.mp4", second=99))
    assert "99 s is outside of" in end


def test_a_clip_is_a_file_with_a_link_that_reads(server: Served) -> None:
    async def go() -> tuple[Any, list[Any], bytes, str]:
        async with client(server) as one:
            span = {"video": "talk.mp4", "start": 2.0, "end": 5.0, "exact": True}
            await one.call_tool("clip", span)
            result = await one.call_tool("clip", span)
            every = (await one.list_resources()).resources
            (content,) = (await one.read_resource(result.content[1].uri)).contents
            with pytest.raises(mcp.MCPError, match="is no clip of this server") as error:
                await one.read_resource((server.films / "talk.mp4").as_uri())
            return result, every, base64.b64decode(content.blob), str(error.value)

    result, every, data, _ = asyncio.run(go())
    facts, link = values(result), result.content[1]
    path = Path(unquote(urlsplit(link.uri).path))
    assert link.type == "resource_link" and path.parent == server.clips
    assert path.read_bytes() == data and len(data) == link.size == facts["nbytes"]
    assert inspect(path).duration == pytest.approx(3, abs=0.25)
    assert [one.name for one in every] == ["talk_00-02.mp4", "talk_00-02_1.mp4"]
    long = refusal(call(server, "clip", video="talk.mp4", start=0, end=11))
    assert "at most 10 s" in long


def test_refusals_are_one_sentence(server: Served, tmp_path: Path) -> None:
    outside = film(tmp_path / "secret.mp4")
    (server.films / "link.mp4").symlink_to(outside)
    sentences: dict[str, list[tuple[dict[str, Any], str]]] = {
        "add_video": [
            ({"path": str(outside)}, "outside of the folders"),
            ({"path": "link.mp4"}, "outside of the folders"),
            ({"path": "../../secret.mp4"}, "outside of the folders"),
            ({"path": str(tmp_path / "nothing.mp4")}, "outside of the folders"),
            ({"path": "a\0b"}, "is no path"),
            ({"path": "nothing.mp4"}, "is no file"),
            ({"path": "talk.srt"}, ""),
        ],
        "frame": [
            ({"video": "nothing", "second": 1}, "is not in the bank"),
            ({"video": str(outside), "second": 1}, "is not in the bank"),
            ({"video": "talk.mp4", "second": -1}, "frame cannot take second"),
            ({"video": "talk.mp4", "second": float("nan")}, ""),
        ],
        "find": [
            ({"query": " "}, "query is empty"),
            ({"qury": "x"}, "its arguments are query, image"),
            ({"query": "x", "start": 5, "end": 2}, "is not before"),
            ({"image": str(outside)}, "outside of the folders"),
            ({"image": "talk.srt"}, "talk.srt"),
            ({"like_video": "talk.mp4", "like_second": 99}, "behind the end of the film"),
            ({"like_video": "talk.mp4", "image": "talk.mp4"}, "two pictures"),
        ],
        "ask": [({"question": "who?", "videos": ["nothing"]}, "is not in the bank")],
        "read_lines": [({"video": "talk.mp4", "start": 4, "end": 2}, "stretch")],
        "nothing": [({}, "There is no tool")],
    }

    async def go() -> None:
        async with client(server) as one:
            for tool, cases in sentences.items():
                for arguments, part in cases:
                    assert part in refusal(await one.call_tool(tool, arguments)), arguments

    asyncio.run(go())
    with pytest.raises(UserError, match="start it with --root DIR"):
        FilmRoots([]).film(str(outside))
    with pytest.raises(UserError, match="start it with --clips DIR"):
        ClipFolder("").cut(server.engine.videos()[0], 0, 1, exact=False)


@pytest.mark.parametrize("key", ["", "wrong"])
def test_a_bad_key_is_refused(server: Served, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    response = httpx.post(server.address, json={}, headers=headers)
    assert response.status_code == 401
    assert "The API key is missing or wrong" in response.json()["error"]["message"]

    async def go() -> None:
        async with client(server, key) as one:
            await one.list_tools()

    with pytest.raises(Exception):  # noqa: B017 - the client's own, in a group or not
        asyncio.run(go())
    other = httpx.post(server.address, json={}, headers={"Origin": "https://elsewhere.example"})
    assert other.status_code == 403


def test_two_clients_and_one_that_cancels(server: Served) -> None:
    """One client cancels a film in the middle while another one searches."""
    long = film(server.films / "long.mp4", seconds=48, first=100)

    async def go() -> tuple[list[tuple[float, float | None]], float, Any]:
        steps: list[tuple[float, float | None]] = []
        begun = asyncio.Event()

        async def note(done: float, total: float | None, message: str | None) -> None:
            steps.append((done, total))
            if done > 0:
                begun.set()

        async with client(server) as first, client(server) as second:
            adding = asyncio.create_task(
                first.call_tool("add_video", {"path": "long.mp4"}, progress_callback=note)
            )
            await asyncio.wait_for(begun.wait(), 30)
            assert values(await second.call_tool("find", {"query": "red car"}))["moments"]
            listed = values(await second.call_tool("list_videos", {"words": "long"}))["videos"]
            assert not adding.done() and not listed[0]["finished"]
            adding.cancel()
            with pytest.raises(asyncio.CancelledError):
                await adding
            limit = time.monotonic() + 20
            while server.agents._calls:
                assert time.monotonic() < limit, "the cancelled call goes on"
                await asyncio.sleep(0.05)
            (row,) = values(await second.call_tool("list_videos", {"words": "long"}))["videos"]
            assert not row["finished"]
            return steps, row["seconds"], await first.call_tool("add_video", {"path": "long.mp4"})

    steps, stored, again = asyncio.run(go())
    assert all(total == pytest.approx(48, abs=0.5) for _, total in steps)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert 0 < stored < 48
    facts = values(again)
    assert facts["path"] == str(long) and facts["seconds"] == pytest.approx(48, abs=0.5)
    assert facts["newly_encoded_seconds"] == pytest.approx(48 - stored, abs=0.5)


@pytest.mark.slow
def test_a_full_line_is_refused(tmp_path: Path) -> None:
    with served(tmp_path, waiting=1) as server:
        film(server.films / "long.mp4", seconds=40, first=100)

        async def go() -> str:
            begun = asyncio.Event()

            async def note(done: float, total: float | None, message: str | None) -> None:
                begun.set()

            async with client(server) as one:
                adding = asyncio.create_task(
                    one.call_tool("add_video", {"path": "long.mp4"}, progress_callback=note)
                )
                await asyncio.wait_for(begun.wait(), 30)
                told = refusal(await one.call_tool("list_videos", {}))
                adding.cancel()
                return told

        assert "1 calls run or wait already" in asyncio.run(go())


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("items=0", "items=0 is too small"),
        ("clip_seconds=0", "is no length"),
        ("port=70000", "port=70000"),
        ("root=/nothing/there", "is no folder"),
        ("clips=/nothing/there/clips", "is in a folder that is not there"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, override: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        command.run(compose("mcp", [f"bank={tmp_path / 'bank'}", override]))


def start(folder: Path, *words: str) -> list[str]:
    """The command line of a server on stdio."""
    settings = [word for one in toy_parts() for word in ("-o", one)]
    return [
        sys.executable, "-m", "pipeline.cli", "mcp", "--bank", str(folder / "bank"), *settings,
        *words,
    ]  # fmt: skip


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.slow
def test_stdio_with_the_own_client(tmp_path: Path) -> None:
    """Over stdio: a film is cancelled in the middle, goes on, and is asked about."""
    films = tmp_path / "films"
    film(films / "talk.mp4", seconds=120)
    program, *arguments = start(tmp_path, "--root", str(films), "--clips", str(tmp_path / "clips"))
    parameters = StdioServerParameters(
        command=program, args=arguments, env=environment(), cwd=str(tmp_path)
    )

    async def go() -> None:
        async with Client(parameters) as typed:
            one: Any = typed
            begun = asyncio.Event()

            async def note(done: float, total: float | None, message: str | None) -> None:
                if done > 0:
                    begun.set()

            adding = asyncio.create_task(
                one.call_tool("add_video", {"path": "talk.mp4"}, progress_callback=note)
            )
            await asyncio.wait_for(begun.wait(), 120)
            adding.cancel()
            with pytest.raises(asyncio.CancelledError):
                await adding
            facts = values(await one.call_tool("add_video", {"path": "talk.mp4"}))
            assert 0 < facts["newly_encoded_seconds"] < facts["seconds"]
            found = values(await one.call_tool("find", {"query": "budget"}))["moments"]
            assert found[0]["start"] <= 2 < found[0]["end"]
            picture = await one.call_tool("frame", {"video": "talk.mp4", "second": 2})
            assert picture.content[1].mime_type == "image/jpeg"
            clip = values(await one.call_tool("clip", {"video": "talk.mp4", "start": 1, "end": 4}))
            assert Path(clip["file"]).is_file()

    asyncio.run(go())


@pytest.mark.slow
def test_stdout_holds_the_protocol_alone(tmp_path: Path) -> None:
    """Every line of stdout is a message, also while a film is encoded; it ends with its input."""
    films = tmp_path / "films"
    film(films / "talk.mp4")
    requests: list[dict[str, Any]] = [
        {"id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        }},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": {
            "name": "add_video", "arguments": {"path": "talk.mp4"}, "_meta": {"progressToken": 7},
        }},
    ]  # fmt: skip
    with subprocess.Popen(
        start(tmp_path, "--root", str(films)), env=environment(), cwd=tmp_path,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout and process.stderr
        errors = list[str]()
        reading = threading.Thread(target=lambda: errors.extend(process.stderr))  # type: ignore[arg-type]
        reading.start()
        for request in requests:
            process.stdin.write(json.dumps({"jsonrpc": "2.0"} | request) + "\n")
        process.stdin.flush()
        messages = []
        for line in process.stdout:
            messages.append(json.loads(line))
            if messages[-1].get("id") == 2:
                break
        process.stdin.close()
        assert process.stdout.read() == ""
        assert process.wait(60) == 0
        reading.join()
    assert all(message["jsonrpc"] == "2.0" for message in messages)
    assert not messages[-1]["result"]["isError"], messages[-1]
    progress = [m["params"] for m in messages if m.get("method") == "notifications/progress"]
    assert progress and all(one["progressToken"] == 7 for one in progress)
    assert "Traceback" not in "".join(errors)


@pytest.mark.slow
def test_the_command_listens_with_the_key_of_the_environment(tmp_path: Path) -> None:
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(
                start(tmp_path, "--http", "--port", "0"), cwd=tmp_path,
                env=environment() | {"REELBANK_API_KEY": "sesame"},
                stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
        assert process.stderr
        line = next(one for one in process.stderr if " at http://" in one)
        address = line.partition(" at ")[2].partition(",")[0]
        assert httpx.post(f"{address}/mcp", json={}).status_code == 401

        async def go() -> dict[str, Any]:
            headers = {"Authorization": "Bearer sesame"}
            async with httpx.AsyncClient(headers=headers, timeout=30) as http:
                transport = streamable_http_client(f"{address}/mcp", http_client=http)
                async with Client(transport) as one:
                    return values(await one.call_tool("list_videos", {}))

        assert asyncio.run(go()) == {"videos": [], "count": 0}
        process.terminate()
        assert process.wait(30) in (0, -15)

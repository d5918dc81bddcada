"""The tools as a client sees them: names, descriptions, arguments, and what they call.

A class is a tool: its fields are the arguments, and its docstring is the description. To add a
tool, add a class and name it in TOOLS.
"""

import inspect
from enum import Enum
from typing import Any, ClassVar

from mcp import types
from pydantic import BaseModel, ConfigDict, Field

from pipeline.agents.schema import Reply, RunningCall
from pipeline.agents.toolbox import Toolbox

_VIDEO = "id, path, or file name of a film in the bank"
_VIDEOS = f"each is the {_VIDEO}; empty: all films"
_LONGEST_TEXT = 2000  # characters of a question


class Lane(Enum):
    """What a tool keeps busy. The value is how many of a lane run at once."""

    ENCODING = ("encoding", 1)
    MODEL = ("model", 1)
    READING = ("reading", 4)


class AgentTool(BaseModel):
    """The arguments of a tool."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: ClassVar[str]
    lane: ClassVar[Lane] = Lane.READING
    writes: ClassVar[bool] = False

    def run(self, toolbox: Toolbox, call: RunningCall) -> Reply:
        """Do it. UserError is a refusal."""
        raise NotImplementedError

    @classmethod
    def description(cls) -> types.Tool:
        """The tool as a client gets it."""
        return types.Tool(
            name=cls.name,
            description=inspect.getdoc(cls),
            input_schema=_without_titles(cls.model_json_schema()),
            annotations=types.ToolAnnotations(
                read_only_hint=not cls.writes, destructive_hint=False, open_world_hint=False
            ),
        )


class ListVideos(AgentTool):
    """List the films of the bank: id, path, seconds, and how many lines of text each has."""

    name = "list_videos"
    words: str = Field("", description="words that the path holds; empty: all films")
    first: int = Field(0, ge=0, description="number of the first film, as next_first says")

    def run(self, toolbox: Toolbox, call: RunningCall) -> Reply:
        return toolbox.list_videos(self.words, self.first)


class AddVideo(AgentTool):
    """Encode a film into the bank, so that it can be searched and asked about.

    It takes a while and reports progress. When it is cancelled, what is encoded stays, and the next
    call goes on from there.
    """

    name = "add_video"
    lane = Lane.ENCODING
    writes = True
    path: str = Field(description="path of the film, below a folder that the server may read")

    def run(self, toolbox: Toolbox, call: RunningCall) -> Reply:
        return toolbox.add_video(self.path, call)


class Find(AgentTool):
    """Find the moments where something is said, written, or shown, or that look alike, best first.

    Give words, a picture (image, or the moment like_second of like_video), or both.
    """

    name = "find"
    lane = Lane.MODEL
    query: str = Field("", max_length=_LONGEST_TEXT, description="a few words")
    image: str = Field("", description="path of a picture below a folder that the server may read")
    like_video: str = Field("", description=f"other moments look like one of this: {_VIDEO}")
    like_second: float = Field(0.0, ge=0, description="second of that film")
    videos: list[str] = Field([], max_length=100, description=_VIDEOS)
    start: float | None = Field(None, ge=0, description="second of each film to search from")
    end: float | None = Field(None, ge=0, description="second of each film to search up to")
    top: int = Field(10, ge=1, description="moments, at most")

    def run(self, toolbox: Toolbox, call: RunningCall) -> Reply:
        picture = toolbox.picture(self.image, self.like_video, self.like_second)
        return toolbox.find(self.query, self.videos, self.start, self.end, self.top, call, picture)


class Ask(AgentTool):
    """Ask a question about films; the answer comes with the moments that it rests on.

    shown is false where the films do not show it.
    """

    name = "ask"
    lane = Lane.MODEL
    question: str = Field(min_length=1, max_length=_LONGEST_TEXT, description="the question")
    videos: list[str] = Field([], max_length=100, description=_VIDEOS)
    asked_at: float | None = Field(
        None, ge=0, description="second of the question; nothing after it counts"
    )

    def run(self, toolbox: Toolbox, call: RunningCall) -> Reply:
        return toolbox.ask(self.question, self.videos, self.asked_at, call)


class ReadLines(AgentTool):
    """Read what is said and written in a stretch of a film, in the order of time.

    next_start is where to go on when the reply does not hold all lines.
    """

    name = "read_lines"
    video: str = Field(description=_VIDEO)
    start: float = Field(0.0, ge=0, description="second at which the stretch begins")
    end: float = Field(description="second at which it ends")
    kinds: list[str] = Field(
        [], max_length=20, description="such as subtitle, speech, or ocr; empty: all"
    )

    def run(self, toolbox: Toolbox, call: RunningCall) -> Reply:
        return toolbox.read_lines(self.video, self.start, self.end, self.kinds)


class Frame(AgentTool):
    """Look at the picture of a film at a second."""

    name = "frame"
    video: str = Field(description=_VIDEO)
    second: float = Field(ge=0, description="second of the film")
    pixels: int = Field(768, ge=16, description="longer side of the picture, at most")

    def run(self, toolbox: Toolbox, call: RunningCall) -> Reply:
        return toolbox.frame(self.video, self.second, self.pixels)


class Clip(AgentTool):
    """Cut a stretch of a film out into a file of its own, with sound and subtitles.

    It begins at the keyframe before start; the reply says where.
    """

    name = "clip"
    writes = True
    video: str = Field(description=_VIDEO)
    start: float = Field(ge=0, description="second at which the clip begins")
    end: float = Field(description="second at which it ends")
    exact: bool = Field(False, description="begin and end there, which encodes some pictures")

    def run(self, toolbox: Toolbox, call: RunningCall) -> Reply:
        return toolbox.clip(self.video, self.start, self.end, self.exact)


TOOLS: dict[str, type[AgentTool]] = {
    tool.name: tool for tool in (ListVideos, AddVideo, Find, Ask, ReadLines, Frame, Clip)
}


def _without_titles(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema without the titles that repeat the names of fields."""
    properties = {
        name: {key: value for key, value in one.items() if key != "title"}
        for name, one in schema.get("properties", {}).items()
    }
    return {key: value for key, value in schema.items() if key not in ("title", "description")} | {
        "properties": properties
    }

"""What a stream is: its address, its rate, its bank, its words, how long it is kept, its alerts.

Of streams.yaml, of `POST /v1/streams`, and of the file that keeps those. Knows no session.
"""

import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from encoders.errors import UserError
from encoders.sources.live.address import ffmpeg_input, is_live
from pipeline.config import units
from pipeline.config.compose import options
from pipeline.config.settings import PartSettings
from pipeline.server.streams.folders.folder_source import SCHEME

# of conf/text/: what needs a whole film, or chooses for one
_FOR_FILMS = ("auto", "captions", "none", "subtitles")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class StreamSettings(BaseModel):
    """One stream. `parse_stream` makes it from what a person wrote."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str  # of its video in the bank
    url: str  # may hold a password
    fps: float | None = Field(None, gt=0, le=60)  # None: that of the server
    bank: str = ""  # folder; "": that of the server
    text: list[str] = Field(default_factory=list)  # names of conf/text/; []: no words are found
    older_than: str = ""  # age from which its segments are deleted, such as 7d; "": never
    max_bytes: str = ""  # size that its segments may have together, such as 10GB; "": any
    # age from which its segments are stored in `compact_dtype`, such as 1d; "": never
    compact_after: str = ""
    compact_dtype: Literal["int4", "int8"] = "int4"
    alerts: list[str] = Field(default_factory=list, max_length=8)


def parse_stream(values: Any, where: str) -> StreamSettings:
    """The settings of a stream. where: what an error begins with, such as "streams.yaml: door".

    UserError on a key that is none, a value that does not fit, and an address that cannot be
    watched.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where} is no stream; give name and url")
    try:
        stream = StreamSettings(**values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        known = ", ".join(StreamSettings.model_fields)
        more = f"; the keys are {known}" if first["type"] == "extra_forbidden" else ""
        raise UserError(f"{where}: {key}: {first['msg']}{more}") from None
    if not _NAME.fullmatch(stream.name):
        raise UserError(
            f"{where}: {stream.name!r} cannot name a stream; use up to 64 letters, digits, dots, "
            "dashes and underscores"
        )
    _check_address(stream.url, where)
    _check_text(stream, where)
    if stream.older_than:
        units.parse_age("older_than", stream.older_than)
    if stream.max_bytes:
        units.parse_size("max_bytes", stream.max_bytes)
    if stream.compact_after:
        units.parse_age("compact_after", stream.compact_after)
    return stream


def _check_address(url: str, where: str) -> None:
    """UserError on what can never be watched. Whether a camera is there is seen when it is
    opened."""
    if not url or url == SCHEME:
        raise UserError(
            f"{where}: url: the address is empty; give one such as rtsp://192.168.1.20/stream, "
            "camera:0, or folder:/srv/door"
        )
    if url.startswith(SCHEME):
        return
    if "://" in url or not is_live(url):
        try:
            ffmpeg_input(url)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None


def _check_text(stream: StreamSettings, where: str) -> None:
    """UserError on extractors that find nothing in this stream."""
    known = [name for name in extractor_nodes() if name not in _FOR_FILMS]
    for name in stream.text:
        if name not in known:
            raise UserError(
                f"{where}: text: {name} finds no words in a stream; use {', '.join(known)}, or "
                "leave it out"
            )
    is_device = "://" not in stream.url and not stream.url.startswith(SCHEME)
    if stream.text and is_device:
        raise UserError(
            f"{where}: text: {stream.url} gives bare pictures, and words are read in what a stream "
            "sends; leave text out"
        )


def folder_of_streams(bank: str | Path) -> Path:
    """Where the streams of a bank keep what belongs to no bank."""
    return Path(f"{Path(bank)}-streams")


def extractor_nodes() -> dict[str, PartSettings]:
    """The options of conf/text/ by name."""
    return {name: node.get(name, {}) for name, node in options("text", {}).items()}


def read_streams(path: Path) -> list[StreamSettings]:
    """The streams of a YAML file: `streams:` with their settings by name. UserError where it cannot
    be read, and on two streams of one name."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"streams={path} cannot be read ({error})") from None
    try:
        data = yaml.load(text, _UniqueLoader)
    except yaml.YAMLError as error:
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f" in line {mark.line + 1}"
        raise UserError(f"{path} cannot be read{line}: {reason}") from None
    rows = data.get("streams") if isinstance(data, dict) and set(data) == {"streams"} else None
    if not isinstance(rows, dict):
        raise UserError(f"{path} has no streams; write `streams:` with a name and a url below it")
    return [
        parse_stream(
            {"name": str(name)} | values if isinstance(values, dict) else values,
            f"{path}: {name}",
        )
        for name, values in rows.items()
    ]


class _UniqueLoader(yaml.SafeLoader):
    """Refuses a key that stands twice: YAML's own loader takes the last one in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=deep)
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"two streams or keys have the name {name}", key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)

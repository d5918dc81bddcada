"""A block of text lines as a file that describes itself.

Knows records and bytes; no bank, no catalog.

JSON, one object a line: first the description of the block, with a checksum over all that follows
and over itself, then the lines. Equal blocks give equal bytes: a file can be restored from the rows
of the catalog, and rows from the file.
"""

import json
from typing import Any

from encoders.text.lines import TextBlock, TextLine, TextSpan
from memory.storage.checksums import of_bytes

FORMAT = 1


class DamagedTextError(Exception):
    """The bytes of a block differ from those that were written."""


def pack(block: TextBlock) -> bytes:
    """The file's bytes."""
    span = block.span
    head = {
        "format": FORMAT,
        "video_id": block.video_id,
        "extractor": block.extractor,
        "made_with": block.made_with,
        "number": block.number,
        "start": float(span.start),
        "end": float(span.end),
        "last": span.last,
        "note": span.note,
        "lines": len(span.lines),
    }
    body = "".join(_json(_to_json(line)) + "\n" for line in span.lines).encode()
    return _json(head | {"sum": _sum(head, body)}).encode() + b"\n" + body


def unpack(data: bytes) -> TextBlock:
    """The block in a file's bytes. DamagedTextError if they differ from those that were written."""
    try:
        first, _, body = data.partition(b"\n")
        head = json.loads(first)
        if head.pop("sum") != _sum(head, body):
            raise DamagedTextError("it is not as it was written")
        if head["format"] != FORMAT:
            raise DamagedTextError(
                f"it has format {head['format']}, and this Reelbank reads format {FORMAT}"
            )
        video_id = str(head["video_id"])
        lines = tuple(_line(video_id, json.loads(text)) for text in body.decode().splitlines())
        span = TextSpan(head["start"], head["end"], lines, head["last"], head["note"])
        return TextBlock(video_id, head["extractor"], head["made_with"], head["number"], span)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedTextError(
            f"it cannot be read: {(str(error) or type(error).__name__).splitlines()[0]}"
        ) from error


def seal(data: bytes) -> str:
    """The checksum of a whole file."""
    return of_bytes(data)


def _to_json(line: TextLine) -> dict[str, Any]:
    values: dict[str, Any] = {
        name: float(getattr(line, name)) for name in ("start", "end", "known", "confidence")
    }
    values |= {"kind": line.kind, "text": line.text}
    if line.parents:
        values["parents"] = list(line.parents)
    return values if line.box is None else values | {"box": [float(side) for side in line.box]}


def _line(video_id: str, values: dict[str, Any]) -> TextLine:
    box, parents = values.pop("box", None), tuple(values.pop("parents", ()))
    return TextLine(video_id, **values, box=None if box is None else tuple(box), parents=parents)


def _json(value: Any) -> str:
    # ASCII only: each JSON object stays on one line, even if a text contains line separators
    return json.dumps(value, separators=(",", ":"))


def _sum(head: dict[str, Any], body: bytes) -> str:
    return of_bytes(_json(head).encode() + b"\n" + body)

"""Vectors of a block of text lines as a file that names their model.

Knows numbers and bytes; no line, no bank. One line of JSON, then the rows as float16: half the
bytes of float32, and cosines that differ in the fourth digit.
"""

import json

import numpy as np

from memory.storage.checksums import of_bytes

FORMAT = 1


class DamagedVectorsError(Exception):
    """The bytes differ from those that were written."""


def pack(rows: np.ndarray, made_with: str) -> bytes:
    """The file's bytes. rows: [n, E], unit. made_with: names the model."""
    body = np.ascontiguousarray(rows, "<f2").tobytes()
    head = {"format": FORMAT, "made_with": made_with, "rows": len(rows), "width": rows.shape[1]}
    return _json(head | {"sum": _sum(head, body)}) + b"\n" + body


def unpack(data: bytes) -> tuple[np.ndarray, str]:
    """[n, E] float16, and the name of the model. DamagedVectorsError if the bytes differ from those
    that were written."""
    try:
        first, _, body = data.partition(b"\n")
        head = json.loads(first)
        if head.pop("sum") != _sum(head, body) or head["format"] != FORMAT:
            raise DamagedVectorsError("it is not as it was written")
        return np.frombuffer(body, "<f2").reshape(head["rows"], head["width"]), str(
            head["made_with"]
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedVectorsError("it cannot be read") from error


def _json(value: dict) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _sum(head: dict, body: bytes) -> str:
    return of_bytes(_json(head) + b"\n" + body)

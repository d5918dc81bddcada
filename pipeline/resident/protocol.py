"""What a command and a resident process say to each other: JSON behind its length, no pickles.

command -> resident  {"do": "run", "task", "overrides", "cwd", "environment", "libraries", "code",
                      "encodings"}, with its stdin, stdout and stderr as open files
                     {"do": "status"}, {"do": "stop"}
resident -> command  {"exit": 0}, {"error": {...}}, {"declined": "why"}, or {"status": {...}}

The resident writes to the command's own stdout and stderr, so a terminal stays one, a pipe breaks
for whom it should, and every token arrives at once. A command that closes the connection has
cancelled. Imports nothing heavy.
"""

import hashlib
import json
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import conf
import pipeline

Message = dict[str, Any]

MOST_BYTES = 1 << 20  # of a message
_HEAD = struct.Struct(">I")
# variables that say how output looks, and which bank is the default: those of the command count
_OF_COMMANDS = (
    "TERM",
    "COLORTERM",
    "NO_COLOR",
    "FORCE_COLOR",
    "COLUMNS",
    "LINES",
    "TZ",
    "REELBANK_BANK",
    "HYDRA_FULL_ERROR",
)
# variables that libraries read when they are imported: those of the two must agree
_OF_LIBRARIES = (
    "REELBANK_",
    "HF_",
    "HUGGINGFACE_",
    "TRANSFORMERS_",
    "TORCH",
    "PYTORCH_",
    "CUDA_",
    "OMP_",
    "MKL_",
    "OPENAI_",
    "XDG_DATA_",
    "XDG_CACHE_",
    "HOME",
    "LC_",
    "LANG",
    "PYTHONUTF8",
    "PYTHONIOENCODING",
)
_SECRETS = ("_KEY", "_TOKEN", "_PROXY", "_proxy")  # and what an endpoint or a hub asks for


class BrokenMessageError(Exception):
    """The other side has gone, or does not speak this protocol."""


def send(connection: socket.socket, message: Message, files: Sequence[int] = ()) -> None:
    """Send a message, with open files. OSError when the other side has gone."""
    body = json.dumps(message).encode()  # ASCII: a file name's bytes come through as they are
    data = _HEAD.pack(len(body)) + body
    sent = socket.send_fds(connection, [data], list(files)) if files else 0
    connection.sendall(data[sent:])


def receive(connection: socket.socket, most_files: int = 0) -> tuple[Message, list[int]]:
    """The next message, and the open files that came with it. BrokenMessageError."""
    data, files = b"", list[int]()
    try:
        if most_files:
            data, files, _, _ = socket.recv_fds(connection, _HEAD.size, most_files)
        data += _exactly(connection, _HEAD.size - len(data))
        (length,) = _HEAD.unpack(data)
        if length > MOST_BYTES:
            raise BrokenMessageError(f"a message of {length} bytes")
        message = json.loads(_exactly(connection, length))
        if not isinstance(message, dict):
            raise BrokenMessageError("a message that is no object")
    except (OSError, ValueError, BrokenMessageError) as error:
        for file in files:
            os.close(file)
        raise BrokenMessageError(str(error)) from error
    return message, files


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(min(count - len(data), 1 << 16))
        if not part:
            raise BrokenMessageError("the other side has gone")
        data += part
    return data


def peer_uid(connection: socket.socket) -> int:
    """The user of the process at the other end. OSError where the system does not say."""
    if hasattr(socket, "SO_PEERCRED"):
        size = struct.calcsize("3i")
        _, uid, _ = struct.unpack(
            "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        )
        return int(uid)
    raise OSError("this system does not say who is at the other end")


def code_state() -> str:
    """A digest of the code and of conf/, by size and time of change of every file."""
    roots = [Path(pipeline.__file__).parents[1] / name for name in ("encoders", "memory")]
    roots += [Path(pipeline.__file__).parent, Path(conf.__file__).parent]
    digest = hashlib.sha256()
    for root in roots:
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            for name in sorted(names):
                if name.endswith((".py", ".yaml", ".safetensors")):
                    about = os.stat(os.path.join(folder, name))
                    digest.update(f"{folder}/{name} {about.st_mtime_ns} {about.st_size}\n".encode())
    return digest.hexdigest()


def environment_of_libraries(environment: Mapping[str, str]) -> str:
    """A digest of the variables that must agree; their values stay where they are."""
    own = sorted(
        (name, value)
        for name, value in environment.items()
        if (name.startswith(_OF_LIBRARIES) or name.endswith(_SECRETS)) and name not in _OF_COMMANDS
    )
    return hashlib.sha256(json.dumps(own).encode()).hexdigest()


def environment_of_command(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of a command that its output depends on."""
    return {name: environment[name] for name in _OF_COMMANDS if name in environment}


def take_environment(values: Mapping[str, str]) -> None:
    """Set this process's variables to those of a command."""
    for name in _OF_COMMANDS:
        if name in values:
            os.environ[name] = values[name]
        else:
            os.environ.pop(name, None)

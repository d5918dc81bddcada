"""How long GET /health waits, and what memory a server takes, while large requests are posted.

    python -m tests.measure.large_requests [MB]

A `reelbank serve` in a process of its own with a small random model, and one client per kind of
request. Prints p50, p99 and the maximum of /health in ms, the peak of resident memory and what
remains of it 2 s later, in MB above the memory before. The last column is the p99 of the server's
own CPU time between a /health and its answer: other programs make the waits longer, and not this.
"""

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.serving import connect, post_json, receive_all, statuses
from tests.support.toys import toy_parts

PART = b'{"type":"text","text":"a"},'
HEAD = b'{"model":"reelbank","messages":[{"role":"user","content":['
TEXT = b'{"type":"text","text":"What?"}]}]}'
CHAT = "/v1/chat/completions"


def kinds(size: int) -> dict[str, bytes]:
    """Requests of about this many bytes, as they go over the wire."""
    url = b'{"type":"video_url","video_url":{"url":"data:;base64,%b"}},'
    form = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%b\r\n--b--\r\n'
    )
    upload = (
        b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n%b"
    )
    near = form % (b"\r\n--bX" * (size // 6))
    bodies = {
        "nothing": b"{}",
        "small parts": HEAD + PART * (size // len(PART)) + TEXT,
        "nested lists": b"[" * size,
        "nested lists that end": b"[" * (size // 2) + b"]" * (size // 2),
        "numbers": b"[" + b"1," * (size // 2) + b"1]",
        "quotes in a string": b'["' + b'\\"' * (size // 2) + b'"]',
        "backslashes": b'["' + b"\\" * size + b'"]',
        "blanks": b" " * size,
        "one long text": b'["' + b"x" * size + b'"]',
        "base64, no video": HEAD + url % (b"QUJD" * (size // 4)) + TEXT,
        "base64 with escapes": HEAD + url % (b"Q\\/\\u002bD" * (size // 10)) + TEXT,
    }
    requests = {name: post_json(CHAT, body, "Connection: close") for name, body in bodies.items()}
    requests["tiny chunks"] = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"1\r\nx\r\n" * (size // 6)
        + b"0\r\n\r\n"
    )
    requests["a form near its boundary"] = upload % (len(near), near)
    return requests


def resident(process: int, field: str = "VmRSS") -> float:
    """Memory of a process in MB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1e3


def cpu_seconds(process: int) -> float:
    """CPU time of all threads of another process, ended ones included (clock_getcpuclockid)."""
    return time.clock_gettime((~process << 3) | 2)


def health_ms(address: str, process: int, stop: threading.Event) -> Iterator[tuple[float, float]]:
    """Milliseconds of each GET /health on one connection, every 10 ms, and of the server's CPU time
    meanwhile."""
    client = http.client.HTTPConnection(address.removeprefix("http://"), timeout=300)
    while not stop.is_set():
        started, cpu = time.perf_counter(), cpu_seconds(process)
        client.request("GET", "/health")
        assert client.getresponse().read().startswith(b'{"status":"ok"')
        yield (time.perf_counter() - started) * 1e3, (cpu_seconds(process) - cpu) * 1e3
        time.sleep(0.01)
    client.close()


def measure(address: str, process: int, name: str, request: bytes) -> None:
    stop, waits = threading.Event(), list[tuple[float, float]]()
    watch = threading.Thread(target=lambda: waits.extend(health_ms(address, process, stop)))
    Path(f"/proc/{process}/clear_refs").write_text("5")
    before, started = resident(process), time.perf_counter()
    watch.start()
    if name == "nothing":
        time.sleep(2)
    try:
        with connect(address, 600) as client:
            client.sendall(request)
            told = str(statuses(receive_all(client))[0])
    except OSError as error:
        told = type(error).__name__
    seconds = time.perf_counter() - started
    time.sleep(0.5)
    stop.set()
    watch.join()
    peak = resident(process, "VmHWM") - before
    time.sleep(2)
    times, cpu = (sorted(column) for column in zip(*waits, strict=True))
    print(
        f"| {name} | {told} | {seconds:.2f} | {len(times)} | {times[len(times) // 2]:.1f} | "
        f"{times[len(times) * 99 // 100]:.1f} | {times[-1]:.1f} | {peak:.0f} | "
        f"{resident(process) - before:.0f} | {cpu[len(cpu) * 99 // 100]:.1f} |",
        flush=True,
    )


def main(size_mb: int = 60) -> None:
    folder = Path(tempfile.mkdtemp())
    command = [sys.executable, "-m", "pipeline.cli", "serve", f"bank={folder / 'bank'}", "port=0"]
    server = subprocess.Popen([*command, *toy_parts()], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    address = next(line for line in server.stderr if "serving at" in line)
    address = address.split("serving at ")[1].split(",")[0]
    threading.Thread(target=server.stderr.read, daemon=True).start()
    print(json.dumps({"MB": size_mb, "load": os.getloadavg()[0]}))
    print(
        "| request | status | s | n | /health p50 ms | p99 ms | max ms | peak MB | kept MB "
        "| p99 CPU ms |"
    )
    print("|" + "---|" * 10)
    try:
        for name, request in kinds(size_mb * 10**6).items():
            measure(address, server.pid, name, request)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))

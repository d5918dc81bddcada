"""Many live streams and many askers on one `reelbank serve`, with the embedded model.

    python -m tests.measure.live_load --minutes 15
    python -m tests.measure.live_load --minutes 4 --streams 16 --askers 50 --pause 10 --ram-mb 64

The server is a process of its own. This process sends the streams, as MPEG-TS over TCP that is
encoded once, and holds the askers. An asker asks about one stream after another by HTTP, as
server-sent events, and pauses between half of `--pause` and one and a half of it. Every minute one
stream breaks and nobody answers at its address for ten seconds, or it is deleted and started again,
in turn.

A segment is acknowledged when `sealed_until` of GET /v1/streams says so; those that the bank lacks
in the end are counted. The first token is the first piece of text. Memory is the server's, of no
file (RssAnon); its growth is that from the first tenth of the second half to the last one, by
medians. Of it, "in use" is what malloc has given out, and the bank's own count is rows and frames.
The load of other programs is what the machine computed beside the server and this process.
"""

import argparse
import contextlib
import io
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np

from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from tests.measure.large_requests import cpu_seconds
from tests.support import measurement_page
from tests.support.sessions import SIZE, world
from tests.support.streams import Sender

RATE = 4  # pictures a second
LOOP_S = 32  # seconds of each stream, again and again
OUTAGE_S = 10.0
QUESTIONS = ("What is the code on the card?", "What is the name on the card?", "Is a card shown?")


def encoded(number: int) -> bytes:
    """LOOP_S seconds of a scene with a code and a name, as MPEG-TS."""
    code, name = 1000 + 523 * number % 9000, ("Alice", "Bob")[number % 2]
    paint, out = world(f"code:{code}@5", f"name:{name}@17"), io.BytesIO()
    with av.open(out, "w", format="mpegts") as container:
        options = {"g": str(RATE), "preset": "ultrafast", "tune": "zerolatency"}
        stream = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for at in range(LOOP_S * RATE):
            frame = av.VideoFrame.from_ndarray(paint(at / RATE), format="rgb24")
            frame.pts, frame.time_base = at, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


class LoopSender(Sender):
    """Sends an encoded film again and again, each picture when it is due."""

    def __init__(self, data: bytes) -> None:
        super().__init__(lambda at: np.zeros((*SIZE[::-1], 3), np.uint8), SIZE)
        self._data = data

    def _stream(self) -> Iterator[bytes]:
        out, sent, began = io.BytesIO(), 0, time.monotonic()
        with (
            av.open(io.BytesIO(self._data), "r") as film,
            av.open(out, "w", format="mpegts") as container,
        ):
            stream = container.add_stream_from_template(film.streams.video[0])
            packets = [each for each in film.demux(film.streams.video[0]) if each.pts is not None]
            stamps = [(each.pts, each.dts) for each in packets]
            step = round(1 / (RATE * packets[0].time_base))
            while not self._end.is_set():
                lap, place = divmod(sent, len(packets))
                packet, (pts, dts) = packets[place], stamps[place]
                packet.pts = (pts or 0) + lap * len(packets) * step
                packet.dts = (dts or 0) + lap * len(packets) * step
                packet.stream = stream
                container.mux_one(packet)
                data = out.getvalue()
                out.seek(0)
                out.truncate()
                sent += 1
                while (wait := began + sent / RATE - time.monotonic()) > 0:
                    if self.cut.is_set() or self._end.is_set():
                        return
                    time.sleep(min(wait, 0.1))
                yield data


@dataclass
class Figures:
    """What a run has seen. Times in seconds, memory in bytes."""

    first: list[float] = field(default_factory=list)  # until the first piece of each answer
    at: list[float] = field(default_factory=list)  # of the run, when each answer was asked for
    whole: list[float] = field(default_factory=list)
    refused: int = 0  # with status 429
    failed: list[str] = field(default_factory=list)
    # until a stream that was broken, or started again, gives pictures again
    back: dict[str, list[float]] = field(
        default_factory=lambda: {"broken": [], "started again": []}
    )
    deletions: list[float] = field(default_factory=list)  # seconds that DELETE of a stream took
    sealed: dict[str, float] = field(default_factory=dict)  # stream -> seconds, at most
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    memory: list[tuple[float, int]] = field(default_factory=list)  # (seconds, RssAnon)
    # (seconds, of it by the bank's own count: search rows, frames in RAM)
    counted: list[tuple[float, int]] = field(default_factory=list)
    # (seconds, of it what malloc has given out)
    allocated: list[tuple[float, int]] = field(default_factory=list)


class Load:
    """A running server with its streams; `with Load(...) as load: load.run(minutes)`."""

    def __init__(
        self,
        folder: Path,
        senders: list[LoopSender],
        askers: int,
        pause: float,
        ram_mb: int,
        settings: list[str],
    ) -> None:
        self.figures, self.folder = Figures(), folder
        self._senders = {f"cam{number}": sender for number, sender in enumerate(senders)}
        self._askers, self._pause = askers, pause
        self._end, self._began = threading.Event(), time.monotonic()
        command = [
            "serve",
            f"bank={folder / 'bank'}",
            "port=0",
            f"waiting={askers}",
            f"ram_mb={ram_mb}",
            *settings,
        ]
        self.server = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", *command], stderr=subprocess.PIPE, text=True
        )
        assert self.server.stderr is not None
        line = next(line for line in self.server.stderr if "serving at" in line)
        self.address = line.split("serving at ")[1].split(",")[0].strip()
        threading.Thread(target=self.server.stderr.read, daemon=True).start()

    def run(self, minutes: float) -> None:
        """Start the streams, wait until all give pictures, and load the server."""
        for name in self._senders:
            self._start(name)
        while not all(state["seen_until"] > 1 for state in self._states().values()):
            time.sleep(0.5)
        self._began = time.monotonic()
        threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(self._askers)]
        threads += [threading.Thread(target=each) for each in (self._watch, self._break)]
        for thread in threads:
            thread.start()
        time.sleep(60 * minutes)
        self._end.set()
        for thread in threads:
            thread.join()

    def stop(self) -> None:
        """End the server as Ctrl-C does."""
        self.server.send_signal(signal.SIGINT)
        self.server.wait(60)

    def _states(self) -> dict[str, dict[str, Any]]:
        rows = httpx.get(f"{self.address}/v1/streams", timeout=60).json()["data"]
        return {row["name"]: row for row in rows}

    def _start(self, name: str) -> None:
        body = {"name": name, "url": self._senders[name].url}
        httpx.post(f"{self.address}/v1/streams", json=body, timeout=60).raise_for_status()

    def _ask(self, number: int) -> None:
        rng, names = np.random.default_rng(number), list(self._senders)
        self._end.wait(float(rng.uniform(0, self._pause)))
        with httpx.Client(base_url=self.address, timeout=120) as client:
            while not self._end.is_set():
                name = names[int(rng.integers(len(names)))]
                part = {"type": "video_url", "video_url": {"url": f"stream:{name}"}}
                text = {"type": "text", "text": QUESTIONS[int(rng.integers(len(QUESTIONS)))]}
                messages = [{"role": "user", "content": [part, text]}]
                try:
                    self._answer(client, {"model": "reelbank", "messages": messages})
                except (httpx.HTTPError, AssertionError) as error:
                    self.figures.failed.append(f"{type(error).__name__}: {error}")
                self._end.wait(float(rng.uniform(0.5, 1.5)) * self._pause)

    def _answer(self, client: httpx.Client, body: dict[str, Any]) -> None:
        began, first = time.monotonic(), None
        path = "/v1/chat/completions"
        with client.stream("POST", path, json=body | {"stream": True}) as response:
            if response.status_code in (404, 409):  # of a stream that is started again just now
                return
            if response.status_code == 429:
                self.figures.refused += 1
                return
            assert response.status_code == 200, response.status_code
            for line in response.iter_lines():
                event = json.loads(line[6:]) if line.startswith("data: {") else {}
                assert "error" not in event, event["error"]["message"]
                delta = event.get("choices", [{}])[0].get("delta", {}) if event else {}
                if first is None and delta.get("content"):
                    first = time.monotonic() - began
        whole = time.monotonic() - began
        self.figures.at.append(began - self._began)
        self.figures.first.append(whole if first is None else first)
        self.figures.whole.append(whole)

    def _watch(self) -> None:
        began, figures = time.monotonic(), self.figures
        while not self._end.wait(1.0):
            status = Path(f"/proc/{self.server.pid}/status").read_text()
            nbytes = int(status.split("RssAnon:")[1].split()[0]) * 1024
            figures.memory.append((time.monotonic() - began, nbytes))
            text = httpx.get(f"{self.address}/metrics", timeout=60).text
            rows = re.findall(r"^reelbank_memory_(?:index|ram)_bytes (\S+)$", text, re.M)
            figures.counted.append((time.monotonic() - began, round(sum(map(float, rows)))))
            rows = re.findall(r"^reelbank_memory_allocated_bytes (\S+)$", text, re.M)
            figures.allocated.append((time.monotonic() - began, round(sum(map(float, rows)))))
            for name, state in self._states().items():
                figures.states[name] = state
                figures.sealed[name] = max(figures.sealed.get(name, 0.0), state["sealed_until"])

    def _break(self) -> None:
        """One stream a minute."""
        names, number = list(self._senders), 0
        while not self._end.wait(50.0 if number else 20.0):
            name, number = names[number % len(names)], number + 1
            if number % 2:
                sender = self._senders[name]
                sender.down.set()
                sender.cut.set()
                self._end.wait(OUTAGE_S)
                sender.down.clear()
                seen, kind = self._states()[name]["seen_until"], "broken"
            else:
                url = f"{self.address}/v1/streams/{name}"
                began = time.monotonic()
                httpx.delete(url, timeout=600).raise_for_status()
                self.figures.deletions.append(time.monotonic() - began)
                self._start(name)
                seen, kind = 0.0, "started again"
            began = time.monotonic()
            while not self._end.wait(0.25):
                if self._states()[name]["seen_until"] > seen:
                    self.figures.back[kind].append(time.monotonic() - began)
                    break


def lost(root: Path, sealed: dict[str, float]) -> tuple[int, int, list[str]]:
    """Segments that the bank holds, streams of which it lacks acknowledged seconds or numbers, and
    what is damaged."""
    with MemoryBank.open(root, None, UniformRetriever(), recent_frames=0, create=False) as bank:
        rows = {name: bank.catalog.segments(name) for name in sealed}
        problems = [str(each) for each in bank.check.verify()]
    lacking = 0
    for name, until in sealed.items():
        numbers = [row.number for row in rows[name]]
        is_whole = numbers == list(range(len(numbers)))
        ends = rows[name][-1].end if numbers else 0.0
        lacking += not (is_whole and ends > until - 0.01)
    return sum(map(len, rows.values())), lacking, problems


def growth(memory: list[tuple[float, int]]) -> tuple[float, float]:
    """(MB in the middle, MB more in the end), by medians of a tenth of the second half."""
    values = [nbytes / 1e6 for _, nbytes in memory[len(memory) // 2 :]]
    tenth = max(1, len(values) // 10)
    begin = statistics.median(values[:tenth])
    return begin, statistics.median(values[-tenth:]) - begin


def quarters(figures: Figures) -> list[str]:
    """The 95th percentile of the first token in each quarter of the run, in seconds."""
    first, at = np.array(figures.first), np.array(figures.at)
    which = np.minimum(at * 4 // max(at.max(initial=0.0), 1e-9), 3)
    return [f"{quantile(list(first[which == number]), 0.95):.2f}" for number in range(4)]


def busy_seconds() -> float:
    """CPU seconds of the whole machine since it began, without those that were stolen."""
    fields = [int(each) for each in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    user, nice, system, _idle, _wait, irq, soft = fields[:7]
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def quantile(values: list[float], share: float) -> float:
    return float(np.quantile(values, share)) if values else float("nan")


def report(arguments: argparse.Namespace) -> int:
    films = [encoded(number) for number in range(arguments.streams)]
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        senders = [LoopSender(film) for film in films]
        for sender in senders:
            stack.enter_context(sender)
        load = Load(
            Path(name),
            senders,
            arguments.askers,
            arguments.pause,
            arguments.ram_mb,
            arguments.settings,
        )
        stack.callback(load.server.kill)
        began, busy, own = time.monotonic(), busy_seconds(), time.process_time()
        load.run(arguments.minutes)
        seconds = time.monotonic() - began
        server = cpu_seconds(load.server.pid)
        own = time.process_time() - own
        others = busy_seconds() - busy - server - own
        figures = load.figures
        load.stop()
        segments, lacking, problems = lost(load.folder / "bank", figures.sealed)
    print_table(figures, segments, lacking, problems)
    print(
        f"\nIn {seconds:.0f} s: {server:.0f} CPU seconds of the server, {own:.0f} of the senders "
        f"and askers, {others:.0f} of other programs on {os.cpu_count()} cores."
    )
    for error in sorted(set(figures.failed))[:5]:
        print(f"\nFailed: {error}")
    return 0


def print_table(figures: Figures, segments: int, lacking: int, problems: list[str]) -> None:
    states = figures.states.values()
    total = {key: sum(state[key] for state in states) for key in ("frames", "dropped", "left_out")}
    middle, more = growth(figures.memory)
    p95 = quantile(figures.first, 0.95)

    def said(is_met: bool) -> str:
        return "met" if is_met else "missed"

    rows = [
        (
            "streams that lack an acknowledged segment; damaged files",
            f"{lacking} of {len(figures.sealed)} ({segments} segments); {len(problems)}",
            "0",
            said(not lacking and not problems),
        ),
        ("first token, p50", f"{quantile(figures.first, 0.5):.2f} s", "", ""),
        ("first token, p95", f"{p95:.2f} s", "2 s", said(p95 <= 2)),
        ("the same in each quarter of the run, p95", f"{'; '.join(quarters(figures))} s", "", ""),
        ("whole answer, p95", f"{quantile(figures.whole, 0.95):.2f} s", "", ""),
        (
            "answers; refused (429); failed",
            f"{len(figures.whole)}; {figures.refused}; {len(figures.failed)}",
            "no failed one",
            said(not figures.failed),
        ),
        (
            "memory in the middle; growth in the second half",
            f"{middle:.0f} MB; {more:+.1f} MB",
            "20 MB",
            said(more <= 20),
        ),
        (
            "of it in use",
            "{:.0f} MB; {:+.1f} MB".format(*growth(figures.allocated)),
            "",
            "",
        ),
        (
            "of it by the bank's own count",
            "{:.0f} MB; {:+.1f} MB".format(*growth(figures.counted)),
            "",
            "",
        ),
        (
            "frames encoded; pushed out of a queue; not sampled for the load",
            f"{total['frames'] - total['dropped']}; {total['dropped']}; {total['left_out']}",
            "",
            "",
        ),
        (
            "longest time from a frame's arrival until it can be asked about",
            f"{max(state['longest_wait'] for state in states):.1f} s",
            "",
            "",
        ),
    ]
    for kind, times in figures.back.items():
        longest = f"{max(times):.1f} s" if times else "-"
        rows.append(
            (f"streams {kind}; longest until a picture", f"{len(times)}; {longest}", "", "")
        )
    if figures.deletions:
        rows.append(("longest deletion of a stream", f"{max(figures.deletions):.1f} s", "", ""))
    print("| what | number | target | |\n|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--askers", type=int, default=50)
    parser.add_argument("--pause", type=float, default=10.0, help="seconds, on average")
    parser.add_argument("--ram-mb", type=int, default=64, help="of the server: ram_mb")
    parser.add_argument(
        "settings", nargs="*", help="more settings of the server, such as threads=1"
    )
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()

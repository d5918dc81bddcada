"""Senders for tests of live sources: MPEG-TS over TCP and over RTSP, HLS over HTTP; threads of this
process.

RTSP needs a server, and no package has one. This one speaks just enough of RFC 2326 to send MPEG-TS
in RTP packets (RFC 2250, payload type 33) inside the connection. Knows nothing of ours.
"""

import contextlib
import io
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

import av
import numpy as np

Paint = Callable[[float], np.ndarray]  # seconds since the sender began -> [height, width, 3] uint8
RATE = 10  # pictures a second


class Sender:
    """Sends a live picture in real time, to one client after another. `with Sender(paint) as
    sender: sender.url`.
    """

    kind = "tcp"

    def __init__(self, paint: Paint, size: tuple[int, int] = (192, 108)) -> None:
        self._paint, self._size = paint, size
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(0.1)
        self.port = self._server.getsockname()[1]
        self.url = f"{self.kind}://127.0.0.1:{self.port}" + ("/live" if self.kind == "rtsp" else "")
        self.zero = time.monotonic()
        self.stalled = threading.Event()  # keeps the connection and sends nothing
        self.cut = threading.Event()  # breaks the connection off; the next one is accepted again
        self.down = threading.Event()  # nobody answers at the address
        self._end = threading.Event()
        self.connections = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "Sender":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()
        self._server.close()

    @property
    def now(self) -> float:
        return time.monotonic() - self.zero

    def _serve(self) -> None:
        while not self._end.is_set():
            if self.down.is_set():
                time.sleep(0.1)
                continue
            try:
                link, _ = self._server.accept()
            except TimeoutError:
                continue
            self.connections += 1
            with link, contextlib.suppress(OSError, ValueError):
                link.settimeout(2)
                self._send(link)
            self.cut.clear()

    def _send(self, link: socket.socket) -> None:
        for data in self._stream():
            link.sendall(data)

    def _stream(self) -> Iterator[bytes]:
        """MPEG-TS in pieces, each when it is due; ends when the connection is to be cut."""
        out = io.BytesIO()
        with av.open(out, "w", format="mpegts") as container:
            for _ in self._encoded(container):
                data = out.getvalue()
                out.seek(0)
                out.truncate()
                yield data

    def _encoded(self, container: "av.container.OutputContainer") -> Iterator[None]:
        """Encode each picture when it is due; ends when the connection is to be cut."""
        stream = container.add_stream(
            "libx264",
            rate=RATE,
            options={"g": str(RATE), "preset": "ultrafast", "tune": "zerolatency"},
        )
        stream.width, stream.height = self._size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        first = round(self.now * RATE)
        number = first
        while not (self._end.is_set() or self.cut.is_set()):
            if self.stalled.is_set():
                time.sleep(0.02)
                continue
            number = max(number + 1, round(self.now * RATE))
            frame = av.VideoFrame.from_ndarray(self._paint(number / RATE), format="rgb24")
            frame.pts, frame.time_base = number - first, Fraction(1, RATE)
            container.mux(stream.encode(frame))
            time.sleep(max(0.0, number / RATE - self.now))
            yield


class FilmSender(Sender):
    """Sends the packets of a film in real time, once a connection."""

    def __init__(self, film: Path) -> None:
        super().__init__(lambda seconds: np.zeros((2, 2, 3), np.uint8))
        self._film = film

    def _stream(self) -> Iterator[bytes]:
        out, began = io.BytesIO(), time.monotonic()
        with av.open(str(self._film)) as film, av.open(out, "w", format="mpegts") as container:
            copies = {
                each.index: container.add_stream_from_template(each)
                for each in (*film.streams.video, *film.streams.audio)
            }
            for packet in film.demux():
                if packet.dts is None or packet.time_base is None:
                    continue
                due = began + float(packet.dts * packet.time_base)
                while (left := due - time.monotonic()) > 0 and not self._end.is_set():
                    time.sleep(min(left, 0.1))
                if self._end.is_set() or self.cut.is_set():
                    return
                packet.stream = copies[packet.stream_index]
                container.mux(packet)
                yield out.getvalue()
                out.seek(0)
                out.truncate()


class RtspSender(Sender):
    """The same over RTSP."""

    kind = "rtsp"

    def _send(self, link: socket.socket) -> None:
        request = b""
        while True:
            while b"\r\n\r\n" not in request:
                request += link.recv(4096)
            head, _, request = request.partition(b"\r\n\r\n")
            verb, text = head.split()[0].decode(), head.decode()
            more, body = "", ""
            if verb == "OPTIONS":
                more = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
            elif verb == "DESCRIBE":
                body = (
                    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=live\r\nt=0 0\r\n"
                    "m=video 0 RTP/AVP 33\r\na=rtpmap:33 MP2T/90000\r\n"
                )
                body += "a=control:track\r\n"
                more = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
            elif verb == "SETUP":
                more = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
            number = re.search(r"CSeq: *(\d+)", text)
            assert number is not None
            link.sendall(
                f"RTSP/1.0 200 OK\r\nCSeq: {number[1]}\r\nSession: 1\r\n{more}\r\n{body}".encode()
            )
            if verb in ("PLAY", "TEARDOWN"):
                break
        packet = 0
        for data in self._stream():
            for at in range(0, len(data), 7 * 188):
                part = data[at : at + 7 * 188]
                rtp = (
                    struct.pack(
                        ">BBHII",
                        0x80,
                        33,
                        packet & 0xFFFF,
                        round(self.now * 90_000) & 0xFFFFFFFF,
                        1,
                    )
                    + part
                )
                link.sendall(struct.pack(">cBH", b"$", 0, len(rtp)) + rtp)
                packet += 1


class HlsSender(Sender):
    """HLS: a folder that grows by a file a second, and forgets the oldest ones, over HTTP."""

    kind = "http"

    def __init__(self, paint: Paint, folder: Path, size: tuple[int, int] = (192, 108)) -> None:
        super().__init__(paint, size)
        self._folder = folder
        handler = partial(_QuietHandler, directory=str(folder))
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/live.m3u8"

    def _serve(self) -> None:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        options = {"hls_time": "1", "hls_list_size": "6", "hls_flags": "delete_segments"}
        path = str(self._folder / "live.m3u8")
        with av.open(path, "w", format="hls", options=options) as container:
            for _ in self._encoded(container):
                pass
        self._http.shutdown()
        self._http.server_close()


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

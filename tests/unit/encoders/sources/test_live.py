"""Live sources against real senders: pictures, times, stalls, cuts, drops, unusable streams."""

import io
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import av
import numpy as np
import pytest

from encoders.errors import SourceClosed, UserError
from encoders.sources.file import FileSource
from encoders.sources.live.address import is_live, without_password
from encoders.sources.live.file_playback import FilePlayback
from encoders.sources.live.push_source import PushSource
from encoders.sources.live.url_source import UrlSource
from tests.support.streams import RtspSender, Sender
from tests.support.videos import numbered, read_number, write_video

SIZE = (64, 64)


def counting(seconds: float) -> np.ndarray:
    """A picture that says how many tenths of a second the sender has run."""
    return numbered(round(seconds * 10), SIZE)


def watched(url: str, fps: float = 5.0, **options) -> UrlSource:
    return UrlSource(
        url,
        fps,
        width=64,
        height=64,
        **({"timeout_s": (5, 0.6), "back_off_s": (0.1, 0.4)} | options),
    )


@pytest.mark.parametrize("sender", [Sender, RtspSender])
def test_a_stream_that_stalls_and_breaks_off_goes_on(sender):
    with sender(counting, SIZE) as there:
        source = watched(there.url, options={"probesize": "20000", "analyzeduration": "200000"})
        source.start_clock(0.0)
        seen: list[tuple[float, int]] = []  # video time, what it shows
        frames = source.frames()

        def take(connection: int) -> None:
            """Frames until three have come since this connection was made."""
            left = 3
            while left:
                frame = next(frames)
                assert frame.pixels.shape == (1, 64, 64, 3) and frame.times[0] <= source.now
                seen.append((float(frame.times[0]), read_number(frame.pixels[0])))
                left -= there.connections >= connection

        try:
            take(1)
            there.stalled.set()
            while not source.reconnects:  # until it was missed
                time.sleep(0.02)
            there.stalled.clear()
            # the sender would not notice that nobody listens to this connection any more
            there.cut.set()
            take(2)
            there.cut.set()
            take(3)
        finally:
            source.close()
        assert source.reconnects >= 2
    times, shown = (np.array(column) for column in zip(*seen, strict=True))
    assert (np.diff(times) > 0).all() and (np.diff(shown) > 0).all()
    # Video time follows the clock through stalls and cuts: a frame shows what its time says.
    assert np.ptp(times - shown / 10) < 1.0, (times - shown / 10).tolist()


@pytest.mark.parametrize("sender", [Sender, pytest.param(RtspSender, marks=pytest.mark.slow)])
def test_what_came_while_connecting_does_not_make_the_rest_late(sender):
    with sender(counting) as there:
        source = watched(there.url)
        source.start_clock(0.0)
        behind: list[float] = []
        for frame in source.frames():
            behind.append(there.now - read_number(frame.pixels[0]) / 10)
            if len(behind) == 15:
                break
        source.close()
    assert max(behind[-5:]) < 1.0, behind


def test_the_newest_frames_wait_and_dropped_ones_are_counted():
    source = PushSource("page", 1.0, width=64, height=64, queue_frames=3)
    assert not source.push(numbered(0, (80, 80)), at=0.0)  # nobody has begun yet
    source.start_clock(0.0)
    for second in range(10):
        assert source.push(numbered(second, (80, 80)), at=float(second))
        assert not source.push(numbered(99, (80, 80)), at=second + 0.3)  # not on the grid
    assert not source.push(numbered(99, (80, 80)), at=4.0)  # the past
    assert (source.frames_sampled, source.dropped, source.is_idle) == (10, 7, False)
    source.close()
    left = list(source.frames())
    assert (
        [read_number(frame.pixels[0]) for frame in left]
        == [7, 8, 9]
        == [frame.times[0] for frame in left]
    )
    assert source.is_idle and not source.push(numbered(1, (80, 80)), at=20.0)


def test_a_stream_goes_on_behind_what_was_and_knows_the_wall_clock():
    source = PushSource("page", 2.0, width=64, height=64)
    began = source.start_clock(40.0)
    assert source.now == pytest.approx(40.5, abs=0.2) and began + source.now == pytest.approx(
        time.time(), abs=0.2
    )


def test_a_played_file_gives_the_frames_of_the_file_in_their_time(tmp_path):
    write_video(tmp_path / "a.mp4", 6, 5)
    file = FileSource(tmp_path / "a.mp4", 1.0, width=64, height=64)
    whole = next(file.frames())
    for speed in (20.0, float("inf")):
        played = FilePlayback(FileSource(tmp_path / "a.mp4", 1.0, width=64, height=64), speed)
        began = time.monotonic()
        got = list(played.frames())
        assert np.array_equal(np.concatenate([f.times for f in got]), whole.times)
        assert np.array_equal(np.concatenate([f.pixels for f in got]), whole.pixels)
        assert played.now == 5.0 and (speed > 20 or time.monotonic() - began >= 5 / speed)
    stopped = FilePlayback(FileSource(tmp_path / "a.mp4", 1.0, width=64, height=64), 1.0)
    threading.Timer(0.2, stopped.close).start()
    with pytest.raises(SourceClosed):
        list(stopped.frames())
    with pytest.raises(UserError, match="speed=0"):
        FilePlayback(file, 0)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("tcp://127.0.0.1:{port}", "gives no picture"),
        ("rtsp://user:secret@127.0.0.1:{port}/live?key=secret", "gives no picture"),
        ("http://127.0.0.1:{port}/a.m3u8", "gives no picture"),
        ("rtmp://127.0.0.1:{port}/live", "gives no picture"),
    ],
)
def test_what_cannot_be_reached_is_told_at_once(url, told):
    source = watched(url.format(port=closed_port()))
    with pytest.raises(UserError, match=told) as error:
        list(source.frames())
    assert "secret" not in str(error.value) and "secret" not in source.info.path
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("file:///etc/passwd", "no address that can be watched"),
        ("concat://a|b", "no address that can be watched"),
        ("tcp://nowhere", "has no host and port"),
        ("rtsp://", "has no host and port"),
        ("http://h:99999/", "has no host and port"),
        ("v4l2:/dev/video77", "no camera /dev/video77"),
    ],
)
def test_what_is_no_source_is_refused(url, told):
    with pytest.raises(UserError, match=told):
        watched(url)


def test_a_camera_of_another_system_is_told():
    source = watched("dshow:video=None")
    with pytest.raises(UserError, match="gives no picture"):
        list(source.frames())


@contextmanager
def sent(data: bytes) -> Iterator[str]:
    """The address of somebody who sends just this to the first one who connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            link, _ = server.accept()
            with link:
                link.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"


def test_a_stream_without_pictures_is_told():
    with (
        sent(b"no video at all " * 4096) as url,
        pytest.raises(UserError, match="gives no picture"),
    ):
        list(watched(url).frames())


def test_a_codec_that_nobody_knows_is_told(tmp_path):
    path = tmp_path / "a.mkv"
    write_video(path, 2, 5)
    data = path.read_bytes()
    assert data.count(b"V_MPEG4/ISO/AVC") == 1
    data = data.replace(b"V_MPEG4/ISO/AVC", b"V_NOTHING/KNOWN")
    with sent(data) as url, pytest.raises(UserError, match="let it send H"):
        list(watched(url).frames())
    path.write_bytes(data)
    with pytest.raises(UserError, match="format that is not supported; convert it"):
        FileSource(str(path), fps=1.0, width=64, height=64)


def test_hls_comes_in_stretches_and_is_played_in_its_time(tmp_path):
    with av.open(
        str(tmp_path / "a.m3u8"), "w", format="hls", options={"hls_time": "1", "hls_list_size": "0"}
    ) as out:
        stream = out.add_stream("libx264", rate=10, options={"g": "10"})
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for number in range(30):
            out.mux(
                stream.encode(av.VideoFrame.from_ndarray(numbered(number, SIZE), format="rgb24"))
            )
        out.mux(stream.encode())
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = watched(f"http://127.0.0.1:{server.server_address[1]}/a.m3u8")
        source.start_clock(0.0)
        seen = []
        for frame in source.frames():
            # none before it is due, though a stretch comes at once
            assert frame.times[0] <= source.now
            seen.append((float(frame.times[0]), read_number(frame.pixels[0])))
            if len(seen) == 12:
                break
        source.close()
        server.shutdown()
    times, shown = (np.array(column) for column in zip(*seen, strict=True))
    assert np.ptp(times - shown / 10) < 0.3 and (np.diff(shown) == 2).all()


def test_names():
    assert is_live("rtsp://a/b") and is_live("camera:0") and is_live("v4l2:/dev/video0")
    assert not is_live("a.mp4") and not is_live("/films/a:b.mp4")
    assert without_password("rtsp://me:secret@host:1/a?token=x#y") == "rtsp://host:1/a"
    with pytest.raises(UserError, match="cannot name a stream"):
        PushSource("../x", 1.0, width=8, height=8)


class ChangingSender(Sender):
    """To its first client, a second of pictures under one number (PID) and a second under another,
    as of a broadcaster's advertisements; to later ones, pictures under one number. goes_on: it does
    not hang up on the first one, and never sends the first number again.
    """

    goes_on = False

    def _stream(self) -> Iterator[bytes]:
        for number in (0x100, 0x300) if self.connections == 1 else (0x300,):
            yield transport_stream(number, 20)
        while self.goes_on and not self._end.wait(0.1):
            yield transport_stream(0x300, 5)

    def _serve(self) -> None:
        if not self.goes_on:
            super()._serve()
            return
        with ThreadPoolExecutor(2) as clients:  # the first one does not hang up either
            while not self._end.is_set():
                with suppress(TimeoutError):
                    link, _ = self._server.accept()
                    self.connections += 1
                    clients.submit(self._send_all, link)

    def _send_all(self, link: socket.socket) -> None:
        with link, suppress(OSError):
            self._send(link)


def transport_stream(number: int, pictures: int) -> bytes:
    """MPEG-TS with black pictures, ten a second, under this number."""
    buffer = io.BytesIO()
    options = {"mpegts_start_pid": hex(number), "mpegts_pmt_start_pid": hex(0x1000 + number)}
    with av.open(buffer, "w", format="mpegts", options=options) as out:
        stream = out.add_stream("libx264", rate=10, options={"g": "10"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(pictures):
            black = np.zeros((64, 64, 3), np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(black, format="rgb24")))
        out.mux(stream.encode())
    return buffer.getvalue()


@pytest.mark.parametrize("goes_on", [False, True])
def test_streams_that_change_in_the_middle_are_connected_to_again(goes_on: bool):
    """PyAV reads on without a picture if a sender goes on under another number, and raises an
    IndexError when it hangs up.
    """
    there = ChangingSender(counting, SIZE)
    there.goes_on = goes_on
    with there:
        options = {"probesize": "5000", "analyzeduration": "200000"}
        source = watched(there.url, 10.0, options=options)
        source.start_clock(0.0)
        frames = source.frames()
        while there.connections < 2 or source.reconnects < 1:
            next(frames)
        assert next(frames).pixels.shape == (1, 64, 64, 3)
        source.close()

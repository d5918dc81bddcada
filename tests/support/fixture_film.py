"""The fixture film: pictures that spell their own number, in every codec, container, GOP structure
and rate that PyAV can encode here.

Knows the writer of tests/support/videos.py and nothing of ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from tests.support.videos import CLOCK, write_video

_NTSC, _FILM = Fraction(30000, 1001), Fraction(24000, 1001)


# several threads of this encoder have waited for one another for ever
_ONE_THREAD = {"svtav1-params": "lp=1"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to encode the film."""

    codec: str
    suffix: str  # of the file; it names the container
    gop: str  # what is special about the groups of pictures
    rate: Fraction
    options: dict[str, str] = field(default_factory=dict)
    muxer: dict[str, str] = field(default_factory=dict)
    size: tuple[int, int] = (64, 64)
    pix_fmt: str = "yuv420p"

    @property
    def is_quick(self) -> bool:
        """True for one of the dozen in the fast suite."""
        return str(self) in _QUICK

    def __str__(self) -> str:
        rate = f"{float(self.rate):.3f}".rstrip("0").rstrip(".")
        return f"{self.codec}-{self.gop.replace(' ', '_')}-{self.suffix}-{rate}"

    def write(self, folder: Path, seconds: float = 5.0) -> tuple[Path, list[float]]:
        """Write the film; -> its path, and the seconds of its pictures from the first one on."""
        path = folder / f"film.{self.suffix}"
        times = write_video(
            path,
            seconds,
            self.rate,
            size=self.size,
            codec=self.codec,
            options=self.options,
            muxer=self.muxer,
            pix_fmt=self.pix_fmt,
            clock=1 / self.rate if self.codec.startswith(("mpeg1", "mpeg2")) else CLOCK,
        )
        return path, times


def shown(times: Sequence[float], end: float, fps: float) -> list[tuple[int, float]]:
    """(number, time) of what a pass samples, point by point: the next picture if it is near, or
    else the one that stands there.
    """
    near = min(1.5 * float(np.median(np.diff(times))), 2.0) + 1e-3
    samples: list[tuple[int, float]] = []
    for point in range(int(end * fps) + 1):
        at = point / fps
        later = [number for number, time in enumerate(times) if time >= at - 1e-3]
        following = times[later[0]] if later else end
        if following - at > near:
            samples.append((max(n for n, time in enumerate(times) if time < at + 1e-3), at))
        elif later and (later[0], times[later[0]]) not in samples:
            samples.append((later[0], times[later[0]]))
    return samples


def _x264(text: str) -> dict[str, str]:
    return {"x264-params": f"{text}:threads=1"}


def _x265(text: str) -> dict[str, str]:
    return {"preset": "ultrafast", "x265-params": f"{text}:pools=none:frame-threads=1:log-level=-1"}


_OPEN = "keyint=25:min-keyint=25:scenecut=0:bframes=5:b-pyramid=normal:open-gop=1"
_CLOSED = "keyint=25:min-keyint=25:scenecut=0:bframes=3"
_H264 = {
    "closed": _x264(_CLOSED),
    "open": _x264(_OPEN),
    "intra refresh": _x264("intra-refresh=1:keyint=25:bframes=0"),
    "no B": _x264("keyint=25:bframes=0"),
    "one keyframe": _x264("keyint=infinite:bframes=3"),
    "all intra": _x264("keyint=1"),
    "slices": _x264(f"{_CLOSED}:slices=4"),
    "interlaced": _x264(f"{_CLOSED}:tff=1"),
    "open bluray": _x264("keyint=12:bframes=3:open-gop=1:bluray-compat=1:slices=4:nal-hrd=none"),
}
_HEVC = {
    "open": _x265("keyint=25:min-keyint=25:bframes=4:open-gop=1:scenecut=0"),
    "closed": _x265("keyint=25:bframes=4:open-gop=0"),
    "layers": _x265("keyint=25:bframes=4:temporal-layers=1:open-gop=1"),
    "one keyframe": _x265("keyint=-1:bframes=4"),
    "all intra": _x265("keyint=1"),
}
_MPEG = {
    "no B": {"g": "12", "b": "2M"},
    "open": {"g": "12", "bf": "2", "b": "2M"},
    "closed": {"g": "12", "bf": "2", "b": "2M", "flags": "+cgop", "sc_threshold": "1000000000"},
}
_VPX = {"cpu-used": "8", "g": "25", "auto-alt-ref": "1", "lag-in-frames": "16", "threads": "1"}
_FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}


def _recipes() -> list[Recipe]:
    films = [
        Recipe("libx264", suffix, gop, rate, _H264[gop])
        for gop in _H264
        for suffix, rate in (("mp4", Fraction(25)), ("mkv", _NTSC), ("ts", Fraction(50)))
    ]
    films += [Recipe("libx264", "flv", gop, Fraction(30), _H264[gop]) for gop in ("closed", "open")]
    films += [
        Recipe("libx264", "mov", "open", _FILM, _H264["open"]),
        Recipe("libx264", "mp4", "closed", Fraction(15), _H264["closed"], _FRAGMENTS),
        Recipe("libx264", "mp4", "open", Fraction(24), _H264["open"], _FRAGMENTS),
        Recipe("libx264", "avi", "no B", Fraction(25), _H264["no B"]),
        Recipe("libx264", "nut", "open", Fraction(10), _H264["open"]),
        Recipe("libx264", "mxf", "all intra", Fraction(25), _H264["all intra"]),
    ]
    films += [
        Recipe("libx265", suffix, gop, rate, _HEVC[gop])
        for gop in _HEVC
        for suffix, rate in (("mp4", Fraction(24)), ("mkv", Fraction(25)), ("ts", Fraction(50)))
    ]
    films += [
        Recipe("mpeg2video", suffix, gop, Fraction(25), _MPEG[gop])
        for gop in _MPEG
        for suffix in ("mkv", "mpg", "ts", "mp4")
        # FFmpeg guesses the times of small pictures that share a pack, up to two pictures off
        if suffix != "mpg" or gop == "no B"
    ]
    films += [
        Recipe("mpeg4", suffix, gop, rate, options)
        for gop, options in (("no B", {"g": "25"}), ("B", {"g": "25", "bf": "2"}))
        for suffix, rate in (("mkv", _NTSC), ("mp4", Fraction(25)), ("avi", Fraction(25)))
        if (gop, suffix) != ("B", "avi")
    ]
    films += [
        Recipe("libvpx-vp9", "webm", "alt-ref", Fraction(30), _VPX),
        Recipe("libvpx-vp9", "mp4", "alt-ref", _FILM, _VPX),
        Recipe("libvpx", "webm", "alt-ref", Fraction(30), _VPX | {"deadline": "realtime"}),
        Recipe(
            "libsvtav1",
            "mkv",
            "default",
            Fraction(25),
            {"preset": "12", "crf": "10", **_ONE_THREAD},
        ),
        Recipe(
            "libsvtav1",
            "mp4",
            "open",
            Fraction(30),
            {"preset": "12", "crf": "10", "g": "25", **_ONE_THREAD},
        ),
        Recipe("mpeg1video", "mpg", "no B", Fraction(25), _MPEG["no B"]),
        Recipe("mjpeg", "avi", "all intra", Fraction(25), pix_fmt="yuvj420p"),
        Recipe("mjpeg", "mov", "all intra", _NTSC, pix_fmt="yuvj420p"),
        Recipe("ffv1", "mkv", "intra", Fraction(25)),
        Recipe("ffv1", "mkv", "long", Fraction(25), {"g": "25"}),
        Recipe("prores_ks", "mov", "all intra", Fraction(24), pix_fmt="yuv422p10le"),
        Recipe("huffyuv", "avi", "all intra", Fraction(25), pix_fmt="yuv422p"),
        Recipe("utvideo", "avi", "all intra", Fraction(25)),
        Recipe("qtrle", "mov", "deltas", Fraction(15), pix_fmt="rgb24"),
        Recipe("png", "mov", "all intra", Fraction(12), pix_fmt="rgb24"),
        Recipe("gif", "gif", "deltas", Fraction(10), pix_fmt="rgb8"),
        Recipe("rawvideo", "nut", "all intra", Fraction(25)),
        Recipe("wmv2", "asf", "no B", Fraction(25), {"g": "25"}),
        Recipe("msmpeg4", "avi", "no B", Fraction(25), {"g": "25"}),
        Recipe("h263", "3gp", "no B", _NTSC, {"g": "25"}, size=(176, 144)),
        Recipe("flv", "flv", "no B", Fraction(25), {"g": "25"}),
        Recipe("snow", "nut", "wavelets", Fraction(25), {"g": "25", "strict": "-2"}),
        Recipe("jpeg2000", "mov", "all intra", Fraction(24), pix_fmt="rgb24"),
        Recipe("cinepak", "avi", "deltas", Fraction(15), pix_fmt="rgb24"),
        Recipe("svq1", "mov", "no B", Fraction(15), {"g": "25"}, pix_fmt="yuv410p"),
        Recipe("zmbv", "avi", "deltas", Fraction(15), {"g": "25"}, pix_fmt="bgr0"),
        Recipe("magicyuv", "avi", "all intra", Fraction(25)),
    ]
    return films


RECIPES = tuple(_recipes())
_QUICK = {
    "libx264-open-mkv-29.97", "libx264-open-mp4-25", "libx264-open-ts-50",
    "libx264-intra_refresh-mp4-25", "libx264-closed-mp4-25", "libx264-closed-flv-30",
    "libx265-open-mkv-25", "libx265-layers-mp4-24", "mpeg2video-open-mkv-25",
    "mpeg4-B-mkv-29.97", "libvpx-vp9-alt-ref-webm-30", "mjpeg-all_intra-avi-25",
    "libsvtav1-open-mp4-30",
}  # fmt: skip

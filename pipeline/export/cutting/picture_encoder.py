"""Encoders of pictures for clips: which one takes a film's pictures, and how.

High quality, since what is encoded again is short. Knows PyAV; no film and no bank.
"""

import os
from fractions import Fraction
from typing import Any

import av
from av.video.frame import PictureType

from pipeline.export.cutting.process_priority import own_priority

# codec of a film -> encoder, and options of a picture that cannot be told from the film's
_ENCODERS = {
    "h264": ("libx264", {"preset": "medium", "crf": "16"}),
    "hevc": ("libx265", {"preset": "fast", "crf": "16"}),
    "vp8": ("libvpx", {"crf": "6", "deadline": "good", "cpu-used": "2", "auto-alt-ref": "0"}),
    "vp9": ("libvpx-vp9", {"crf": "16", "deadline": "good", "cpu-used": "4", "auto-alt-ref": "0"}),
    "av1": ("libsvtav1", {"preset": "8", "crf": "18"}),
}
FALLBACK = "h264"
_QUIET = {"hevc": ("x265-params", "log-level=none")}
_VP8_BITS = 40_000_000  # a second at most: without a bound, libvpx takes 256,000
# bframes and b-pyramid by the number of pictures that a picture is decoded ahead of
_REORDERING = (("0", "0"), ("2", "0"), ("3", "1"))
_COLOURS = ("color_primaries", "color_trc", "colorspace", "color_range")


def codec_of(film: Any) -> str:
    """The codec of a film by its decoder, an av codec context: av1, also of libdav1d."""
    name: str = film.codec.canonical_name
    return name


def can_encode(codec: str, pixels: str) -> bool:
    """Whether pictures of this codec and pixel format can be encoded as the same again."""
    if codec not in _ENCODERS:
        return False
    try:
        formats = av.codec.Codec(_ENCODERS[codec][0], "w").video_formats or []
    except av.codec.codec.UnknownCodecError:
        return False
    return pixels in {one.name for one in formats}


def encoder_name(codec: str) -> str:
    """The encoder of a codec. KeyError on a codec that `can_encode` does not know."""
    return _ENCODERS[codec][0]


def set_up(coder: Any, codec: str, film: Any, clock: Fraction, pixels: str) -> None:
    """Let an encoder take the pictures of a film. coder, film: av codec contexts, of the encoder
    and of the film. clock: seconds per tick of the pictures' times. pixels: their format."""
    coder.width, coder.height, coder.pix_fmt = film.width, film.height, pixels
    coder.time_base = clock
    if film.sample_aspect_ratio:
        coder.sample_aspect_ratio = film.sample_aspect_ratio
    for name in _COLOURS:
        setattr(coder, name, getattr(film, name))
    if codec in ("vp8", "vp9"):
        coder.bit_rate = _VP8_BITS if codec == "vp8" else 0
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder prints a page otherwise
    options = dict(_ENCODERS[codec][1])
    if codec in _QUIET:
        name, value = _QUIET[codec]
        options[name] = value
    coder.options = options


def joining_encoder(
    codec: str, film: Any, clock: Fraction, rate: Fraction, set_number: int
) -> "av.VideoCodecContext":
    """An encoder of pictures that stand beside a film's own: each keyframe comes with its parameter
    sets, and pictures are decoded as early before they are shown as the film's are. Matroska tells
    no decoding times, and FFmpeg guesses them from that.

    set_number: of the parameter sets, where the codec is H.264. rate: pictures per second, about.
    """
    coder = av.CodecContext.create(_ENCODERS[codec][0], "w")
    assert isinstance(coder, av.VideoCodecContext)
    set_up(coder, codec, film, clock, film.pix_fmt)
    coder.framerate = rate
    coder.gop_size = 600
    options = coder.options
    order = _REORDERING[min(film.reorder_depth, len(_REORDERING) - 1)]
    if codec == "h264":
        pyramid = order[1].replace("1", "normal").replace("0", "none")
        options["x264-params"] = (
            f"sps-id={set_number}:repeat-headers=1:bframes={order[0]}:b-pyramid={pyramid}"
        )
    elif codec == "hevc":
        options["x265-params"] += f":repeat-headers=1:bframes={order[0]}:b-pyramid={order[1]}"
    elif codec in ("vp8", "vp9"):
        options["lag-in-frames"] = "0"
    coder.options = options
    return coder


def encoded(coder: Any, frame: "av.VideoFrame | None") -> list[Any]:
    """The packets that an encoder gives for a picture; None: all that are left."""
    with own_priority():
        return list(coder.encode(frame))


def as_input(frame: "av.VideoFrame", ticks: int, clock: Fraction) -> "av.VideoFrame":
    """A decoded picture with the time that it has in the clip, in ticks of `clock`."""
    frame.pts, frame.time_base = ticks, clock
    frame.pict_type = PictureType.NONE  # else the encoder repeats the film's choice
    return frame

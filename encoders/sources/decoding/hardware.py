"""Decoding by a device of the machine, `source.hwaccel=`, through PyAV. Knows devices and codecs;
no file, and no sampling.

Only workers use it (span_workers.py). What they cannot decode without complaint is decoded again by
software, and a film whose first pictures come out otherwise is decoded by software alone.
"""

import av
from av.codec.hwaccel import HWAccel

from encoders.errors import UserError

NONE, AUTO = "none", "auto"
DEVICES = ("cuda",)
HWACCELS = (NONE, AUTO, *DEVICES)
MOST_SESSIONS = 4  # decoders of a device at once
_PLANAR = {"nv12": "yuv420p", "p010le": "yuv420p10le"}
COMPARED = 4  # pictures of a film that are compared with those of software


def check_hwaccel(hwaccel: str) -> None:
    """UserError for a value of source.hwaccel= that is none."""
    if hwaccel not in HWACCELS:
        raise UserError(f"source.hwaccel={hwaccel} is unknown; use one of {', '.join(HWACCELS)}")


def device_decoder(hwaccel: str, codec: str) -> HWAccel | None:
    """What opens a decoder of this codec on a device; None for software. UserError where a device
    was named, and is not there or does not know the codec.
    """
    for name in () if hwaccel == NONE else DEVICES if hwaccel == AUTO else (hwaccel,):
        accelerator = HWAccel(name, allow_software_fallback=False)
        try:
            accelerator.create(av.Codec(codec, "r"))
        except (av.FFmpegError, NotImplementedError, ValueError) as error:
            if hwaccel != AUTO:
                raise UserError(
                    f"source.hwaccel={name} finds no device here that decodes {codec} ({error}); "
                    f"use {AUTO}, which falls back to software, or leave it out"
                ) from error
        else:
            return accelerator
    return None


def planar(frame: av.VideoFrame) -> av.VideoFrame:
    """A picture that a device gave with interleaved colors, in the layout that software gives. It
    loses how it lies, so a film that lies otherwise fails the comparison.
    """
    layout = _PLANAR.get(frame.format.name)
    return frame if layout is None else frame.reformat(format=layout)

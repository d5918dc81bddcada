"""One small picture of a video file, as a JPEG. Knows no sampling rate and no bank."""

import io

import av

_SIDE = 320  # pixels, of the longer side at most
_SEEK_S = 1.0  # containers seek by decoding time: start a little before


def still(path: str, seconds: float) -> bytes | None:
    """JPEG of the picture at this second, or of the last one before the end.

    None if the file is gone or has no picture there.
    """
    try:
        with av.open(path) as file:
            stream = file.streams.video[0]
            zero = float((stream.start_time or 0) * (stream.time_base or 0))
            file.seek(int(max(seconds - _SEEK_S, 0) * av.time_base))
            picture = None
            for frame in file.decode(stream):
                picture = frame
                if frame.time is not None and frame.time - zero >= seconds - 1e-3:
                    break
            if picture is None:
                return None
            image = picture.to_image()
    except (OSError, av.FFmpegError, IndexError):
        return None
    image.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()

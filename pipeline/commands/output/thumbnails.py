"""Thumbnails of moments, from the files that a bank was made of. Knows no search and no page."""

import base64
from collections.abc import Mapping, Sequence

from encoders.schema import VideoInfo
from memory.retrieval.fusion import Moment


class Thumbnails:
    """A small picture of each moment, as a JPEG in base64.

    `notes` says which videos have none: a file that is gone, or that is another one now.
    """

    def __init__(self, moments: Sequence[Moment], videos: Mapping[str, VideoInfo]) -> None:
        """videos: by their ids."""
        self._moments, self._videos = moments, videos
        self._pictures: dict[str, dict[float, bytes | None]] = {}  # of a video, by the second
        self.notes: list[str] = []  # what the user must know, of the videos so far

    def of(self, moment: Moment) -> str | None:
        """The picture of a moment; None without one."""
        if moment.video_id not in self._pictures:
            self._pictures[moment.video_id] = self._of_video(moment.video_id)
        jpeg = self._pictures[moment.video_id].get(moment.at)
        return None if jpeg is None else base64.b64encode(jpeg).decode()

    def _of_video(self, video_id: str) -> dict[float, bytes | None]:
        """All pictures of a video at once, as its file is scanned for them."""
        from encoders.sources.identity import why_not_file  # these load a decoder of films
        from encoders.sources.still import stills

        path = self._videos[video_id].path
        obstacle = why_not_file(video_id, path)
        if obstacle:
            self.notes.append(f"there are no thumbnails, as {obstacle}")
            return {}
        seconds = sorted({each.at for each in self._moments if each.video_id == video_id})
        return dict(zip(seconds, stills(path, seconds), strict=True))

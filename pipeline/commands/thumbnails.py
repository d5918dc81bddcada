"""Thumbnails of moments, from the files that a bank was made of. Knows no search and no page."""

import base64
from collections.abc import Mapping

from encoders.schema import VideoInfo
from encoders.sources.identity import why_not_file
from encoders.sources.still import still


class Thumbnails:
    """Small pictures of videos, as JPEGs in base64.

    `notes` says which videos have none: a file that is gone, or that is another one now.
    """

    def __init__(self, videos: Mapping[str, VideoInfo]) -> None:
        """videos: by their ids."""
        self._videos = videos
        self._reasons: dict[str, str] = {}  # why a video has none, by its id; "" if it has some

    def at(self, video_id: str, seconds: float) -> str | None:
        """The picture at this second; None without one."""
        path = self._videos[video_id].path
        if video_id not in self._reasons:
            self._reasons[video_id] = why_not_file(video_id, path)
        if self._reasons[video_id]:
            return None
        jpeg = still(path, seconds)
        return None if jpeg is None else base64.b64encode(jpeg).decode()

    @property
    def notes(self) -> list[str]:
        """What the user must know of the videos so far."""
        return [f"there are no thumbnails, as {why}" for why in self._reasons.values() if why]

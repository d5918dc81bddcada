"""The folder that takes the clips of agents, and the clips in it that a client may read."""

import threading
from pathlib import Path

from mcp import types

from encoders.errors import UserError
from memory.storage.catalog import VideoRow
from pipeline.export.clip import Clip
from pipeline.export.moment_clips import check_folder, free_path, write_moment
from pipeline.export.moment_list import ListedMoment

_MIME = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime"}
_READABLE_BYTES = 32 * 10**6  # a larger clip is linked alone, as base64 would fill a client


class ClipFolder:
    """Cuts clips. Only those of this process can be read through it. Threads: any."""

    def __init__(self, folder: str) -> None:
        """folder: made where it is not there; empty: no clips are cut. UserError where it cannot
        be."""
        self._folder = Path(folder).absolute() if folder else None
        self._links: dict[str, tuple[types.ResourceLink, Path]] = {}  # by address
        self._lock = threading.Lock()
        if self._folder is not None:
            check_folder(self._folder)
            self._folder.mkdir(exist_ok=True)

    @property
    def links(self) -> list[types.ResourceLink]:
        """The clips that were cut, oldest first."""
        with self._lock:
            return [link for link, _ in self._links.values()]

    def cut(
        self, video: VideoRow, start: float, end: float, *, exact: bool
    ) -> tuple[Clip, types.ResourceLink]:
        """Write a clip under a name that no file has. UserError as `cut_clip`."""
        if self._folder is None:
            raise UserError(
                "No clip can be cut, as this server has no folder for them; start it with "
                "--clips DIR"
            )
        info = video.info
        moment = ListedMoment(info.video_id, info.path, start, end)
        with self._lock:  # so that no two clips take one name
            path = free_path(moment, self._folder)
            clip = write_moment(moment, path, exact=exact)
            link = types.ResourceLink(
                uri=path.as_uri(),
                name=path.name,
                description=f"{clip.start:.3f} to {clip.end:.3f} s of {info.path}",
                mime_type=_MIME.get(path.suffix.lower(), "video/x-matroska"),
                size=clip.nbytes,
            )
            self._links[link.uri] = link, path
        return clip, link

    def read(self, uri: str) -> tuple[types.ResourceLink, bytes]:
        """A clip by its address. UserError where it is none of this process, or too large."""
        with self._lock:
            found = self._links.get(uri)
        if found is None:
            raise UserError(f"{uri} is no clip of this server; the tool clip cuts one")
        link, path = found
        if (link.size or 0) > _READABLE_BYTES:
            raise UserError(f"{uri} has {link.size} bytes, which is too much; read the file itself")
        if not path.is_file():
            raise UserError(f"{uri} is not there any more; cut it again")
        return link, path.read_bytes()

"""Whether a file is still the video that a bank was made of.

A path may lead to another file today: a recorder wrote `latest.mp4` again, or a relative path is
read in another folder. Words and pictures of such a file belong to another video.
"""

import re
from pathlib import Path

from encoders.schema import VideoPart
from encoders.sources.container import fingerprint

_FINGERPRINT = re.compile(r"[0-9a-f]{16}")


def why_not_file(video_id: str, path: str | Path) -> str:
    """Why the file at the path cannot stand for the video of a bank; "" if it can.

    Reads at most 1 MB. Ids that are no fingerprints, as of a caller's own sources, name no bytes:
    then it is enough that there is a file.
    """
    if "://" in str(path):
        return f"{path} is a stream, of which no file was kept"
    if not str(path) or not Path(path).is_file():
        return f"{path or 'the video'} is not there"
    name = VideoPart.parse(video_id).id
    try:
        is_other = bool(_FINGERPRINT.fullmatch(name)) and fingerprint(Path(path)) != name
    except OSError as error:
        return f"{path} cannot be read ({(error.strerror or str(error)).lower()})"
    return f"{path} is not the video that it was" if is_other else ""

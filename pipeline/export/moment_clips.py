"""Moments as files of their own: one, or many in a folder with a list beside them.

Knows films and moments; no bank, no search.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from encoders.errors import UserError
from pipeline.config.units import format_time
from pipeline.export import animation
from pipeline.export.clip import FORMATS, Clip, cut_clip
from pipeline.export.manifest import ExportedFile, Manifest
from pipeline.export.moment_list import ListedMoment

LIST = "clips.json"  # name of the list in the folder


@dataclass(frozen=True, slots=True)
class MomentClips:
    """The clips of a folder."""

    folder: Path
    clips: tuple[Clip, ...]
    notes: tuple[str, ...]  # about clips that could not be cut, or that lack something


def write_moment(
    moment: ListedMoment,
    path: Path,
    *,
    exact: bool = False,
    fps: float = animation.FPS,
    longest_side: int = animation.LONGEST_SIDE,
) -> Clip:
    """Write a moment to a path: its suffix decides between a film and pictures that repeat.

    exact: of a film; fps, longest_side: of pictures. UserError as `cut_clip` and `write_animation`.
    """
    film = Path(moment.path)
    if path.suffix.lower() in animation.FORMATS:
        return animation.write_animation(
            film, moment.start, moment.end, path, video_id=moment.video_id, fps=fps,
            longest_side=longest_side,
        )  # fmt: skip
    return cut_clip(film, moment.start, moment.end, path, video_id=moment.video_id, exact=exact)


def check_folder(folder: Path) -> None:
    """UserError where no clips can be written to a folder, before anything is encoded for them."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, and clips go to a folder; give another name")
    if not folder.absolute().parent.is_dir():
        raise UserError(f"{folder} is in a folder that is not there; make that first")


def cut_moments(
    moments: Sequence[ListedMoment], folder: Path, *, query: str, bank: str, exact: bool = False
) -> MomentClips:
    """Write a clip of each moment, 01_talk_00-31.mp4, and their list; the folder is made.

    A moment whose film is gone is named in the notes, and the others are cut. Files of the same
    names are replaced. UserError where no clip can be cut, or the folder cannot be made.
    """
    check_folder(folder)
    folder.mkdir(exist_ok=True)
    clips, rows, notes = list[Clip](), list[ExportedFile](), list[str]()
    for number, moment in enumerate(moments, 1):
        path = folder / f"{number:02d}_{clip_name(moment)}"
        try:
            clip = write_moment(moment, path, exact=exact)
        except UserError as error:
            notes.append(f"hit {number} has no clip: {str(error).rstrip('. ')}")
            continue
        clips.append(clip)
        rows.append(exported(moment, clip))
        notes += [f"{path.name}: {note}" for note in clip.notes]
    if moments and not clips:
        raise UserError(notes[0])
    Manifest(query, bank, rows).write(folder / LIST)
    return MomentClips(folder, tuple(clips), tuple(notes))


def clip_name(moment: ListedMoment) -> str:
    """A name that says film and time: talk_00-31.mp4."""
    film = Path(moment.path)
    suffix = film.suffix if film.suffix.lower() in FORMATS else ".mkv"
    at = format_time(math.floor(moment.start)).replace(":", "-")
    return f"{film.stem}_{at}{suffix}"


def free_path(moment: ListedMoment, folder: Path) -> Path:
    """A path in a folder that no file has: talk_00-31.mp4, then talk_00-31_1.mp4."""
    name, count = folder / clip_name(moment), 0
    path = name
    while path.exists():
        count += 1
        path = name.with_stem(f"{name.stem}_{count}")
    return path


def exported(moment: ListedMoment, clip: Clip) -> ExportedFile:
    """The row of a clip in a list."""
    return ExportedFile(
        clip.path.name,
        moment.path,
        moment.video_id,
        moment.start,
        moment.end,
        round(clip.start, 3),
        round(clip.end, 3),
        moment.score,
        moment.channels,
        moment.words,
    )

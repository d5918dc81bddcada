"""`reelbank clip`: a moment of a film as a file of its own.

Checks the settings and reports; pipeline/export/ cuts. Needs no bank and no model.
"""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

from encoders.errors import UserError
from pipeline.config.tasks.file_settings import ClipSettings
from pipeline.config.tasks.pipeline_settings import OutputFormat
from pipeline.config.units import format_span, parse_span
from pipeline.export.clip import Clip
from pipeline.export.manifest import Manifest, manifest_path
from pipeline.export.moment_clips import exported, free_path, write_moment
from pipeline.export.moment_list import ListedMoment, MomentList

_LATE_S = 0.05  # a clip that begins earlier than so much has more than the moment


def run(settings: ClipSettings) -> int:
    """reelbank clip."""
    moment, origin = _moment(settings)
    if not settings.widen >= 0:
        raise UserError(f"widen={settings.widen:g} is below 0; give seconds, 0 or more")
    path = Path(settings.out) if settings.out else free_path(moment, Path())
    if path.exists() and not settings.overwrite:
        raise UserError(f"{path} is there already; choose another name, or add --overwrite")
    start, end = max(moment.start - settings.widen, 0.0), moment.end + settings.widen
    clip = write_moment(
        replace(moment, start=start, end=end), path,
        exact=settings.exact, fps=settings.fps, longest_side=settings.longest_side,
    )  # fmt: skip
    if settings.manifest:
        manifest = Manifest(origin.query, origin.bank, [exported(moment, clip)])
        manifest.write(manifest_path(path))
    if settings.format == OutputFormat.json:
        print(json.dumps(asdict(clip) | {"path": str(clip.path), "source": moment.path}))
    else:
        print(clip_line(clip))
    if start - clip.start > _LATE_S:
        print(
            f"reelbank: the clip begins {start - clip.start:.1f} s before the moment, at a "
            "keyframe, as nothing is encoded again; --exact begins with it.",
            file=sys.stderr,
        )
    for note in clip.notes:
        print(f"reelbank: warning: {note}", file=sys.stderr)
    return 0


def clip_line(clip: Clip) -> str:
    """A clip in one line."""
    encoded = f", {clip.encoded} pictures encoded" if clip.encoded else ""
    size = f"{clip.nbytes / 1e6:.1f} MB" if clip.nbytes >= 1e5 else f"{clip.nbytes / 1e3:.0f} kB"
    return f"{clip.path}: {format_span(clip.start, clip.end)}, {size}{encoded}"


def _moment(settings: ClipSettings) -> tuple[ListedMoment, MomentList]:
    """The moment, and the search that it comes from. UserError where there is none."""
    if settings.video.startswith("@") and not Path(settings.video).exists():
        last = MomentList.last()
        moment = last.numbered(settings.video)
        if not settings.span:
            return moment, last
        start, end = parse_span("span", settings.span)
        return ListedMoment(moment.video_id, moment.path, start, end), last
    if not settings.span:
        raise UserError(
            f"Which moment of {settings.video}? Say it as in `reelbank clip {settings.video} "
            "0:31-0:45`, or give @1 for the first hit of the last search"
        )
    from encoders.sources.container import check_file, fingerprint

    film = Path(settings.video)
    check_file(film)
    start, end = parse_span("span", settings.span)
    return ListedMoment(fingerprint(film), str(film), start, end), MomentList("", "", ())

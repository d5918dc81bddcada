"""Moments as the timeline of a cutting program: EDL (CMX 3600), OpenTimelineIO, Final Cut Pro XML.

OpenTimelineIO writes them all. Each moment is a clip of its film, one after another, on a track of
pictures. Knows films by their rate; no bank, no search.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from encoders.extras import require_extra
from encoders.sources.container import inspect
from memory.storage.atomic import replacing
from pipeline.export.moment_list import ListedMoment

# suffix -> OpenTimelineIO's adapter
FORMATS = {".edl": "cmx_3600", ".otio": "otio_json", ".fcpxml": "fcpx_xml"}
# pictures per second that have an SMPTE timecode; the library's own search gives 0 for low ones
_TIMECODES = (24000 / 1001, 24.0, 25.0, 30000 / 1001, 30.0, 50.0, 60000 / 1001, 60.0)
_USUAL = 25.0  # pictures per second where no film says them


def write_edit_list(moments: Sequence[ListedMoment], path: Path, title: str) -> None:
    """Write the moments to a path; its suffix says the format. title: of the timeline.

    The rate is that of the first film: an EDL has one alone, and knows the usual ones. UserError
    where a film is gone, and where the format cannot hold its rate.
    """
    require_extra("edit", f"a file {path.suffix}")
    import opentimelineio as otio

    kind = FORMATS[path.suffix.lower()]
    films = {moment.path: inspect(Path(moment.path)) for moment in moments}
    rate = next((facts.rate for facts in films.values()), _USUAL)
    if kind != "otio_json":
        rate = min(_TIMECODES, key=lambda usual: abs(usual - rate))
    if kind == "fcpx_xml" and rate != round(rate):
        raise UserError(
            f"{path} cannot hold {rate:.2f} pictures per second, only whole numbers of them; use "
            "a name that ends with .otio"
        )
    track = otio.schema.Track("Pictures", kind=otio.schema.TrackKind.Video)
    for number, moment in enumerate(moments, 1):
        film = films[moment.path]
        track.append(_clip(moment, number, film.duration, rate))
    timeline = otio.schema.Timeline(title or "moments")
    timeline.tracks.append(track)
    options = {"rate": rate} if kind == "cmx_3600" else {}
    with replacing(path) as temporary:
        text = otio.adapters.write_to_string(timeline, kind, **options)
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _clip(moment: ListedMoment, number: int, seconds: float, rate: float) -> Any:
    """A moment as a clip of its film. seconds: length of the film. rate: of the timeline."""
    import opentimelineio as otio

    def ticks(at: float) -> Any:
        return otio.opentime.RationalTime(round(at * rate), rate)

    def span(start: float, end: float) -> Any:
        first = ticks(start)
        lasts = max(ticks(end) - first, otio.opentime.RationalTime(1, rate))
        return otio.opentime.TimeRange(first, lasts)

    film = Path(moment.path)
    source = otio.schema.ExternalReference(film.absolute().as_uri(), span(0.0, seconds))
    clip = otio.schema.Clip(f"{film.stem} {number}", source, span(moment.start, moment.end))
    clip.metadata["reelbank"] = {
        "video_id": moment.video_id,
        "start": moment.start,
        "end": moment.end,
        "words": moment.words,
    } | ({} if moment.score is None else {"score": moment.score})
    return clip

"""`reelbank sheet`: a contact sheet of a film, or of the moments of the last search or answer."""

import json
from pathlib import Path

from encoders.errors import UserError
from pipeline.config.tasks.file_settings import SheetSettings
from pipeline.config.tasks.pipeline_settings import OutputFormat
from pipeline.config.units import format_time
from pipeline.export.lists.contact_sheet import FORMATS, write_sheet
from pipeline.export.moment_list import ListedMoment, MomentList
from pipeline.export.text_file import check_target

HITS = "@"  # in place of a film


def run(settings: SheetSettings) -> int:
    """reelbank sheet."""
    is_of_hits = settings.video == HITS and not Path(HITS).exists()
    name = "hits" if is_of_hits else Path(settings.video).stem
    path = Path(settings.out or f"{name}_sheet.jpg")
    check_target(path, FORMATS, "a contact sheet")
    if is_of_hits:
        found = MomentList.last()
        title, moments = found.query, list(found.moments)
    else:
        title, moments = _of_film(settings)
    write_sheet(moments, path, title=title, columns=settings.columns, width=settings.width)
    if settings.format == OutputFormat.json:
        print(json.dumps({"path": str(path), "pictures": len(moments)}))
        return 0
    print(f"{path}: {len(moments)} picture{'' if len(moments) == 1 else 's'}")
    return 0


def _of_film(settings: SheetSettings) -> tuple[str, list[ListedMoment]]:
    """The title of a film, and the stretches that look alike."""
    from encoders.sources.container import inspect
    from pipeline.export.scene_times import scene_spans

    film = Path(settings.video)
    facts = inspect(film)
    if settings.count < 1:
        raise UserError(f"count={settings.count} shows nothing; use 1 or more")
    end = facts.end if settings.end is None else min(settings.end, facts.end)
    if not 0 <= settings.start < end:
        raise UserError(
            f"start={settings.start:g} leaves nothing of {film} up to {end:.1f} s; give an earlier "
            "start"
        )
    spans = scene_spans(film, settings.count, settings.start, settings.end)
    title = f"{film.name} ({format_time(facts.end)})"
    return title, [ListedMoment("", str(film), *span) for span in spans]

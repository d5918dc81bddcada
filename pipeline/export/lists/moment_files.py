"""A file of moments in the format that its suffix says: table, cues, timeline or contact sheet.

Knows moments and films; no bank, no search.
"""

from pathlib import Path

from encoders.errors import UserError
from encoders.extras import require_extra
from pipeline.export.lists import contact_sheet, edit_list, moment_table
from pipeline.export.manifest import ExportedFile, Manifest, manifest_path
from pipeline.export.moment_list import MomentList
from pipeline.export.text_file import check_target

FORMATS = (*moment_table.FORMATS, *edit_list.FORMATS, *contact_sheet.FORMATS)


def check_export(path: Path) -> None:
    """UserError where no moments can be written to a path, before they are searched."""
    check_target(path, FORMATS, "a file of moments")
    if path.suffix.lower() in edit_list.FORMATS:
        require_extra("edit", f"a file {path.suffix}")


def write_moments(found: MomentList, path: Path) -> None:
    """Write the moments of a search or an answer, and their list beside them. UserError where that
    cannot be."""
    check_export(path)
    suffix = path.suffix.lower()
    if not found.moments:
        raise UserError(f"There is nothing to write to {path}; find or ask something first")
    if suffix in edit_list.FORMATS:
        edit_list.write_edit_list(found.moments, path, found.query)
    elif suffix in contact_sheet.FORMATS:
        contact_sheet.write_sheet(found.moments, path, title=found.query)
    else:
        moment_table.write_table(found.moments, path, found.query)
        if suffix == ".json":
            return  # it is a list of its own
    rows = [
        ExportedFile(
            path.name, one.path, one.video_id, one.start, one.end, one.start, one.end,
            one.score, one.channels, one.words,
        )
        for one in found.moments
    ]  # fmt: skip
    Manifest(found.query, found.bank, rows).write(manifest_path(path))

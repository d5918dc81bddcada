"""What `--clips DIR` and `--export FILE` of find and ask write and say."""

import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.config.tasks.question_settings import AskSettings, FindSettings
from pipeline.export.moment_list import ListedMoment, MomentList


def check_files(settings: AskSettings | FindSettings) -> None:
    """UserError where clips or a file of moments cannot be written, before anything is encoded."""
    if settings.clips:
        from pipeline.export.moment_clips import check_folder  # it loads a muxer of films

        check_folder(Path(settings.clips))
    if settings.export:
        from pipeline.export.lists.moment_files import check_export

        check_export(Path(settings.export))


def report_files(
    moments: Sequence[ListedMoment], query: str, settings: AskSettings | FindSettings
) -> None:
    """Number the moments for later commands, and write the files that are asked for. UserError
    where one cannot be written."""
    found = MomentList.of(query, settings.bank, moments)
    found.save()
    if settings.clips and moments:
        report_clips(moments, query, settings)
    if settings.export and moments:
        from pipeline.export.lists.moment_files import write_moments

        write_moments(found, Path(settings.export))
        print(f"reelbank: the moments are in {settings.export}.", file=sys.stderr)


def report_clips(
    moments: Sequence[ListedMoment], query: str, settings: AskSettings | FindSettings
) -> None:
    """Write the clips, and say so on stderr. UserError where none can be cut."""
    from pipeline.export.moment_clips import LIST, cut_moments

    folder = Path(settings.clips)
    cut = cut_moments(moments, folder, query=query, bank=settings.bank, exact=settings.exact_clips)
    size = sum(clip.nbytes for clip in cut.clips) / 1e6
    count = f"{len(cut.clips)} clip{'' if len(cut.clips) == 1 else 's'}"
    print(f"reelbank: {count}, {size:.1f} MB, and {LIST} are in {folder}.", file=sys.stderr)
    for note in cut.notes:
        print(f"reelbank: warning: {note}", file=sys.stderr)

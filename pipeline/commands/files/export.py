"""`reelbank export`: the moments of the last search or answer as a file."""

import json
from pathlib import Path

from pipeline.config.tasks.file_settings import ExportSettings
from pipeline.config.tasks.pipeline_settings import OutputFormat
from pipeline.export.lists.moment_files import check_export, write_moments
from pipeline.export.moment_list import MomentList


def run(settings: ExportSettings) -> int:
    """reelbank export."""
    path = Path(settings.out)
    check_export(path)
    found = MomentList.last()
    write_moments(found, path)
    count = len(found.moments)
    if settings.format == OutputFormat.json:
        print(json.dumps({"path": str(path), "moments": count, "query": found.query}))
        return 0
    print(f'{path}: {count} moment{"" if count == 1 else "s"} of "{found.query}"')
    return 0

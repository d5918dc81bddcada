"""What names each video in a prompt, and in which order videos come. Knows the catalog; no prompt.

A video has the name of its file. Files of one name have their folders as well, as far as these
tell them apart; two videos of one path have their ids.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from memory.bank_catalog import BankCatalog
from memory.schema import VideoTitle
from memory.storage.catalog import VideoRow


def video_titles(
    catalog: BankCatalog, rows: Mapping[str, VideoRow], asked: Mapping[str, str] | None = None
) -> dict[str, VideoTitle]:
    """The title of each of several videos, by id; none for a single one. asked: the asker's own
    names, by id."""
    if len(rows) == 1:
        return {}
    asked = asked or {}
    names = video_names({each: asked.get(each, row.info.path) for each, row in rows.items()})
    return {each: VideoTitle(name, _began(catalog, each)) for each, name in names.items()}


def video_names(paths: Mapping[str, str]) -> dict[str, str]:
    """The shortest ends of paths that tell videos apart, by id. paths: by id; "" for a stream."""
    names = {each: Path(path).name or each for each, path in paths.items()}
    depth = 1
    while True:
        counts = Counter(names.values())
        same = [each for each, name in names.items() if counts[name] > 1]
        depth += 1
        if not same:
            return names
        for each in same:
            parts = Path(paths[each]).parts
            names[each] = each if len(parts) < depth else str(Path(*parts[-depth:]))


def _began(catalog: BankCatalog, video_id: str) -> str:
    """When a video began, where it knows that."""
    began = catalog.began(video_id, 0)
    return "" if began is None else f"{datetime.fromtimestamp(began):%A %Y-%m-%d %H:%M}"

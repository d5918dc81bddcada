"""The subtitles of one film of a batch: the file that its row names, in place of those beside it.

A row names a file where a benchmark keeps its subtitles in a folder of their own. A file that is
not there is a note: benchmarks have films without subtitles.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from encoders.text.subtitles import Subtitles
from pipeline.batch.schema import Job
from pipeline.ingest.ingester import Ingester


def with_subtitles(ingester: Ingester, jobs: Iterable[Job], video: str) -> tuple[Ingester, str]:
    """An ingester that reads the subtitles which the first of these jobs with any names for a
    video, and a note; the ingester itself where none does, or where no subtitles are asked for.
    """
    text = ingester.text
    job = next((job for job in jobs if job.subtitles and job.videos == (video,)), None)
    if job is None or not any(isinstance(each, Subtitles) for each in text.extractors):
        return ingester, ""
    if not Path(job.subtitles).is_file():
        return ingester, f"there are no subtitles {job.subtitles}."
    extractors = tuple(
        replace(each, path=job.subtitles, path_from=job.subtitles_from)
        if isinstance(each, Subtitles)
        else each
        for each in text.extractors
    )
    return replace(ingester, text=replace(text, extractors=extractors)), ""

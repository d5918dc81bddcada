"""What `ask` and `ingest` share: the parts of a run, and a video that goes into the bank."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from encoders.errors import UserError
from encoders.schema import FrameSource
from pipeline.commands.output.terminal import progress_bar
from pipeline.config import units
from pipeline.config.settings import IngestSettings
from pipeline.schema import IngestReport

if TYPE_CHECKING:
    from pipeline.qa import VideoQA


@contextmanager
def open_parts(settings: IngestSettings) -> Iterator[tuple["VideoQA", FrameSource]]:
    """The parts and the source of the video; closes the bank."""
    from encoders.sources.container import check_file

    check_file(Path(settings.video))  # refuses a wrong path before torch and a model load
    from pipeline.build import build_backbone, build_qa, build_source

    backbone = build_backbone(settings)
    source = build_source(settings, backbone)  # a file that is no video creates no bank
    qa = build_qa(settings, backbone)
    gc.freeze()  # imported and loaded objects stay; see cli.main
    gc.enable()
    try:
        yield qa, source
    finally:
        qa.bank.close()


def encode(settings: IngestSettings, qa: "VideoQA", source: FrameSource) -> IngestReport:
    """Encode what the bank lacks of the video, with a progress bar.

    UserError when the bank has the video with another began=.
    """
    row = qa.bank.catalog.video(source.info.video_id)
    if row is not None and qa.ingester.began is not None:
        _refuse_other_began(settings, qa, source.info.video_id)
    if row is not None and row.finished:
        return qa.ingest(source)
    with progress_bar(Path(settings.video).name, source.info.duration) as report:
        return qa.ingest(source, report)


def encode_or_read(
    settings: IngestSettings, qa: "VideoQA", source: FrameSource, asked_at: float
) -> tuple[str, float]:
    """Encode what the bank lacks of the video, unless another process writes the bank.

    asked_at: seconds of video time. -> what the user must know, and the moment of the question: the
    end of what is stored where that comes first. BankBusyError when nothing is stored yet.
    """
    from memory.storage.manifest import BankBusyError

    try:
        return encode(settings, qa, source).warning, asked_at
    except BankBusyError:
        video_id = source.info.video_id
        row, segments = qa.bank.catalog.video(video_id), qa.bank.catalog.segments(video_id)
        if row is None or not segments:
            raise
        end = segments[-1].end
        if row.finished:
            note = f"Another process writes bank {settings.bank}; text= and dense= were left out."
            return note, asked_at
        if asked_at < end:
            return "", asked_at  # all that the question may see is there
        note = (
            f"Another process is encoding into bank {settings.bank}; answered from the first "
            f"{end:.1f} s of the video."
        )
        return note, end


def _refuse_other_began(settings: IngestSettings, qa: "VideoQA", video_id: str) -> None:
    """UserError when the bank has another wall-clock start of the same file."""
    began = qa.bank.catalog.began(video_id, qa.bank.catalog.next(video_id)[0])
    if began != qa.ingester.began and qa.bank.catalog.segments(video_id):
        stored = "without began=" if began is None else f"with began={units.format_moment(began)}"
        raise UserError(
            f"began={settings.began} does not fit: {settings.video} is in bank {settings.bank} "
            f"{stored}; leave began= out, or encode into another bank=DIR"
        )

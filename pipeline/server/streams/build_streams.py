"""Settings -> the streams of a server. Knows sources and alerts; no HTTP."""

from pathlib import Path

from encoders.errors import UserError
from encoders.schema import DualEncoder
from pipeline.alerts.alert_center import AlertCenter
from pipeline.build import AnyModel, build_qa, build_thumbnail_maker
from pipeline.config.tasks.server_settings import ServeSettings
from pipeline.qa import VideoQA
from pipeline.server.admission import AdmissionQueue
from pipeline.server.streams.live_sources import LiveSources
from pipeline.server.streams.picture_shelf import PictureShelf
from pipeline.server.streams.stream_set import StreamSet
from pipeline.server.streams.stream_settings import read_streams


def build_sources(config: ServeSettings, backbone: AnyModel) -> LiveSources:
    """What makes the live sources of a server."""
    fit = backbone.frame_size_for if backbone.keeps_shape else None
    return LiveSources(backbone.frame_size, fit, build_thumbnail_maker(config), PictureShelf())


def build_streams(
    config: ServeSettings,
    backbone: AnyModel,
    clip: DualEncoder,
    qa: VideoQA,
    sources: LiveSources,
    questions: AdmissionQueue,
) -> StreamSet | None:
    """The streams of a server; None where it reads several banks, as nothing is written then.

    questions: where some wait, encoding is deferred. UserError on a file of streams that does not
    fit.
    """
    own = read_streams(Path(config.streams)) if config.streams else []
    if config.also_banks or qa.ingester.read_only:
        if own:
            raise UserError(
                f"streams={config.streams} needs a bank to write to: "
                f"{qa.ingester.read_only or 'leave also_banks= out'}"
            )
        return None
    return StreamSet(
        qa,
        open_bank=lambda bank, fps: build_qa(config.changed(bank=bank, fps=fps), backbone, clip),
        new_source=sources.of_url,
        new_alerts=lambda: AlertCenter.of(config),
        path=Path(f"{Path(config.bank)}-streams.json"),
        pictures=sources.pictures,
        own=own,
        running=config.running,
        is_deferred=lambda: questions.waiting > 0,
    )

"""Settings -> the streams of a server. Knows sources and alerts; no HTTP."""

from pathlib import Path

from encoders.errors import UserError
from encoders.schema import DualEncoder
from encoders.sources.live.url_source import UrlSource
from pipeline.alerts.alert_center import AlertCenter
from pipeline.build import AnyModel, build_qa, build_thumbnail_maker
from pipeline.config.tasks.server_settings import ServeSettings
from pipeline.qa import VideoQA
from pipeline.server.streams.stream_set import StreamSet
from pipeline.server.streams.stream_settings import StreamSettings, read_streams


def build_streams(
    config: ServeSettings, backbone: AnyModel, clip: DualEncoder, qa: VideoQA
) -> StreamSet | None:
    """The streams of a server; None where it reads several banks, as nothing is written then.
    UserError on a file of streams that does not fit."""
    own = read_streams(Path(config.streams)) if config.streams else []
    if config.also_banks or qa.ingester.read_only:
        if own:
            raise UserError(
                f"streams={config.streams} needs a bank to write to: "
                f"{qa.ingester.read_only or 'leave also_banks= out'}"
            )
        return None
    thumbnail, (width, height) = build_thumbnail_maker(config), backbone.frame_size

    def new_source(stream: StreamSettings, fps: float) -> UrlSource:
        source = UrlSource(stream.url, fps, width=width, height=height, name=stream.name)
        source.fit = backbone.frame_size_for if backbone.keeps_shape else None
        source.thumbnail = thumbnail
        return source

    return StreamSet(
        qa,
        open_bank=lambda bank, fps: build_qa(config.changed(bank=bank, fps=fps), backbone, clip),
        new_source=new_source,
        new_alerts=lambda: AlertCenter.of(config),
        path=Path(f"{Path(config.bank)}-streams.json"),
        own=own,
        running=config.running,
    )

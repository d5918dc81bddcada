"""Settings -> the streams of a server. Knows sources and alerts; no HTTP."""

from pathlib import Path

from encoders.errors import UserError
from encoders.schema import DualEncoder, FrameSource
from encoders.text.lines import TextExtractor
from pipeline.alerts.alert_center import AlertCenter
from pipeline.build import AnyModel, build_qa, build_thumbnail_maker, open_video
from pipeline.config.parts import check, instantiate
from pipeline.config.tasks.server_settings import ServeSettings
from pipeline.qa import VideoQA
from pipeline.server.admission import AdmissionQueue
from pipeline.server.streams.live_sources import LiveSources
from pipeline.server.streams.picture_shelf import PictureShelf
from pipeline.server.streams.stream_set import StreamSet
from pipeline.server.streams.stream_settings import (
    StreamSettings,
    extractor_nodes,
    read_streams,
)


def build_sources(config: ServeSettings, backbone: AnyModel) -> LiveSources:
    """What makes the live sources of a server."""
    fit = backbone.frame_size_for if backbone.keeps_shape else None

    def open_film(path: Path, fps: float, size: tuple[int, int]) -> FrameSource:
        return open_video(config.changed(fps=fps), backbone, str(path), size=size)

    return LiveSources(
        backbone.frame_size,
        fit,
        build_thumbnail_maker(config),
        PictureShelf(),
        open_film,
        config.bank,
    )


def build_words(config: ServeSettings, stream: StreamSettings) -> tuple[TextExtractor, ...]:
    """What finds the words of a stream, with the settings of the server where it has the same
    extractor. UserError where a package is missing."""
    nodes = extractor_nodes()
    extractors: list[TextExtractor] = []
    for name in stream.text:
        node = config.text.get(name) or nodes[name]
        # the pieces of all streams are read in one process (words/piece_reader.py)
        own = node | ({"workers": 0} if "workers" in node else {})
        check("text", {name: own})
        extractor: TextExtractor = instantiate(name, own)
        if why := extractor.missing():
            raise UserError(f"stream {stream.name}: text={name} cannot work here: {why}")
        extractors.append(extractor)
    return tuple(extractors)


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
        new_extractors=lambda stream: build_words(config, stream),
        new_alerts=lambda: AlertCenter.of(config),
        path=Path(f"{Path(config.bank)}-streams.json"),
        pictures=sources.pictures,
        own=own,
        running=config.running,
        is_deferred=lambda: questions.waiting > 0,
    )

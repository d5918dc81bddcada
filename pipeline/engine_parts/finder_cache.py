"""The finders of an engine, one for each choice of channels."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from encoders.errors import UserError
from pipeline.config.parts import call, check, instantiate
from pipeline.engine_parts.film_names import FilmNames
from pipeline.engine_parts.loaded_parts import LoadedParts, settle_collector

if TYPE_CHECKING:
    from encoders.models.backbone import Backbone
    from encoders.text.lines import SentenceEncoder
    from pipeline.answer.line_scan.schema import LineScan
    from pipeline.moments.finder import Finder
    from pipeline.moments.frame_channels import Embedders
    from pipeline.text_model import TextModel


class FinderCache:
    """Finders by their channels, built at the first search and kept until `close`."""

    def __init__(self, parts: LoadedParts, films: FilmNames) -> None:
        self._parts, self._films = parts, films
        self._sentence_encoder: SentenceEncoder | None = None
        # by the channels of a search; with what the user must know
        self._finders: dict[tuple[str, ...], tuple[Finder, str]] = {}

    def close(self) -> None:
        """Save the indexes of the banks that are searched."""
        for finder, _ in self._finders.values():
            finder.bank.close()
        self._finders = {}

    def check_settings(self, channels: Sequence[str] | None) -> None:
        """UserError on settings of a search that make no sense, before anything is loaded."""
        from pipeline.query.plan import CHANNELS, KV, PICTURE, is_picture

        settings = self._parts.settings.finding
        names = list(settings.channels if channels is None else channels)
        plain = {PICTURE if is_picture(name) else name for name in names}
        if not names or not plain <= {*CHANNELS, KV}:
            raise UserError(
                f"channels={names} are not known; use some of {', '.join((*CHANNELS, KV))}, or "
                "picture:conse for the pictures of one frame embedder"
            )
        if settings.late_lines < 0 or (settings.late_lines and not settings.dense):
            raise UserError(
                f"late_lines={settings.late_lines} needs to be 0 or more, and dense=minilm; "
                "leave it out"
            )
        if not 0 <= settings.picture_weight <= 1:
            raise UserError(
                f"picture_weight={settings.picture_weight:g} is no share; set it from 0 (the words "
                "alone) to 1"
            )
        check("planner", settings.planner)
        check("line_scan", settings.line_scan)
        if PICTURE in plain:
            check("clip", settings.clip)
            check("further_clips", settings.further_clips)

    def finder(self, channels: Sequence[str] | None, named: Sequence[str]) -> "tuple[Finder, str]":
        """The finder of these channels, and what the user must know about them."""
        settings = self._parts.settings.finding
        names = tuple(dict.fromkeys(settings.channels if channels is None else channels))
        with self._parts.lock:
            self._parts.refuse_closed()
            if names not in self._finders:
                self._finders[names] = self._build_finder(names, named)
                settle_collector()
            return self._finders[names]

    def _build_finder(
        self, channels: tuple[str, ...], named: Sequence[str]
    ) -> "tuple[Finder, str]":
        """named: videos that are refused, where the bank lacks them, before a model is loaded."""
        from memory.retrieval.uniform import UniformRetriever
        from pipeline.moments.finder import Finder
        from pipeline.moments.frame_channels import FrameChannels, frame_channels
        from pipeline.query.plan import is_picture, looks_at_frames
        from pipeline.sentence_encoder import build_sentence_encoder, fitting

        settings = self._parts.settings.finding
        if self._sentence_encoder is None:
            self._sentence_encoder = build_sentence_encoder(settings.dense)
        planner = call(
            "planner",
            instantiate("planner", settings.planner),
            model=self._text_model,
        )
        frames = FrameChannels(channels, UniformRetriever(), ())
        if any(map(looks_at_frames, channels)):
            self._films.ids(self._parts.reader, named)
            provenance = self._parts.reader.provenance
            frames = frame_channels(
                self._parts.settings.bank,
                provenance,
                channels,
                embedders=lambda: self._search_embedders(provenance.get("clip")),
                backbone=lambda: self._local_backbone,
                picture_weight=settings.picture_weight,
                instead=(
                    "search for words, with channels of words"
                    if all(map(is_picture, channels))
                    else "use channels without picture"
                ),
            )
        bank = self._parts.open(frames.retriever)
        finder = Finder(
            bank,
            frames.channels,
            fitting(self._sentence_encoder, bank.text),
            settings.late_lines,
            self._line_scan(),
            planner,
            frames.queries,
            frames.picture_names,
        )
        return finder, frames.note

    def _search_embedders(self, recorded: object) -> "Embedders":
        """The frame embedders of searches. recorded: fingerprint of the bank's primary one."""
        from pipeline.further_embedders import search_embedders

        return search_embedders(self._parts.settings.finding, self._parts.search_clip(recorded))

    def _line_scan(self) -> "LineScan | None":
        """What reads every line for a question; a model is loaded for it alone."""
        node = self._parts.settings.finding.line_scan
        if not node:
            return None
        from pipeline.build import build_line_scan

        return build_line_scan(node, self._parts.backbone)

    def _text_model(self) -> "TextModel":
        """The model as one that reads text alone."""
        from pipeline.build import text_model_of

        return text_model_of(self._parts.backbone)

    @property
    def _local_backbone(self) -> "Backbone":
        """The video-LLM for a search that computes with it. UserError for one elsewhere."""
        from pipeline.build import require_local

        return require_local(self._parts.backbone, "channels=[...,kv]")


def picture_channels(channels: Sequence[str]) -> list[str]:
    """Those of the channels that a picture is searched for in. UserError if there is none."""
    from pipeline.query.plan import is_picture

    pictures = [channel for channel in channels if is_picture(channel)]
    if not pictures:
        raise UserError(
            f"channels={list(channels)} hold no pictures, in which a picture is searched for; use "
            "channels=[picture], or leave channels= out"
        )
    return pictures


def vectors_note(finder: "Finder") -> str:
    """A note if some lines have no vectors."""
    bank = finder.bank
    if finder.sentence_encoder is None:
        return ""
    with_vectors, lines = bank.text.count_vectors()
    if with_vectors == lines:
        return ""
    return (
        f"{lines - with_vectors} of {lines} lines are searched by their words alone; `reelbank "
        f"ingest bank={bank.root} dense=...` gives them vectors"
    )

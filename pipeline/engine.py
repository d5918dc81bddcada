"""One bank with the parts of one configuration: videos go in, answers and moments come out.

Each part is built when it is first needed, and kept: a search without a backbone never loads one.
Commands, the prompt, the Python package and the resident process all go through it. Knows no
command line and prints nothing.
"""

import gc
import math
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from encoders.errors import UserError
from pipeline.config import units
from pipeline.config.compose import compose
from pipeline.config.parts import call, check, instantiate
from pipeline.config.settings import Settings
from pipeline.config.tasks.pipeline_settings import IngestSettings
from pipeline.config.tasks.question_settings import AskSettings, FindSettings

if TYPE_CHECKING:
    from encoders.models.backbone import Backbone
    from encoders.schema import DualEncoder, FrameSource, VideoInfo
    from encoders.text.lines import SentenceEncoder
    from memory.bank import MemoryBank
    from memory.resolution.schema import Resolution
    from memory.schema import Retriever
    from memory.storage.catalog import VideoRow
    from pipeline.build import AnyModel
    from pipeline.conversation.history import History
    from pipeline.ingest.ingester import Ingester, Progress
    from pipeline.live.session import Session
    from pipeline.moments.finder import Finder
    from pipeline.moments.frame_channels import Embedders
    from pipeline.moments.picture_query import PictureQuery
    from pipeline.moments.search import SearchResult
    from pipeline.qa import VideoQA
    from pipeline.runtime.cancel import Emit
    from pipeline.schema import Answer, IngestReport
    from pipeline.text_model import TextModel

    ShowProgress = Callable[[VideoInfo], AbstractContextManager[Progress]]

# settings that the tasks `ask` and `find` share; the others of each are its own
_SHARED = ("bank", "also_banks", "fps", "clip", "further_clips", "dense", "text", "backbone")

ALL = "*"  # in place of a video: every video of the bank

Kind = TypeVar("Kind", IngestSettings, FindSettings)


def _no_token(text: str) -> None:
    pass


def _no_progress(info: "VideoInfo") -> "AbstractContextManager[Progress]":
    return nullcontext(lambda seconds, nbytes: None)


class Engine:
    """`with Engine.of(settings) as engine: engine.ask("...", "talk.mp4")`.

    Threads: any. One of them encodes while another one asks or finds; of each kind, one at a time.
    Processes: another one may write whenever this one does not encode.
    """

    def __init__(
        self, *, asking: IngestSettings | None = None, finding: FindSettings | None = None
    ) -> None:
        """asking, finding: at least one of them. The other one is composed when it is needed, with
        the same bank and the same parts. What belongs to a single call, such as video= or top=, is
        not read from them."""
        assert asking is not None or finding is not None
        self._asking, self._finding = asking, finding
        # in this order where one thread takes several
        self._encode_lock, self._read_lock = threading.Lock(), threading.Lock()
        self._parts_lock = threading.RLock()
        self._is_closed = False
        self._backbone: AnyModel | None = None
        # what adds films to a bank that encodes on demand: a model without its weights
        self._shell: AnyModel | None = None
        self._indexer: VideoQA | None = None
        self._qa: VideoQA | None = None
        self._clip: DualEncoder | None = None
        self._sentence_encoder: SentenceEncoder | None = None
        self._plain: MemoryBank | None = None  # to look at; it searches nothing
        # by the channels of a search; with what the user must know
        self._finders: dict[tuple[str, ...], tuple[Finder, str]] = {}

    @classmethod
    def of(cls, settings: IngestSettings | FindSettings) -> "Engine":
        """An engine for the settings of a command."""
        if isinstance(settings, FindSettings):
            return cls(finding=settings)
        return cls(asking=settings)

    @classmethod
    def compose(cls, overrides: Sequence[str]) -> "Engine":
        """An engine for `key=value` overrides of `ask` and `find`, each given to the task that has
        the key. UserError on a mistake in any of them."""
        keys = {kind: {one.name for one in fields(kind)} for kind in (AskSettings, FindSettings)}
        own: dict[type[Settings], list[str]] = {AskSettings: [], FindSettings: []}
        for override in overrides:
            root = re.split(r"[.=]", override.lstrip("+~"))[0]
            kinds = [kind for kind in keys if root in keys[kind]] or [AskSettings]
            for kind in kinds:
                own[kind].append(override)
        return cls(
            asking=compose("ask", own[AskSettings]), finding=compose("find", own[FindSettings])
        )

    # ---- what it does

    @property
    def bank(self) -> str:
        """Folder of the bank; of several, all of them."""
        return ", ".join(self._roots)

    def add(
        self,
        path: str,
        show_progress: "ShowProgress" = _no_progress,
        *,
        start: float = 0.0,
        end: float | None = None,
        began: str = "",
        cancelled: threading.Event | None = None,
    ) -> "IngestReport":
        """Encode what the bank lacks of a video file. When this returns, all of it is durable.

        start, end: seconds of video time. began: wall-clock time of second 0, as in `ingest`.
        cancelled: once it is set, encoding stops behind the current segment and Cancelled is
        raised; a later call goes on from there. UserError when the file is no video, when the bank
        has it with another began=, or was made with other settings; BankBusyError when another
        process encodes.
        """
        with self._encode_lock:
            source = self._source(path, start, end, began)
            return self._encode(source, path, began, show_progress, cancelled)

    def ask(
        self,
        question: str,
        video: str | Sequence[str] = ALL,
        asked_at: float | None = None,
        on_token: "Emit" = _no_token,
        show_progress: "ShowProgress" = _no_progress,
        *,
        start: float = 0.0,
        end: float | None = None,
        began: str = "",
        cancelled: threading.Event | None = None,
        history: "History | None" = None,
        resolution: "Resolution | None" = None,
    ) -> "Answer":
        """Answer a question about a video, or about several together; a file that the bank lacks is
        encoded first.

        video: path of a file, or the id or former path of a video in the bank; several of these;
        ALL: every video of the bank. asked_at: second of each video after which nothing is used.
        on_token: gets the text in pieces. start, end, began: as in `add`. cancelled: once it is
        set, Cancelled is raised soon. history: earlier rounds, which the question may refer to; the
        answer is added. resolution: how many visual tokens of each frame are read, with
        reader=tokens (memory/resolution/); None: as the settings say.
        UserError as `add`, on an empty question or one from before the first
        frame, and on a follow-up that follows nothing.
        """
        from memory.schema import Question
        from pipeline.schema import check_question

        check_question(question)
        follow_up = None if history is None else history.resolve(question)
        if asked_at is not None and not asked_at >= 0:
            raise UserError(
                f"asked_at={asked_at:g} is before the video begins; "
                "give seconds of video time, 0 or more."
            )
        moment, note = math.inf if asked_at is None else asked_at, ""
        named = [video] if isinstance(video, str) else list(dict.fromkeys(video))
        ids: list[str] = self._every_id() if ALL in named else []
        for one in named if not ids else ():
            stored = None if Path(one).exists() else self._video_in_bank(one)
            if stored is None:
                with self._encode_lock:
                    source = self._source(one, start, end, began, asks=True)
                    ids.append(source.info.video_id)
                    remark, moment = self._encode_or_read(
                        source, one, began, moment, show_progress, cancelled
                    )
                    note = " ".join(filter(None, [note, remark]))
            else:
                ids.append(stored.info.video_id)
        if not ids:
            raise UserError("No video is named; give its path, or its id in the bank.")
        asked = Question(question, list(dict.fromkeys(ids)), moment, resolution=resolution)
        if history is not None and follow_up is not None:
            asked = history.carry(follow_up.about(asked))
        with self._read_lock:
            answer = self.qa.ask(asked, on_token, cancelled=cancelled)
        if history is not None:
            from pipeline.conversation.round import Round

            history.add(Round.of(answer))
        note = note.removeprefix(answer.warning).strip()  # both may have the remark on the file
        return replace(answer, warning=" ".join(filter(None, [answer.warning, note])))

    def find(
        self,
        query: str,
        video: str | Sequence[str] = "",
        *,
        start: float | None = None,
        end: float | None = None,
        asked_at: float | None = None,
        top: int = 10,
        widen: float = 0.0,
        channels: Sequence[str] | None = None,
        encode: bool = False,
        show_progress: "ShowProgress" = _no_progress,
        cancelled: threading.Event | None = None,
        picture: "PictureQuery | None" = None,
    ) -> "SearchResult":
        """The moments of one video, of several, or of the whole bank, that fit a few words best.

        video: id or path, or several; "": all. start, end, asked_at: seconds of video time, of each
        video. widen: seconds of context around each moment. channels: where to search; None: as the
        settings say. encode: a file that the bank lacks is encoded first, which loads the backbone.
        picture: what moments have to look like, beside the words, which may be "". cancelled: once
        it is set, Cancelled is raised between two steps. UserError on a request that makes no
        sense, and where the bank, a video or the picture is not there.
        """
        from pipeline.moments.search import SearchRequest, check_request, search
        from pipeline.runtime.cancel import unless_cancelled

        request = SearchRequest(query, (), start, end, asked_at, top, widen)
        check_request(request, has_picture=picture is not None)
        named = [video] if isinstance(video, str) else list(dict.fromkeys(video))
        named = [each for each in named if each]
        if asked_at is not None and not named:
            raise UserError("asked_at= is a second of a video; give video= as well")
        self._check_search(channels)
        if picture is not None:
            channels = _picture_channels(
                self.search_settings.channels if channels is None else channels
            )
        notes = []
        for each in named if encode else ():
            if self._lacks(each):
                with self._encode_lock:
                    source = self._source(each, 0.0, None, "")
                    note, _ = self._encode_or_read(
                        source, each, "", math.inf, show_progress, cancelled
                    )
                    notes.append(note)
        if picture is not None:
            request = replace(request, picture=picture.read(self.reader.catalog, self.video))
        with unless_cancelled(self._read_lock, cancelled):
            finder, note = self._finder(channels, named)
            ids = dict.fromkeys(self._ids(finder.bank, named))
            notes += [note, _vectors_note(finder)]
            result = search(finder, replace(request, videos=tuple(ids)), cancelled)
        notes += result.notes
        return replace(result, notes=[each for each in notes if each])

    @contextmanager
    def stream(
        self, address: str, *, speed: float = 1.0, name: str | None = None
    ) -> "Iterator[Session]":
        """A live session that encodes a camera, a stream, or a file that is played, while its
        questions are answered.

        speed: of a file, in times real time. name: of a stream in the bank; None: made from its
        address. UserError as `add`.
        """
        from pipeline.build import build_live
        from pipeline.live.session import Session

        with self._encode_lock:
            settings = self.settings.changed(video=address)
            source = build_live(settings, self.backbone, speed=speed, name=name)
            try:
                with Session(self.qa, source) as session:
                    yield session
            finally:
                self.qa.bank.end_writing()

    def videos(self) -> "list[VideoRow]":
        """The videos of the bank, by id; none where there is no bank yet."""
        return self.reader.catalog.videos() if self._is_there() else []

    def video(self, video: str) -> "VideoRow":
        """The video of the bank that an id or a path means. UserError if there is none."""
        from pipeline.videos import find_video

        row = find_video(self.reader, video)
        if row is None:
            raise UserError("No video is named; give its path, or its id in the bank")
        return row

    def close(self) -> None:
        """Save the indexes and free the models. Waits for what runs."""
        with self._encode_lock, self._read_lock, self._parts_lock:
            self._is_closed = True
            banks = [finder.bank for finder, _ in self._finders.values()]
            banks += [self._plain] if self._plain is not None else []
            banks += [self._qa.bank] if self._qa is not None else []
            banks += [self._indexer.bank] if self._indexer is not None else []
            for bank in banks:
                bank.close()
            self._finders, self._plain, self._qa, self._backbone = {}, None, None, None
            self._shell = self._indexer = None

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- parts

    @property
    def settings(self) -> IngestSettings:
        """The settings of encoder and answers."""
        with self._parts_lock:
            if self._asking is None:
                self._asking = _with_parts(compose("ingest", []), self._finding)
            return self._asking

    @property
    def search_settings(self) -> FindSettings:
        """The settings of searches."""
        with self._parts_lock:
            if self._finding is None:
                self._finding = _with_parts(compose("find", []), self._asking)
            return self._finding

    @property
    def backbone(self) -> "AnyModel":
        """The video-LLM; loaded at the first use."""
        with self._parts_lock:
            self._refuse_closed()
            if self._backbone is None:
                from pipeline.build import build_backbone

                self._backbone = build_backbone(self.settings)
            return self._backbone

    @property
    def _local_backbone(self) -> "Backbone":
        """The video-LLM for a search that computes with it. UserError for one elsewhere."""
        from pipeline.build import require_local

        return require_local(self.backbone, "channels=[...,kv]")

    def _text_model(self) -> "TextModel":
        """The model as one that reads text alone."""
        from pipeline.build import text_model_of

        return text_model_of(self.backbone)

    @property
    def qa(self) -> "VideoQA":
        """Encoder and answers over the bank, which is made if it is not there."""
        with self._parts_lock:
            self._refuse_closed()
            if self._qa is None:
                from pipeline.build import build_qa
                from pipeline.frame_embedder import build_clip

                # the embedded model has an embedder of its own, whatever a search found with
                is_own = self.settings.backbone.get("questions") is not None
                backbone = self.backbone
                if is_own or self._clip is None:
                    self._clip = build_clip(self.settings)
                self._qa = build_qa(self.settings, backbone, self._clip)
                _settle_collector()
            return self._qa

    @property
    def _adding_model(self) -> "AnyModel":
        """The model that films are added with. A bank that encodes on demand needs none of its
        weights for that, unless they are loaded anyway."""
        from pipeline.config.checks import is_endpoint
        from pipeline.config.on_demand import encodes_on_demand
        from pipeline.config.tasks.pipeline_settings import AT_ONCE

        with self._parts_lock:
            self._refuse_closed()
            settings = self.settings
            needs_weights = settings.visual_tokens == AT_ONCE or is_endpoint(settings.backbone)
            if self._backbone is not None or needs_weights or not encodes_on_demand(settings):
                return self.backbone
            if self._shell is None:
                from pipeline.build import build_backbone

                self._shell = build_backbone(settings, weights=False)
            return self._shell

    @property
    def _ingester(self) -> "Ingester":
        """What adds films."""
        with self._parts_lock:
            model = self._adding_model
            if model is self._backbone:
                return self.qa.ingester
            if self._indexer is None:
                from pipeline.build import build_qa

                self._indexer = build_qa(self.settings, model)
                _settle_collector()
            return self._indexer.ingester

    @property
    def reader(self) -> "MemoryBank":
        """The bank, to look at. UserError if it is not there."""
        with self._parts_lock:
            self._refuse_closed()
            if self._qa is not None:
                return self._qa.bank
            if self._indexer is not None:
                return self._indexer.bank
            if self._plain is None:
                from memory.retrieval.uniform import UniformRetriever

                self._plain = self._open(UniformRetriever())
            return self._plain

    # ---- inside

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise UserError(f"bank {self.bank} was closed; open it again")

    @property
    def _roots(self) -> list[str]:
        """Folders of the banks."""
        settings = self._asking or self._finding
        assert settings is not None
        return [settings.bank, *settings.also_banks]

    def _is_there(self) -> bool:
        """Whether the folder of the bank has anything in it. Several must be there."""
        folder = Path(self._roots[0])
        is_empty = folder.is_dir() and not any(folder.iterdir())
        return len(self._roots) > 1 or (folder.exists() and not is_empty)

    def _open(self, retriever: "Retriever") -> "MemoryBank":
        from memory.union.bank_union import open_banks

        return open_banks(self._roots, None, retriever, recent_frames=0, create=False)

    def _source(
        self, path: str, start: float, end: float | None, began: str, *, asks: bool = False
    ) -> "FrameSource":
        """The frames of a file. A file that is no video creates no bank. asks: a question about it
        comes next, so the model is loaded anyway."""
        from encoders.sources.container import check_file

        check_file(Path(path))  # refuses a wrong path before torch and a model load
        if began:
            units.parse_moment("began", began)
        from pipeline.build import open_video

        model = self.backbone if asks else self._adding_model
        return open_video(self.settings, model, path, start=start, end=end)

    def _encode(
        self,
        source: "FrameSource",
        path: str,
        began: str,
        show_progress: "ShowProgress",
        cancelled: threading.Event | None,
    ) -> "IngestReport":
        from pipeline.runtime.cancel import raise_if_cancelled
        from pipeline.videos import follow_file

        bank, video_id = self._ingester.bank, source.info.video_id
        moment = units.parse_moment("began", began) if began else None
        ingester = replace(self._ingester, began=moment)
        row = bank.catalog.video(video_id)
        if row is not None and moment is not None:
            self._refuse_other_began(bank, path, began, moment, video_id)
        try:
            if row is not None and row.finished:
                with suppress(UserError):  # a bank that cannot be written now: the next time
                    follow_file(bank, row, Path(source.info.path))
            if row is not None and row.finished and not ingester.lacks_pictures(video_id):
                return self._all_encoded(ingester, ingester.ingest(source))
            with show_progress(source.info) as progress:
                if row is None or not row.finished:
                    progress(bank.catalog.next(video_id)[1], 0)  # where this pass begins

                def report(seconds: float, nbytes: int) -> None:
                    progress(seconds, nbytes)
                    raise_if_cancelled(cancelled)

                done = ingester.ingest(source, report)
                progress(done.video_seconds, done.nbytes)  # all of it is written
                return self._all_encoded(ingester, done)
        finally:
            bank.end_writing()

    def _all_encoded(self, ingester: "Ingester", done: "IngestReport") -> "IngestReport":
        """The report, once visual_tokens=at_once is done in a bank that encodes on demand."""
        from pipeline.config.tasks.pipeline_settings import AT_ONCE

        if ingester.on_demand is not None and self.settings.visual_tokens == AT_ONCE:
            missing = ingester.bank.encoding.missing(done.video_id)
            ingester.on_demand(done.video_id, missing)
        return done

    def _encode_or_read(
        self,
        source: "FrameSource",
        path: str,
        began: str,
        moment: float,
        show_progress: "ShowProgress",
        cancelled: threading.Event | None,
    ) -> tuple[str, float]:
        """Encode what the bank lacks of the video, unless another process writes the bank.

        moment: seconds of video time. -> what the user must know, and the moment of the question:
        the end of what is stored where that comes first. BankBusyError when nothing is stored yet.
        """
        from memory.storage.manifest import BankBusyError

        if len(self._roots) > 1:
            return self._read_only(source.info.video_id, path, moment)
        try:
            return self._encode(source, path, began, show_progress, cancelled).warning, moment
        except BankBusyError:
            catalog, video_id = self._ingester.bank.catalog, source.info.video_id
            row, segments = catalog.video(video_id), catalog.segments(video_id)
            if row is None or not segments:
                raise
            end = segments[-1].end
            if row.finished:
                note = (
                    f"Another process writes bank {self.bank}; text=, dense= and further clip= "
                    "were left out."
                )
                return note, moment
            if moment < end:
                return "", moment  # all that the question may see is there
            note = (
                f"Another process is encoding into bank {self.bank}; answered from the first "
                f"{end:.1f} s of the video."
            )
            return note, end

    def _read_only(self, video_id: str, path: str, moment: float) -> tuple[str, float]:
        """`_encode_or_read` where several banks are read as one. UserError for a film that none of
        them has."""
        catalog = self.reader.catalog
        row, segments = catalog.video(video_id), catalog.segments(video_id)
        if row is None or not segments:
            raise UserError(
                f"{path} is in none of the banks {self.bank}, and nothing is encoded into several; "
                f"`reelbank add {path} --bank {self._roots[0]}` encodes it"
            )
        end = segments[-1].end
        if row.finished or moment < end:
            return "", moment
        note = (
            f"{path} is not encoded to its end; answered from the first {end:.1f} s of the video."
        )
        return note, end

    def _refuse_other_began(
        self, bank: "MemoryBank", path: str, began: str, moment: float, video_id: str
    ) -> None:
        """UserError when the bank has another wall-clock start of the same file."""
        catalog = bank.catalog
        before = catalog.began(video_id, catalog.next(video_id)[0])
        if before != moment and catalog.segments(video_id):
            stored = (
                "without began=" if before is None else f"with began={units.format_moment(before)}"
            )
            raise UserError(
                f"began={began} does not fit: {path} is in bank {self.bank} {stored}; leave began= "
                "out, or encode into another bank=DIR"
            )

    def _every_id(self) -> list[str]:
        """The ids of all videos. UserError where there is none."""
        from pipeline.videos import every_id

        return every_id(self.videos(), self.bank)

    def _video_in_bank(self, video: str) -> "VideoRow | None":
        """The video of this id or former path; None where the bank has none."""
        from pipeline.videos import find_video

        if not self._is_there():
            return None
        rows = {row.info.video_id: row for row in self.reader.catalog.videos()}
        if video in rows:
            return rows[video]
        is_known = any(row.info.path == str(Path(video).absolute()) for row in rows.values())
        return find_video(self.reader, video) if is_known else None

    def _ids(self, bank: "MemoryBank", named: Sequence[str]) -> list[str]:
        """The videos to search; none: all. UserError if the bank lacks one of them."""
        from pipeline.videos import find_video

        rows = (find_video(bank, each) for each in named)
        return [row.info.video_id for row in rows if row is not None]

    def _lacks(self, video: str) -> bool:
        """Whether this is a file, or meant as one, of which the bank lacks something."""
        from pipeline.videos import has_all

        path = Path(video)
        if not path.is_file():
            return path.exists() or self._video_in_bank(video) is None
        return not (self._is_there() and has_all(self.reader, path, self.settings.text))

    def _check_search(self, channels: Sequence[str] | None) -> None:
        """UserError on settings of a search that make no sense, before anything is loaded."""
        from pipeline.query.plan import CHANNELS, KV, PICTURE, is_picture

        settings = self.search_settings
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
        if PICTURE in plain:
            check("clip", settings.clip)
            check("further_clips", settings.further_clips)

    def _finder(self, channels: Sequence[str] | None, named: Sequence[str]) -> "tuple[Finder, str]":
        """The finder of these channels, and what the user must know about them."""
        settings = self.search_settings
        names = tuple(dict.fromkeys(settings.channels if channels is None else channels))
        with self._parts_lock:
            self._refuse_closed()
            if names not in self._finders:
                self._finders[names] = self._build_finder(names, named)
                _settle_collector()
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

        settings = self.search_settings
        if self._sentence_encoder is None:
            self._sentence_encoder = build_sentence_encoder(settings.dense)
        planner = call(
            "planner",
            instantiate("planner", settings.planner),
            model=self._text_model,
        )
        frames = FrameChannels(channels, UniformRetriever(), ())
        if any(map(looks_at_frames, channels)):
            self._ids(self.reader, named)
            provenance = self.reader.provenance
            frames = frame_channels(
                self.bank,
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
        bank = self._open(frames.retriever)
        finder = Finder(
            bank,
            frames.channels,
            fitting(self._sentence_encoder, bank.text),
            settings.late_lines,
            planner,
            frames.queries,
            frames.picture_names,
        )
        return finder, frames.note

    def _search_embedders(self, recorded: object) -> "Embedders":
        """The frame embedders of searches. recorded: fingerprint of the bank's primary one."""
        from pipeline.frame_embedder import build_clip
        from pipeline.further_embedders import search_embedders

        if self._clip is None or self._clip.fingerprint() != recorded:
            self._clip = build_clip(self.search_settings)
        return search_embedders(self.search_settings, self._clip)


def _with_parts(own: Kind, other: IngestSettings | FindSettings | None) -> Kind:
    """The settings with the bank and the parts of another task."""
    values = {name: getattr(other, name) for name in _SHARED}
    # a search has a default of its own for dense=, which says nothing of how films are encoded
    if not values["dense"] or isinstance(own, FindSettings):
        del values["dense"]
    return own.changed(**{name: value for name, value in values.items() if value is not None})


def _picture_channels(channels: Sequence[str]) -> list[str]:
    """Those of the channels that a picture is searched for in. UserError if there is none."""
    from pipeline.query.plan import is_picture

    pictures = [channel for channel in channels if is_picture(channel)]
    if not pictures:
        raise UserError(
            f"channels={list(channels)} hold no pictures, in which a picture is searched for; use "
            "channels=[picture], or leave channels= out"
        )
    return pictures


def _vectors_note(finder: "Finder") -> str:
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


def _settle_collector() -> None:
    """Where a command switched the collector off to import faster: what was loaded stays."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()

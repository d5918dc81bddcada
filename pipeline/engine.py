"""One bank with the parts of one configuration: videos go in, answers and moments come out.

Each part is built when it is first needed, and kept: a search without a backbone never loads one.
Commands, the prompt, the Python package and the resident process all go through it. Knows no
command line and prints nothing.
"""

import math
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from encoders.errors import UserError
from pipeline.config.compose import compose
from pipeline.config.settings import Settings
from pipeline.config.tasks.pipeline_settings import IngestSettings
from pipeline.config.tasks.question_settings import AskSettings, FindSettings
from pipeline.engine_parts.engine_settings import EngineSettings
from pipeline.engine_parts.film_adder import FilmAdder
from pipeline.engine_parts.film_names import FilmNames
from pipeline.engine_parts.finder_cache import FinderCache, picture_channels, vectors_note
from pipeline.engine_parts.loaded_parts import LoadedParts

if TYPE_CHECKING:
    from encoders.schema import VideoInfo
    from memory.bank import MemoryBank
    from memory.encoded.bank_encoding import BeforeSegment
    from memory.resolution.schema import Resolution
    from memory.storage.catalog import VideoRow
    from pipeline.build import AnyModel
    from pipeline.conversation.history import History
    from pipeline.engine_parts.film_adder import ShowProgress
    from pipeline.ingest.ingester import Progress
    from pipeline.live.session import Session
    from pipeline.moments.picture_query import PictureQuery
    from pipeline.moments.search import SearchResult
    from pipeline.qa import VideoQA
    from pipeline.runtime.cancel import Emit
    from pipeline.schema import Answer, IngestReport

ALL = "*"  # in place of a video: every video of the bank


def _no_token(text: str) -> None:
    pass


def _no_progress(info: "VideoInfo") -> "AbstractContextManager[Progress]":
    return nullcontext(lambda seconds, nbytes: None)


def _no_progress_of_segments(done: int, of: int) -> None:
    pass


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
        settings = EngineSettings(asking, finding)
        self._parts = LoadedParts(settings)
        self._films = FilmNames(self._parts)
        self._adder = FilmAdder(self._parts)
        self._finders = FinderCache(self._parts, self._films)
        # in this order where one thread takes several
        self._encode_lock, self._read_lock = threading.Lock(), threading.Lock()

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
        return self._parts.settings.bank

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
            source = self._adder.source(path, start, end, began)
            return self._adder.encode(source, path, began, show_progress, cancelled)

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
        on_encode: "BeforeSegment" = _no_progress_of_segments,
    ) -> "Answer":
        """Answer a question about a video, or about several together; a file that the bank lacks is
        encoded first.

        video: path of a file, or the id or former path of a video in the bank; several of these;
        ALL: every video of the bank. asked_at: second of each video after which nothing is used.
        on_token: gets the text in pieces. start, end, began: as in `add`. cancelled: once it is
        set, Cancelled is raised soon. history: earlier rounds, which the question may refer to; the
        answer is added. resolution: how many visual tokens of each frame are read, with
        reader=tokens (memory/resolution/); None: as the settings say. on_encode: in a bank that
        encodes on demand, gets how many segments of how many are encoded for this question.
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
        ids: list[str] = self._films.every_id() if ALL in named else []
        for one in named if not ids else ():
            stored = None if Path(one).exists() else self._films.in_bank(one)
            if stored is None:
                with self._encode_lock:
                    source = self._adder.source(one, start, end, began, asks=True)
                    ids.append(source.info.video_id)
                    remark, moment = self._adder.encode_or_read(
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
        with self._read_lock, self.qa.bank.encoding.watched(on_encode):
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
        self._finders.check_settings(channels)
        if picture is not None:
            channels = picture_channels(
                self.search_settings.channels if channels is None else channels
            )
        notes = []
        for each in named if encode else ():
            if self._films.is_lacking(each):
                with self._encode_lock:
                    source = self._adder.source(each, 0.0, None, "")
                    note, _ = self._adder.encode_or_read(
                        source, each, "", math.inf, show_progress, cancelled
                    )
                    notes.append(note)
        if picture is not None:
            request = replace(request, picture=picture.read(self.reader.catalog, self.video))
        with unless_cancelled(self._read_lock, cancelled):
            finder, note = self._finders.finder(channels, named)
            ids = dict.fromkeys(self._films.ids(finder.bank, named))
            notes += [note, vectors_note(finder)]
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
        return self._films.rows()

    def video(self, video: str) -> "VideoRow":
        """The video of the bank that an id or a path means. UserError if there is none."""
        return self._films.row(video)

    def close(self) -> None:
        """Save the indexes and free the models. Waits for what runs."""
        with self._encode_lock, self._read_lock, self._parts.lock:
            self._finders.close()
            self._parts.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- parts

    @property
    def settings(self) -> IngestSettings:
        """The settings of encoder and answers."""
        return self._parts.settings.asking

    @property
    def search_settings(self) -> FindSettings:
        """The settings of searches."""
        return self._parts.settings.finding

    @property
    def backbone(self) -> "AnyModel":
        """The video-LLM; loaded at the first use."""
        return self._parts.backbone

    @property
    def qa(self) -> "VideoQA":
        """Encoder and answers over the bank, which is made if it is not there."""
        return self._parts.qa

    @property
    def reader(self) -> "MemoryBank":
        """The bank, to look at. UserError if it is not there."""
        return self._parts.reader

"""A bank from Python: `reelbank.open`, and the bank that it gives."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike, fspath
from typing import TYPE_CHECKING, Literal

from encoders.errors import UserError
from reelbank.records import Answer, Hits, Moment, Progress, Report, Video
from reelbank.stream import Stream
from reelbank.summary import Summary

if TYPE_CHECKING:
    from encoders.schema import VideoInfo
    from pipeline.engine import Engine
    from pipeline.engine_parts.film_adder import ShowProgress

VideoLike = str | PathLike[str] | Video


class Bank:
    """Films, and the models that read them. `reelbank.open` makes one.

    Use it as a context manager, or call `close`. Any number of threads may use it: one adds while
    another one asks or finds. Models are loaded by the first call that needs them and are kept.
    """

    def __init__(self, engine: "Engine") -> None:
        """Only for `reelbank.open`."""
        self._engine = engine

    @property
    def path(self) -> str:
        """Folder of the bank; of several, all of them."""
        return self._engine.bank

    @property
    def videos(self) -> tuple[Video, ...]:
        """The videos of the bank; none where there is no bank yet."""
        from reelbank.conversion import to_video

        return tuple(to_video(self._engine, row) for row in self._engine.videos())

    def add(
        self,
        path: str | PathLike[str],
        *,
        progress: Callable[[Progress], None] | None = None,
        start: float = 0.0,
        end: float | None = None,
    ) -> Report:
        """Encode a film into the bank, or what the bank lacks of it.

            bank.add("talk.mp4", progress=lambda done: print(f"{done.share:.0%}"))

        When this returns, all of it is on the disk. An interrupted call goes on where it stopped.

        progress: called at the beginning, after each segment (about 8 s of video), and at the end.
        start, end: seconds of a part that becomes a video of its own. Error when the file is no
        video, or when the bank was made with other settings.
        """
        from reelbank.conversion import to_report

        report = self._engine.add(fspath(path), _showing(progress), start=start, end=end)
        return to_report(self._engine, report)

    def ask(
        self,
        question: str,
        *,
        video: VideoLike | Sequence[VideoLike] | None = None,
        at: float | None = None,
        on_token: Callable[[str], None] | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> Answer:
        """Answer a question about a video, about several together, or about the whole bank.

            answer = bank.ask("What was the total?", video="talk.mp4")
            print(answer.text, [span.timecode for span in answer.spans])

        video: a file, which is added first where the bank lacks it, or a video of the bank or its
        id; a list of these; None: all videos of the bank. at: the second of each video after which
        nothing is used. on_token: gets the text in pieces while it is generated. Error on an empty
        question, and where there is no such video.
        """
        from reelbank.conversion import to_answer

        answer = self._engine.ask(
            question,
            _names(video),
            at,
            on_token or _ignore,
            _showing(progress),
        )
        return to_answer(self._engine, answer)

    def find(
        self,
        query: str = "",
        *,
        image: str | PathLike[str] | bytes | None = None,
        like: Moment | None = None,
        k: int = 10,
        video: VideoLike | Sequence[VideoLike] | None = None,
        start: float | None = None,
        end: float | None = None,
        at: float | None = None,
        channels: Sequence[str] | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> Hits:
        """The moments that fit a few words best. No language model is loaded, unless a film has to
        be encoded first.

            for hit in bank.find("the slide with the budget", k=3):
                hit.image().save(f"{hit.score:.4f}.jpg")
            bank.find("at night", image="photo.jpg")

        image: what moments look like: a picture or a short clip on the disk, or the bytes of a
        picture. like: a moment that others look like, such as a hit. With one of them, query may be
        "", and frames alone are searched. k: how many, at most. video: as in `ask`; None: the whole
        bank. start, end: seconds. at: the second of each of these videos after which nothing
        counts. channels: out of subtitle, speech, ocr, detection, object, label, caption, picture
        and kv; None: all but kv, which loads the language model. Error on an empty query, on what
        is no picture, and where there is no such video.
        """
        from reelbank.conversion import to_hits, to_picture

        if k < 1:
            raise UserError(f"k={k} finds nothing; use 1 or more")
        result = self._engine.find(
            query,
            "" if video is None else _names(video),
            start=start,
            end=end,
            asked_at=at,
            top=k,
            channels=channels,
            encode=True,
            show_progress=_showing(progress),
            picture=to_picture(image, like),
        )
        return to_hits(self._engine, result)

    def summary(
        self,
        video: VideoLike | None = None,
        *,
        when: str = "",
        query: str = "",
        start: float = 0.0,
        end: float | None = None,
        sentences: int | None = None,
        chapter_sentences: int = 2,
        shortest_chapter: float | None = None,
        method: Literal["auto", "extractive", "abstractive"] = "auto",
        progress: Callable[[Progress], None] | None = None,
    ) -> Summary:
        """Chapters of a film, and sentences that each name their moment.

            summary = bank.summary("talk.mp4")
            for chapter in summary.chapters:
                print(chapter.timecode, chapter.title, chapter.sentences[0].text)
            summary.write("report.html")

        Titles and sentences are words of the film (extractive), or the model writes a sentence of
        each chapter (abstractive); auto: the model writes where it reads text. A film without words
        has chapters of scenes.

        video: as in `ask`; None: all videos that `when` or `query` names, or the only one. when:
        words of time, such as "in the first half" or "yesterday". query: words to find; the moments
        that fit are the chapters. start, end: seconds of the film. sentences: of the overview;
        None: one for each chapter, 3 to 12. chapter_sentences: of each chapter, at most.
        shortest_chapter: seconds; None: 1/20 of the stretch, and 30 or more. Error where there is
        no such video, or where nothing is left of it.
        """
        from pipeline.config.tasks.question_settings import SummaryMethod
        from pipeline.summary.request import SummaryRequest, summarize
        from reelbank.conversion import to_summary

        request = SummaryRequest(
            "" if video is None else _name(video),
            when,
            query,
            start,
            end,
            shortest_chapter=shortest_chapter,
            sentences=sentences,
            chapter_sentences=chapter_sentences,
            method=SummaryMethod(method),
        )
        return to_summary(self._engine, summarize(self._engine, request, _showing(progress)))

    def stream(
        self, address: str | PathLike[str], *, speed: float = 1.0, name: str | None = None
    ) -> Stream:
        """A live stream that is encoded while questions about it are answered.

            with bank.stream("rtsp://camera/stream") as stream:
                stream.wait()
                print(stream.ask("Who is at the door?").text)

        address: rtsp, http, or HLS, a camera such as /dev/video0, or a film that is played. speed:
        of a film, in times real time. name: of a live source in the bank; None: made from its
        address.
        """
        return Stream(self._engine, fspath(address), speed, name)

    def close(self) -> None:
        """Save what makes the next start fast, and free the models."""
        self._engine.close()

    def __enter__(self) -> "Bank":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Bank({self.path!r})"


def _names(video: VideoLike | Sequence[VideoLike] | None) -> str | list[str]:
    """What the engine takes for one video, several, or all."""
    if video is None:
        return "*"
    if isinstance(video, str | PathLike | Video):
        return _name(video)
    return [_name(one) for one in video]


def open(
    path: str | PathLike[str] | Sequence[str | PathLike[str]] | None = None,
    *,
    model: str | None = None,
    fps: float | None = None,
    options: Sequence[str] = (),
) -> Bank:
    """A bank in a folder. The first `add` makes the folder.

        bank = reelbank.open("films", model="qwen3_vl_2b", options=["retriever=clip"])

    path: several folders: banks of one model that are read as one, and that `add` and `stream`
    refuse. None: the folder of REELBANK_BANK, else that of the user (~/.local/share/reelbank).
    model: a video-LLM by its name in `reelbank models`; None: the small one that ships with
    Reelbank and knows cards only. fps: frames that are read per second of video; None: 1. options:
    settings as on the command line, `key=value`. Error on an option that is not known.
    """
    from pipeline.config.overrides import list_override
    from pipeline.engine import Engine

    paths = [path] if isinstance(path, str | PathLike) else list(path or ())
    overrides = [f"bank={fspath(one)}" for one in paths[:1]]
    if paths[1:]:
        overrides.append(list_override("also_banks", [fspath(one) for one in paths[1:]]))
    overrides += [] if model is None else [f"backbone={model}"]
    overrides += [] if fps is None else [f"fps={fps}"]
    return Bank(Engine.compose([*overrides, *options]))


def _name(video: VideoLike) -> str:
    return video.id if isinstance(video, Video) else fspath(video)


def _ignore(text: str) -> None:
    pass


def _showing(progress: Callable[[Progress], None] | None) -> "ShowProgress":
    """The engine's way to tell progress."""

    @contextmanager
    def show(info: "VideoInfo") -> Iterator[Callable[[float, int], None]]:
        def report(seconds: float, nbytes: int) -> None:
            if progress is not None:
                progress(Progress(info.path, seconds, info.duration, nbytes))

        yield report

    return show

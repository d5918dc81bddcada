"""What agents can do with a bank: one method for each tool, each with a bounded reply.

Knows the engine; no protocol. A client names films of the bank, and nothing else on the disk; only
`add_video` takes a path, of a film below the roots.
"""

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcp import types

from encoders.errors import UserError
from memory.storage.catalog import VideoRow
from pipeline.agents.clip_folder import ClipFolder
from pipeline.agents.film_roots import FilmRoots
from pipeline.agents.schema import Reply, ReplyLimits, RunningCall
from pipeline.commands.ask import listed_moments
from pipeline.commands.find import snippet
from pipeline.engine import ALL, Engine
from pipeline.videos import by_path

if TYPE_CHECKING:
    from pipeline.moments.picture_query import PictureQuery

_LINES = 200  # of a stretch, in one reply


class Toolbox:
    """The tools over one engine. Threads: any, as the engine. Every refusal is a UserError."""

    def __init__(
        self, engine: Engine, roots: FilmRoots, clips: ClipFolder, limits: ReplyLimits
    ) -> None:
        self.clips = clips
        self._engine, self._roots, self._limits = engine, roots, limits

    def list_videos(self, words: str, first: int) -> Reply:
        """The films of the bank in the order of their paths, from number `first` (0: the first).

        words: that the path or the id has to hold; "": all films.
        """
        rows = [
            row
            for row in by_path(self._engine.videos())
            if words.casefold() in f"{row.info.path} {row.info.video_id}".casefold()
        ]
        some = rows[first : first + self._limits.items]
        values: dict[str, Any] = {"videos": [self._facts(row) for row in some], "count": len(rows)}
        if first + len(some) < len(rows):
            values["next_first"] = first + len(some)
        return Reply(values)

    def add_video(self, path: str, call: RunningCall) -> Reply:
        """Encode what the bank lacks of a film below the roots."""
        film = self._roots.film(path)
        report = self._engine.add(str(film), call.show_progress, cancelled=call.cancelled)
        return Reply(
            {
                "video": report.video_id,
                "path": str(film),
                "seconds": round(report.video_seconds, 3),
                "newly_encoded_seconds": round(report.new_seconds, 3),
                "frames": report.frames,
                "lines": report.text_lines,
                **_remark(report.warning),
            }
        )

    def picture(self, image: str, video: str, second: float) -> "PictureQuery | None":
        """What moments have to look like: a picture below the roots, or a second of a film of the
        bank; None: neither is named."""
        if not image and not video:
            return None
        # it loads a decoder of films
        from pipeline.moments.picture_query import LikeMoment, PictureFile

        if image and video:
            raise UserError("image and like_video are two pictures; give one of them")
        if video:
            return LikeMoment(self._row(video).info.video_id, second, second)
        return PictureFile(self._roots.film(image, "picture"))

    def find(
        self,
        query: str,
        videos: Sequence[str],
        start: float | None,
        end: float | None,
        top: int,
        call: RunningCall,
        picture: "PictureQuery | None" = None,
    ) -> Reply:
        """The moments that fit a few words best, or a picture, or both; no videos: of all films."""
        result = self._engine.find(
            query,
            self._ids(videos),
            start=start,
            end=end,
            top=min(top, self._limits.items),
            cancelled=call.cancelled,
            picture=picture,
        )
        moments = [
            {
                "video": moment.video_id,
                "path": result.paths[moment.video_id],
                "start": round(moment.start, 3),
                "end": round(moment.end, 3),
                "frame_at": round(moment.at, 3),
                "score": round(moment.score, 5),
                "channels": list(moment.channels),
                "words": snippet(moment),
            }
            for moment in result.moments
        ]
        return Reply({"moments": moments, **_remark(" ".join(result.notes))})

    def ask(
        self, question: str, videos: Sequence[str], asked_at: float | None, call: RunningCall
    ) -> Reply:
        """An answer with the moments that it rests on; no videos: from all films."""
        answer = self._engine.ask(
            question, self._ids(videos) or [ALL], asked_at, cancelled=call.cancelled
        )
        moments = listed_moments(answer, self._engine)[: self._limits.items]
        lines = [
            {"start": line.start, "end": line.end, "kind": line.channel, "text": line.text}
            for line in answer.lines
        ]
        room = self._limits.letters - len(answer.text)
        return Reply(
            {
                "answer": answer.text[: self._limits.letters],
                "shown": answer.shown,
                "moments": [
                    {
                        "video": moment.video_id,
                        "path": moment.path,
                        "start": round(moment.start, 3),
                        "end": round(moment.end, 3),
                    }
                    for moment in moments
                ],
                "lines": lines[: _fitting(lines, self._limits.items, room)],
                **_remark(answer.warning),
            }
        )

    def read_lines(self, video: str, start: float, end: float, kinds: Sequence[str]) -> Reply:
        """What is said and written in a stretch, in the order of time. kinds: none: all."""
        if not 0 <= start < end:
            raise UserError(
                f"The stretch from {start:g} s to {end:g} s is none; give two seconds, the first "
                "one below the second"
            )
        row = self._row(video)
        every = [
            {"start": line.start, "end": line.end, "kind": line.kind, "text": line.text}
            for line in self._engine.reader.text.during(row.info.video_id, start, end)
            if not kinds or line.kind in kinds
        ]
        every.sort(key=lambda line: (line["start"], line["end"]))
        lines = every[: _fitting(every, _LINES, self._limits.letters)]
        values: dict[str, Any] = {"video": row.info.video_id, "lines": lines, "count": len(every)}
        if len(lines) < len(every):
            values["next_start"] = every[len(lines)]["start"]
        return Reply(values)

    def frame(self, video: str, second: float, pixels: int) -> Reply:
        """The picture that is shown at a second, as a JPEG."""
        from pipeline.picture_source import PictureSource  # it loads a decoder of films

        row = self._row(video)
        catalog = self._engine.reader.catalog
        length = max(catalog.duration(row), row.info.duration)
        if not 0 <= second < length:
            raise UserError(
                f"{second:g} s is outside of {row.info.path}; give a second from 0 to {length:.1f}"
            )
        side = min(pixels, self._limits.pixels)
        pictures = PictureSource(catalog).at(row.info.video_id, [second], side)
        jpeg = pictures.files[0]
        if jpeg is None:
            raise UserError(
                f"There is no picture of {second:g} s, as {pictures.obstacle or 'none is stored'}; "
                "add the film again where it is"
            )
        image = types.ImageContent(data=base64.b64encode(jpeg).decode(), mime_type="image/jpeg")
        note = "" if not pictures.stored else f"a stored thumbnail, as {pictures.obstacle}"
        return Reply({"video": row.info.video_id, "second": second, **_remark(note)}, (image,))

    def clip(self, video: str, start: float, end: float, exact: bool) -> Reply:
        """A stretch of a film as a file of its own, with a link to it."""
        if end - start > self._limits.clip_seconds:
            raise UserError(
                f"A clip has at most {self._limits.clip_seconds:g} s, and these are "
                f"{end - start:g}; give a shorter stretch"
            )
        row = self._row(video)
        clip, link = self.clips.cut(row, start, end, exact=exact)
        values = {
            "video": row.info.video_id,
            "file": str(clip.path),
            "start": round(clip.start, 3),
            "end": round(clip.end, 3),
            "nbytes": clip.nbytes,
        }
        return Reply(values | _remark("; ".join(clip.notes)), (link,))

    # ---- inside

    def _ids(self, videos: Iterable[str]) -> list[str]:
        """The ids of films of the bank. UserError as `_row`, and on an empty bank."""
        if not self._engine.videos():
            raise UserError("The bank has no film yet; add_video takes one up")
        return list(dict.fromkeys(self._row(video).info.video_id for video in videos))

    def _row(self, video: str) -> VideoRow:
        """The film of the bank with this id, path, or name. Looks at no file.

        UserError where there is none, or more than one.
        """
        rows = self._engine.videos()
        for fits in (
            [row for row in rows if row.info.video_id == video],
            [row for row in rows if row.info.path == video],
            [row for row in rows if video and Path(row.info.path).name == video],
        ):
            if len(fits) == 1:
                return fits[0]
            if fits:
                ids = ", ".join(row.info.video_id for row in fits[: self._limits.items])
                raise UserError(f"{video} is {len(fits)} films of the bank; give an id: {ids}")
        raise UserError(
            f"{video or 'A film without a name'} is not in the bank; list_videos says what is, and "
            "add_video takes up a film"
        )

    def _facts(self, row: VideoRow) -> dict[str, Any]:
        bank, video_id = self._engine.reader, row.info.video_id
        segments = bank.catalog.segments(video_id)
        return {
            "video": video_id,
            "path": row.info.path,
            "seconds": round(segments[-1].end, 3) if segments else 0.0,
            "finished": row.finished,
            "lines": {run.extractor: run.lines for run in bank.text.runs(video_id)},
        }


def _remark(text: str) -> dict[str, str]:
    return {"note": text} if text else {}


def _fitting(lines: Sequence[dict[str, Any]], count: int, letters: int) -> int:
    """How many of the first lines have room; a single line that is too long is cut."""
    fitting = 0
    for line in lines[:count]:
        if len(line["text"]) > letters:
            if not fitting:
                line["text"] = line["text"][: max(letters, 0)]
                fitting = 1
            break
        letters -= len(line["text"])
        fitting += 1
    return fitting

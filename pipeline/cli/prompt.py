"""The prompt: ask and find, one line after another, with models that stay loaded.

A line is a question about the film, or words to find in the bank; lines with / are commands. Lines
may come from a script: then nothing is prompted, and the exit code is 2 where one of them failed.
"""

import gc
import shlex
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from encoders.errors import UserError
from pipeline.cli.line_reader import LineReader
from pipeline.cli.player import open_at
from pipeline.config.units import format_span, format_time
from pipeline.export.moment_list import ListedMoment, MomentList

if TYPE_CHECKING:
    from pipeline.commands.output.encoding_messages import EncodingMessages
    from pipeline.conversation.history import History
    from pipeline.engine import Engine
    from pipeline.moments.search import SearchResult
    from pipeline.schema import Answer

HELP = """a line         a question about the film; without a film, words to find in the bank
/ask QUESTION  asks about the film; without a film, about the one with the best moment
/find WORDS    finds moments in the film; without a film, in the whole bank
/ask, /find    alone: what a line without a command does from now on
/open N        opens hit N in a player, at its second
/clip N [FILE] writes hit N to a file of its own (.mp4, .mkv, .mov, .gif, .webp)
/film FILM     chooses a film: a file, its number in /films, or its id; alone: the whole bank
/films         lists the films of the bank
/add FILE      encodes a film into the bank
/help, /quit   Ctrl-C stops an answer, Ctrl-D leaves"""

_EXACT = " exact"  # behind the file of /clip
Result = TypeVar("Result")


def run(video: str | None, overrides: Sequence[str]) -> int:
    """Read lines until the end; the exit code. video: path of the film; None: the whole bank.

    overrides: `key=value` of `ask` and `find`. UserError on a mistake in them.
    """
    from pipeline.engine import Engine

    gc.enable()
    engine = Engine.compose(overrides)
    prompt = Prompt(engine, LineReader(sorted(COMMANDS)), video or "")
    try:
        return prompt.run()
    finally:
        prompt.close()


def run_command(words: Sequence[str], options: Mapping[str, str]) -> int:
    """reelbank prompt [FILM]: the prompt, also for the lines of a script."""
    return run(next(iter(words), None), [f"{key}={value}" for key, value in options.items()])


class Prompt:
    """Reads lines and does what they say."""

    def __init__(self, engine: "Engine", reader: LineReader, film: str) -> None:
        """film: path or id; "": the whole bank."""
        self.engine, self._reader = engine, reader
        self.film = film
        self.finds = not film  # what a line without a command does
        self.moments: list[ListedMoment] = []  # numbered from 1
        self.films: list[str] = []  # ids, as /films listed them
        # of the film that was asked about last
        self._history: tuple[str, History] | None = None
        self._quits = False

    def run(self) -> int:
        """Read and do until the end. Returns the exit code."""
        failures = 0
        if self._reader.is_terminal:
            print(f"bank {self.engine.bank}; a line {self._meaning()}, /help lists the commands")
            # torch takes seconds to import, and the first line takes a person longer to type
            threading.Thread(target=self._warm_up, name="warm-up", daemon=True).start()
        while not self._quits:
            try:
                failures += not self._do(self._reader.read(self._mark()).strip())
                sys.stdout.flush()
            except EOFError:
                if self._reader.is_terminal:
                    print()
                break
            except KeyboardInterrupt:  # drops what was typed
                if not self._reader.is_terminal:
                    raise
                print()
        return 2 if failures and not self._reader.is_terminal else 0

    def close(self) -> None:
        """Save the history, and close the bank."""
        self._reader.close()
        self.engine.close()

    def ask(self, question: str) -> None:
        """Ask about the film, or about the one where the best moment is."""
        from pipeline.commands.output.terminal import format_answer

        video = self.film or self._only_film() or self._best_film(question)
        streams = self._reader.is_terminal

        def emit(text: str) -> None:
            if streams:
                print(text, end="", flush=True)

        try:
            answer: Answer = self._interruptible(
                lambda cancelled: self.engine.ask(
                    question,
                    video,
                    None,
                    emit,
                    self._show_progress,
                    cancelled=cancelled,
                    history=self._history_of(video),
                    on_encode=self._show_progress.show_segments,
                )
            )
        except BaseException:
            if streams:
                print()
            raise
        print("" if streams else answer.text)
        path = self.engine.video(answer.video_id).info.path
        self.moments = [ListedMoment(answer.video_id, path, *span) for span in answer.spans]
        self._list_moments(question)
        print(format_answer(answer))
        for number, one in enumerate(self.moments, 1):
            print(f"{number:2}  {format_span(one.start, one.end)}")

    def find(self, words: str) -> None:
        """Find moments, and number them."""
        from pipeline.commands.find import snippet

        if not self.film:
            self._only_film()  # refuses an empty bank
        result: SearchResult = self._interruptible(
            lambda cancelled: self.engine.find(
                words,
                self.film,
                encode=True,
                show_progress=self._show_progress,
                cancelled=cancelled,
            )
        )
        for note in result.notes:
            print(f"reelbank: warning: {note}", file=sys.stderr)
        self.moments = []
        for number, moment in enumerate(result.moments, 1):
            path = result.paths[moment.video_id]
            self.moments.append(ListedMoment(moment.video_id, path, moment.start, moment.end))
            cells = (
                f"{number:2}",
                format_span(moment.start, moment.end, hours="always"),
                "+".join(moment.channels),
                f"{moment.score:.4f}",
                snippet(moment),
                "" if self.film else Path(path).name,
            )
            print("  ".join(filter(None, cells)))
        self._list_moments(words)
        if not self.moments:
            print("nothing found")

    def open(self, words: str) -> None:
        """Open a numbered moment in a player."""
        from encoders.sources.identity import why_not_file

        moment = self._numbered(words, "/open")
        obstacle = why_not_file(moment.video_id, moment.path)
        if obstacle:
            raise UserError(f"Nothing can be opened, as {obstacle}; put the film back there")
        player = open_at(Path(moment.path), moment.start)
        at = f"{moment.path} at {format_time(moment.start)} ({moment.start:.1f} s)"
        print(f"{player} opens {at}" if player else f"no player is here; it is in {at}")

    def clip(self, words: str) -> None:
        """Write a numbered moment to a file."""
        from pipeline.commands.files.clip import clip_line
        from pipeline.export.moment_clips import free_path, write_moment

        number, _, name = words.partition(" ")
        name, exact = name.removesuffix(_EXACT), name.endswith(_EXACT)
        moment = self._numbered(number, "/clip")
        path = _unquoted(name) if name.strip() else free_path(moment, Path())
        if name.strip() and path.exists():
            raise UserError(f"{path} is there already; choose another name")
        clip = write_moment(moment, path, exact=exact)
        print(clip_line(clip))
        if moment.start - clip.start > 0.05:
            print(
                "it begins at the keyframe before, as nothing is encoded again; "
                f"/clip {number} FILE exact begins with the moment"
            )
        for note in clip.notes:
            print(f"warning: {note}")

    def choose_film(self, words: str) -> None:
        """Choose a film, or the whole bank."""
        if not words:
            self.film, self.finds = "", True
        elif words.isdecimal() and not Path(words).exists():
            if not self.films:
                self._list()
            if not 1 <= int(words) <= len(self.films):
                raise UserError(f"There is no film {words}; /films lists {len(self.films)} of them")
            self.film, self.finds = self.films[int(words) - 1], False
        else:
            path = _unquoted(words)
            if not path.is_file():
                self.film = self.engine.video(words).info.video_id
            else:
                self.film = str(path)
            self.finds = False
        print(f"a line {self._meaning()}")

    def list_films(self, words: str) -> None:
        """Print the films of the bank with their numbers."""
        for number, (path, seconds, is_finished) in enumerate(self._list(), 1):
            state = "" if is_finished else "  incomplete"
            print(f"{number:2}  {format_time(seconds, hours='always')}  {path}{state}")
        if not self.films:
            print("no film yet; /add FILE encodes one")

    def add(self, words: str) -> None:
        """Encode a film."""
        from pipeline.commands.ingest import print_report

        if not words:
            raise UserError("/add needs a file, as in /add talk.mp4")
        path = str(_unquoted(words))
        report = self._interruptible(
            lambda cancelled: self.engine.add(path, self._show_progress, cancelled=cancelled)
        )
        print_report(self.engine.settings.changed(video=path), report)
        self.film, self.finds = path, False

    def help(self, words: str) -> None:
        """Print the commands."""
        print(HELP)

    def quit(self, words: str) -> None:
        """Leave."""
        self._quits = True

    # ---- inside

    def _do(self, line: str) -> bool:
        """Do what a line says. False where it failed."""
        from pipeline.runtime.cancel import Cancelled

        command, _, words = line.partition(" ") if line.startswith("/") else ("", "", line)
        try:
            if not line:
                return True
            if command in ("/ask", "/find") and not words.strip():
                self.finds = command == "/find"
                print(f"a line {self._meaning()}")
            elif not command:
                (self.find if self.finds else self.ask)(words)
            elif command in COMMANDS:
                COMMANDS[command](self, words.strip())
            else:
                raise UserError(f"There is no command {command}; /help lists all")
            return True
        except UserError as error:
            line = " ".join(str(error).splitlines()).rstrip(". ")
            print(f"reelbank: {line}.", file=sys.stderr)
        except OSError as error:
            where = f"{error.filename} " if error.filename else ""
            print(f"reelbank: {where}cannot be used: {error.strerror or error}.", file=sys.stderr)
        except Cancelled:
            print("stopped")
        return False

    def _interruptible(self, work: Callable[[threading.Event], Result]) -> Result:
        """The result of work in a thread of its own. Ctrl-C sets the event that the work gets, and
        Cancelled or the result comes soon."""
        from pipeline.runtime.cancel import Cancelled

        cancelled, results, errors = threading.Event(), list[Result](), list[BaseException]()

        def run() -> None:
            try:
                results.append(work(cancelled))
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run, name="work", daemon=True)
        thread.start()
        while thread.is_alive():
            try:
                thread.join()
            except KeyboardInterrupt:
                cancelled.set()
        if errors:
            raise errors[0]
        if cancelled.is_set():
            raise Cancelled
        return results[0]

    @property
    def _show_progress(self) -> "EncodingMessages":
        from pipeline.commands.output.encoding_messages import EncodingMessages

        return EncodingMessages(self.engine.settings)

    def _warm_up(self) -> None:
        with suppress(Exception):  # the line that needs the bank says what is wrong with it
            self.engine.videos()

    def _mark(self) -> str:
        name = Path(self._film_name()).name if self.film else ""
        return f"{'find' if self.finds else 'ask'}{' ' if name else ''}{name}> "

    def _meaning(self) -> str:
        where = self._film_name() if self.film else "the whole bank"
        return f"{'finds moments in' if self.finds else 'asks about'} {where}"

    def _history_of(self, video: str) -> "History":
        """The earlier rounds about a film; a question about another film begins anew."""
        from pipeline.build import build_rewriter
        from pipeline.config.tasks.question_settings import AskSettings
        from pipeline.conversation.history import History

        if self._history is None or self._history[0] != video:
            settings = self.engine.settings
            assert isinstance(settings, AskSettings)
            rewriter = build_rewriter(settings.follow_up, self.engine.backbone)
            bounds = settings.history_tokens, settings.tell_rounds
            self._history = video, History(self.engine.backbone, *bounds, rewriter)
        return self._history[1]

    def _film_name(self) -> str:
        if Path(self.film).is_file():
            return self.film
        return next(
            (row.info.path for row in self.engine.videos() if row.info.video_id == self.film),
            self.film,
        )

    def _list(self) -> list[tuple[str, float, bool]]:
        """Path, seconds and state of each film; remembers their ids."""
        rows = self.engine.videos()
        self.films = [row.info.video_id for row in rows]
        duration = self.engine.reader.catalog.duration if rows else None
        return [(row.info.path, duration(row), row.finished) for row in rows if duration]

    def _only_film(self) -> str:
        rows = self.engine.videos()
        if not rows:
            raise UserError("The bank has no film yet; /add FILE encodes one")
        return rows[0].info.video_id if len(rows) == 1 else ""

    def _best_film(self, question: str) -> str:
        """The film in which a search finds the best moment."""
        best = self.engine.find(question, top=1)
        if not best.moments:
            raise UserError("No film of the bank fits; choose one with /film FILM")
        moment = best.moments[0]
        print(f"about {best.paths[moment.video_id]}, where the best moment is")
        return moment.video_id

    def _list_moments(self, query: str) -> None:
        """Number the moments for commands outside of the prompt; a script leaves nothing behind."""
        if self._reader.is_terminal:
            MomentList.of(query, self.engine.bank, self.moments).save()

    def _numbered(self, words: str, command: str) -> ListedMoment:
        """The moment of a number. UserError if there is none."""
        if not self.moments:
            raise UserError(f"There is no hit for {command} yet; find or ask something first")
        if not words.isdecimal() or not 1 <= int(words) <= len(self.moments):
            raise UserError(
                f"{command} needs the number of a hit, 1 to {len(self.moments)}, as in {command} 1"
            )
        return self.moments[int(words) - 1]


def _unquoted(words: str) -> Path:
    """The path of a file that a person typed, or pasted with quotes and backslashes."""
    path = Path(words.strip()).expanduser()
    if not path.exists() and any(mark in words for mark in "'\"\\"):
        try:
            parts = shlex.split(words)
        except ValueError:  # an apostrophe of the name
            return path
        if len(parts) == 1:
            return Path(parts[0]).expanduser()
    return path


COMMANDS: dict[str, Callable[[Prompt, str], None]] = {
    "/ask": Prompt.ask,
    "/find": Prompt.find,
    "/open": Prompt.open,
    "/clip": Prompt.clip,
    "/film": Prompt.choose_film,
    "/films": Prompt.list_films,
    "/add": Prompt.add,
    "/help": Prompt.help,
    "/quit": Prompt.quit,
    "/exit": Prompt.quit,
}

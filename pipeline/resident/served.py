"""`reelbank serve`, which also answers `reelbank ask` on the same bank: its model is loaded.

A question that the server cannot answer as the command would is declined, and the command does the
work itself: other parts, a part of a film, or a film that the bank does not have as a whole.
"""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from encoders.errors import UserError
from pipeline.config.compose import compose
from pipeline.config.tasks.pipeline_settings import AUTO_TEXT, OutputFormat, PipelineSettings
from pipeline.config.tasks.question_settings import AskSettings
from pipeline.config.tasks.server_settings import ServeSettings
from pipeline.resident.call_settings import parts_of, with_whole_paths
from pipeline.resident.listener import CommandRequest, Listener
from pipeline.resident.place import Place, make_runtime_folder
from pipeline.resident.protocol import Message, environment_of_libraries
from pipeline.runtime import output_errors
from pipeline.server import command

if TYPE_CHECKING:
    from pipeline.qa import VideoQA
    from pipeline.server.app import Service


def run(config: ServeSettings) -> int:
    """reelbank serve."""
    libraries = environment_of_libraries(os.environ)  # before libraries set variables of their own
    return command.run(config, beside=lambda service: listening(config, service, libraries))


@contextmanager
def listening(config: ServeSettings, service: "Service", libraries: str) -> Iterator[None]:
    """Commands on the bank of a server ask it meanwhile, unless another process listens already."""
    output_errors.register()
    try:
        make_runtime_folder()
        place = Place.of(config.bank)
    except (UserError, OSError):  # nobody asks, then
        yield
        return
    commands = ServedCommands(config, service.qa, place.bank)
    listener = Listener(place, commands.take, stop=None, libraries=libraries)
    commands.listener = listener
    try:
        listener.open()
        yield
    finally:
        listener.close()
        commands.close()


class ServedCommands:
    """Answers commands, one after another, in a thread of its own."""

    def __init__(self, config: ServeSettings, qa: "VideoQA", bank: str) -> None:
        """bank: whole path of the folder."""
        self._qa, self._bank = qa, bank
        self._parts = _parts(with_whole_paths(config, bank, os.getcwd()))
        self._worker = ThreadPoolExecutor(1, "command")
        self._closing = threading.Event()
        self.listener: Listener | None = None  # counts the commands

    def take(self, request: CommandRequest) -> None:
        """Answer a request, later."""
        try:
            self._worker.submit(self._answer, request)
        except RuntimeError:  # the server ends
            request.answer({"declined": "it ends"})

    def close(self) -> None:
        """Cancel what runs."""
        self._closing.set()
        self._worker.shutdown()

    def _answer(self, request: CommandRequest) -> None:
        try:
            reply = {"declined": "it ends"} if self._closing.is_set() else self._reply(request)
        except Exception as error:  # the command shows it, in a process of its own
            reply = {"declined": f"{type(error).__name__}: {error}"}
        if "exit" in reply and self.listener is not None:
            self.listener.commands += 1
        request.answer(reply)

    def _reply(self, request: CommandRequest) -> Message:
        from encoders.sources.container import fingerprint
        from memory.schema import Question
        from pipeline.commands.ask import print_answer

        message = request.message
        if message["task"] != "ask":
            return {"declined": "no question"}
        settings = compose("ask", message["overrides"])
        whole = with_whole_paths(settings, self._bank, message["cwd"])
        if _parts(whole) != self._parts or not self._is_plain(settings):
            return {"declined": "other settings"}
        films = [Path(message["cwd"], each) for each in (settings.video, *settings.also)]
        ids = dict.fromkeys(fingerprint(film) if film.is_file() else "" for film in films)
        if not all(each and self._has(each, settings) for each in ids):
            return {"declined": "a film is not in the bank as a whole"}
        moment = float("inf") if settings.asked_at is None else settings.asked_at
        cancelled, ended = threading.Event(), threading.Event()
        request.watch(ended, cancelled.set)
        with _stdout(request) as out:
            streams = settings.format == OutputFormat.text and out.isatty()

            def emit(text: str) -> None:
                if streams:
                    print(text, end="", flush=True, file=out)

            try:
                question = Question(settings.question, tuple(ids), moment)
                answer = self._qa.ask(question, emit, cancelled=cancelled)
                print_answer(answer, settings.format, streams, out)
            except BrokenPipeError as error:
                text = error.strerror
                told = {"kind": "system", "number": error.errno, "text": text, "file": None}
                return {"error": told}
            finally:
                ended.set()
        return {"exit": 0}

    def _has(self, video_id: str, settings: AskSettings) -> bool:
        """Whether the bank has all of a film that the question needs."""
        bank = self._qa.bank
        row = bank.catalog.video(video_id)
        if row is None or not row.finished or bank.catalog.gaps(video_id):
            return False
        extractors = {run.extractor for run in bank.text.runs(video_id)}
        return AUTO_TEXT in settings.text or extractors >= set(settings.text)

    @staticmethod
    def _is_plain(settings: AskSettings) -> bool:
        """Whether the question is one about a whole film, and nothing is wrong with it."""
        is_whole = not settings.start and settings.end is None and not settings.began
        is_right = settings.asked_at is None or settings.asked_at >= 0
        return is_whole and is_right and bool(settings.question.strip())


def _parts(settings: PipelineSettings) -> dict[str, Any]:
    """What an answer depends on; extractors of text work while a film is encoded."""
    parts = parts_of(settings, PipelineSettings)
    return {name: value for name, value in parts.items() if name != "text"}


@contextmanager
def _stdout(request: CommandRequest) -> Iterator[TextIO]:
    """The stdout of a command."""
    encoding, errors = request.message["encodings"][0]
    out = open(request.files[1], "w", encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115
    try:
        yield out
        out.flush()
    finally:
        with suppress(OSError):  # a reader that has gone
            out.close()

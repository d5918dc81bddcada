"""The prompt in a real pseudo-terminal, and with the lines of a script."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from encoders.sources.container import inspect
from pipeline.cli.line_reader import _completer
from pipeline.needle_world import video as needle_video
from tests.support.paths import ROOT
from tests.support.terminal import Terminal
from tests.support.toys import toy_parts
from tests.support.videos import write_video

SAYS = "A red heart"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a film and a bank that has it with its subtitles."""
    folder = tmp_path_factory.mktemp("prompt")
    write_video(folder / "my talk.mp4", 20, 5)
    cues = "1\n00:00:02,000 --> 00:00:06,000\nThe harbour was rebuilt with granite.\n"
    (folder / "my talk.srt").write_text(cues)
    return folder


def environment(home: Path) -> dict[str, str]:
    return {
        "PYTHONPATH": str(ROOT),
        "XDG_STATE_HOME": str(home / "state"),
        "REELBANK_BANK": str(home / "bank"),
        "REELBANK_PLAYER": f"{sys.executable} {home / 'player.py'} {{seconds}} {{path}}",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture
def terminal(home: Path) -> Iterator[Terminal]:
    (home / "player.py").write_text(
        f"import sys; open({str(home / 'played')!r}, 'w').write(' '.join(sys.argv[1:]))"
    )
    overrides = ["text=subtitles", "channels=[subtitle]", *toy_parts(SAYS)]
    script = f"import sys; from pipeline.cli.prompt import run; sys.exit(run(None, {overrides!r}))"
    with Terminal([sys.executable, "-c", script], home, environment(home)) as opened:
        yield opened


@pytest.mark.slow
def test_a_session(terminal: Terminal, home: Path) -> None:
    terminal.wait("bank .*bank; a line finds moments in the whole bank, /help lists the commands")
    terminal.wait("find> ")
    terminal.type("granite")
    terminal.wait("reelbank: The bank has no film yet; /add FILE encodes one.\n")
    terminal.type("/add 'my talk.mp4'")
    assert "20" in terminal.wait("ask my talk.mp4> ")
    terminal.type("What of granite?")
    answer = terminal.wait("ask my talk.mp4> ")
    assert SAYS in answer and "seen at" in answer and "\n 1  00:" in answer
    terminal.type("/find granite harbour")
    hits = terminal.wait("ask my talk.mp4> ")
    assert " 1  00:00:02-00:00:06 (2.0-6.0 s)  subtitle" in hits
    terminal.type("/open 1")
    terminal.wait(r"opens .*my talk.mp4 at 00:02 \(2.0 s\)\n")
    terminal.type("/clip 1")
    terminal.wait("my talk_00-02.mp4: 00:0[0-2]-00:0")
    terminal.type("/clip 1 a clip.mkv")
    terminal.wait("a clip.mkv: 00:0")
    terminal.type("/clip 1 a clip.mkv")
    terminal.wait("reelbank: a clip.mkv is there already; choose another name.\n")
    terminal.type("/films")
    terminal.wait(r" 1  00:00:20  .*my talk.mp4\n")
    terminal.type("/film")
    terminal.wait("find> ")
    terminal.type("/film 1")
    terminal.wait("ask my talk.mp4> ")
    for line, words in (
        ("/nix", "There is no command /nix"),
        ("/open 99", "needs the number of a hit, 1 to"),
        ("/film 7", "There is no film 7"),
        ("/film nowhere.mp4", "video=nowhere.mp4 is not in bank"),
        ("/add", "/add needs a file"),
        ("/add nowhere.mp4", "There is no file nowhere.mp4"),
    ):
        terminal.type(line)
        terminal.wait(f"reelbank: .*{words}")
    terminal.type("/help")
    terminal.wait("/clip N")
    terminal.type("/quit")
    assert terminal.code() == 0
    assert (home / "played").read_text() == f"2.00 {home / 'my talk.mp4'}"
    assert inspect(home / "a clip.mkv").duration >= 4.0
    # the history is for the next time, and for this user alone
    history = home / "state" / "reelbank" / "history"
    assert "What of granite?" in history.read_text() and history.stat().st_mode & 0o77 == 0


def test_ctrl_c_drops_a_line_and_ctrl_d_leaves(terminal: Terminal) -> None:
    terminal.wait("find> ")
    os.write(terminal._master, b"half a li")
    terminal.wait("half a li")
    time.sleep(0.3)  # readline notices a signal while it waits, not while it draws
    terminal.press("c")
    terminal.wait("find> ")
    terminal.type("/help")
    terminal.wait("find> ")
    # the arrow up brings the line before back
    terminal.press("\x1b[A")
    terminal.wait("/help")
    time.sleep(0.3)
    terminal.press("c")
    terminal.wait("find> ")
    terminal.press("d")
    assert terminal.code() == 0 and "Traceback" not in terminal.screen


@pytest.mark.slow
def test_ctrl_c_stops_an_encoding_and_the_prompt_goes_on(tmp_path: Path) -> None:
    """The bare command, with the model that ships."""
    write_video(tmp_path / "long.mp4", 600, 5)
    command = [sys.executable, "-m", "pipeline.cli"]
    with Terminal(command, tmp_path, environment(tmp_path)) as terminal:
        stop_and_go_on(terminal)


def stop_and_go_on(terminal: Terminal) -> None:
    terminal.wait("find> ")
    terminal.type("/add long.mp4")
    terminal.wait(r"encoding long.mp4.*[1-9]\d?%")
    terminal.press("c")
    terminal.wait("stopped\n")
    terminal.type("/films")
    terminal.wait("long.mp4  incomplete\n")
    terminal.type("/quit")
    assert terminal.code() == 0 and "Traceback" not in terminal.screen


ENDLESS = """
import sys, threading
from pipeline.answer.reader import TokenReader
from pipeline.answer import answerer
from pipeline.cli.prompt import run
from pipeline.runtime.cancel import raise_if_cancelled
ask = answerer.Answerer.ask
def slow(self, question, emit=lambda text: None, read=None, *, cancelled=None):
    while question.text == "talk on":  # a model that never ends
        emit("and ")
        threading.Event().wait(0.05)
        raise_if_cancelled(cancelled)
    return ask(self, question, emit, read, cancelled=cancelled)
answerer.Answerer.ask = slow
sys.exit(run(sys.argv[1], {overrides!r}))
"""


@pytest.mark.slow
def test_ctrl_c_stops_an_answer_and_the_prompt_goes_on(home: Path) -> None:
    script = ENDLESS.format(overrides=["text=subtitles", *toy_parts(SAYS)])
    command = [sys.executable, "-c", script, str(home / "my talk.mp4")]
    with Terminal(command, home, environment(home)) as terminal:
        terminal.wait("ask my talk.mp4> ")
        terminal.type("talk on")
        terminal.wait("and and and ")
        terminal.press("c")
        terminal.wait("stopped\nask my talk.mp4> ")
        terminal.type("What of granite?")
        assert SAYS in terminal.wait("seen at")
        terminal.press("d")
        assert terminal.code() == 0 and "Traceback" not in terminal.screen


# ---- lines of a script


@pytest.mark.slow
def test_lines_of_a_script(tmp_path: Path) -> None:
    """The command with the model that ships: nothing is prompted, errors go to stderr."""
    placed = (needle_video.parse("code:4821@4", 0),)
    footage = needle_video.procedural_footage(seed=1, size=(192, 108))
    needle_video.write(tmp_path / "film.mp4", placed, 9.0, footage, size=(192, 108))
    lines = "What is the code on the card?\n\n/clip 1 code.mp4\n/open 9\n/find card\n"
    result = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "prompt", "film.mp4"],
        input=lines,
        cwd=tmp_path,
        env={**os.environ, **environment(tmp_path)},
        capture_output=True,
        text=True,
    )
    out = result.stdout.splitlines()
    assert result.returncode == 2, result.stderr
    assert result.stderr.splitlines()[-1] == (
        "reelbank: /open needs the number of a hit, 1 to 1, as in /open 1."
    )
    assert out[0] == "4821" and out[1].startswith("seen at 00:04-00:0")
    assert any(line.startswith("code.mp4: ") for line in out)
    assert any(line.startswith(" 1  00:00:0") and "picture" in line for line in out)
    assert "> " not in result.stdout and not (tmp_path / "state").exists()


def test_completion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "talk.mp4").touch()
    (tmp_path / "tapes").mkdir()
    typed = ""
    complete = _completer(["/film", "/films", "/find"], lambda: typed)

    def completions(line: str) -> list[str]:
        nonlocal typed
        typed = line
        word = line.split(" ")[-1]
        return [one for number in range(9) if (one := complete(word, number)) is not None]

    assert completions("/fil") == ["/film ", "/films "]
    assert completions("/add ta") == ["talk.mp4", "tapes/"]
    assert completions("what of ta") == ["talk.mp4", "tapes/"]
    assert completions("/nix") == []

"""The resident process: commands print what they print without it, and nothing breaks when either
side dies.

Real processes on both sides. The same command without a resident process runs in this one, with
another folder for sockets.
"""

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from encoders.errors import UserError
from pipeline import cli
from pipeline.resident import protocol
from pipeline.resident.client import request, start_resident
from pipeline.resident.place import Place, runtime_folder
from tests.support.paths import ROOT
from tests.support.toys import toy_parts
from tests.support.videos import write_video

Done = tuple[int, str, str]  # exit code, stdout, stderr


@pytest.fixture(scope="module")
def runtime() -> Iterator[Path]:
    """A folder for sockets, with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="rb"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def resident(runtime: Path, bank: Path) -> Iterator[int]:
    """The process of the bank; its id."""
    start_resident(str(bank))
    yield status(bank)["pid"]
    request(str(bank), "stop")


def status(bank: Path) -> Any:
    reply = request(str(bank), "status")
    assert reply is not None
    return reply["status"]


def process(words: Sequence[str], cwd: Path = ROOT) -> "subprocess.Popen[str]":
    """A command in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *words],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def warm(bank: Path, words: Sequence[str], cwd: Path = ROOT) -> Done:
    """A command that the resident process must have run."""
    before = status(bank)["commands"]
    running = process(words, cwd)
    out, err = running.communicate()
    assert status(bank)["commands"] == before + 1, f"not asked: {err}"
    return running.returncode, out, err


def cold(run: Callable[..., Done], words: Sequence[str], cwd: Path = ROOT) -> Done:
    """The same command without a resident process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", "/nowhere")
        patch.setenv("TMPDIR", "/nowhere")
        patch.setattr(tempfile, "tempdir", None)
        patch.chdir(cwd)
        return run(*words)


def timeless(done: Done) -> Done:
    """Without the seconds that a command took."""
    code, out, err = done
    out = re.sub(r"seconds: .*", "", out)
    return code, re.sub(r'"seconds": \{[^}]*\}', "", out), err


LINES = {
    "ask": ["ask", "{film}", "What is shown?", "bank={bank}"],
    "ask json": ["ask", "video={film}", "question=What is shown?", "bank={bank}", "format=json"],
    "ask at": ["ask", "{film}", "What is shown?", "--at", "0:07", "--bank", "{bank}"],
    "find": ["find", "query=a red star", "bank={bank}"],
    "find json": ["find", "query=granite", "bank={bank}", "format=json", "video={film}"],
    "no film": ["ask", "nothing.mp4", "What?", "bank={bank}"],
    "no question": ["ask", "video={film}", "question= ", "bank={bank}"],
    "late": ["ask", "{film}", "What?", "asked_at=-1", "bank={bank}"],
    "no key": ["find", "query=a", "nothing=1", "bank={bank}"],
    "no top": ["find", "query=a", "top=0", "bank={bank}"],
    "other model": ["ask", "{film}", "What?", "bank={bank}", "fps=2"],
}


def words_of(name: str, film: Path | str, bank: Path | str) -> list[str]:
    words = [word.format(film=film, bank=bank) for word in LINES[name]]
    task = words[0]
    parts = [part for part in toy_parts() if task == "ask" or part.startswith(("backbone", "clip"))]
    return words if name == "no key" else [*words, *parts]


QUICK = ("ask", "find json", "no film")


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in LINES],
)
def test_a_command_prints_the_same(resident, run, film, bank, name):
    words = words_of(name, film, bank)
    expected = timeless(cold(run, words))
    assert timeless(warm(bank, words)) == expected
    assert timeless(warm(bank, words)) == expected


def test_paths_are_those_of_the_folder_of_the_command(resident, run, film, bank):
    words = words_of("find json", film.name, bank.name)
    expected = cold(run, words, film.parent)
    assert json.loads(expected[1])["bank"] == bank.name
    assert warm(bank, words, film.parent) == expected
    code, _, err = warm(bank, words_of("find json", film.name, bank), ROOT)
    assert code == 2 and film.name in err  # no such file in that folder


@pytest.mark.slow
def test_eight_commands_at_once(resident, film, bank):
    words = words_of("ask", film, bank)
    alone = timeless(warm(bank, words))
    before = status(bank)["commands"]
    running = [process(words) for _ in range(8)]
    outputs = [one.communicate() for one in running]
    done = [(one.returncode, *output) for one, output in zip(running, outputs, strict=True)]
    assert [timeless(one) for one in done] == [alone] * 8
    assert status(bank)["commands"] > before + 1  # who waits too long does the work itself


@pytest.mark.slow
def test_a_film_of_another_process_is_seen(resident, run, film, bank, tmp_path):
    words = [*words_of("find", film, bank), "top=50"]
    before = warm(bank, words)[1]
    other = tmp_path / "other.mp4"
    write_video(other, 3, 5)
    assert cli.run("ingest", [f"video={other}", f"bank={bank}", *toy_parts()]) == 0
    after = warm(bank, words)[1]
    assert "other.mp4" in after and "other.mp4" not in before
    ask = words_of("ask", other, bank)
    assert timeless(warm(bank, ask)) == timeless(cold(run, ask))
    write_video(other, 4, 5)  # the file is another film now
    code, _, err = warm(bank, words_of("find json", other, bank))
    assert code == 2 and "is not the video that it was" in err


@pytest.mark.slow
def test_an_interrupt_ends_the_question_alone(resident, film, bank, tmp_path):
    long = tmp_path / "long.mp4"
    write_video(long, 600, 5)
    running = process(words_of("ask", long, bank))
    wait_for(lambda: segments(bank, long) > 0)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=20)
    assert running.returncode == 130 and "stopped; what was written stays" in err
    count = segments(bank, long)
    assert warm(bank, words_of("ask", film, bank))[0] == 0
    assert segments(bank, long) <= count + 1 and status(bank)["pid"] == resident


def segments(bank: Path, film: Path) -> int:
    """How many segments of a film the bank has."""
    from encoders.sources.container import fingerprint

    return len(list(bank.glob(f"**/{fingerprint(film)}/*")))


def wait_for(claim: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.slow
def test_a_killed_command_leaves_the_resident_process_whole(resident, film, bank):
    running = process(words_of("ask", film, bank))
    time.sleep(0.2)
    running.kill()
    running.communicate()
    assert warm(bank, words_of("ask", film, bank))[0] == 0


def test_nonsense_is_no_command(resident, film, bank):
    path = str(Place.of(str(bank)).socket)
    for data in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, b"\0\0\0\x02[]", b"\0\0\0\x09"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            connection.sendall(data)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        protocol.send(connection, {"do": "run"})  # without files
        assert "declined" in protocol.receive(connection)[0]
    assert status(bank)["pid"] == resident


@pytest.mark.slow
def test_other_variables_of_libraries_are_declined(resident, film, bank):
    before = status(bank)["commands"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "7")
        running = process(words_of("no top", film, bank))
        running.communicate()
    assert running.returncode == 2 and status(bank)["commands"] == before


def test_only_the_owner_may_open_the_socket(resident, bank):
    place = Place.of(str(bank))
    assert stat.S_IMODE(place.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.lock.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.folder.stat().st_mode) == 0o700


@pytest.mark.slow
def test_a_second_process_of_a_bank_ends_at_once(resident, bank):
    command = [sys.executable, "-m", "pipeline.resident.resident", str(bank), "5"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    assert status(bank)["pid"] == resident


# ---- processes of their own


@pytest.fixture
def lonely(runtime: Path, tmp_path: Path) -> Iterator[Path]:
    """A bank that is not there yet."""
    yield tmp_path / "bank"
    request(str(tmp_path / "bank"), "stop")


def test_it_ends_when_nobody_asks(lonely):
    start_resident(str(lonely), minutes=0.02)
    place = Place.of(str(lonely))
    assert place.socket.exists()
    wait_for(lambda: not place.socket.exists())
    assert request(str(lonely), "status") is None and place.log.read_text() == ""


@pytest.mark.slow
def test_a_killed_process_is_replaced(lonely, film):
    start_resident(str(lonely))
    killed = status(lonely)["pid"]
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: request(str(lonely), "status") is None)
    assert Place.of(str(lonely)).socket.exists()  # stale
    words = words_of("no film", film, lonely)
    running = process(words)
    running.communicate()
    assert running.returncode == 2
    start_resident(str(lonely))
    assert status(lonely)["pid"] != killed
    assert warm(lonely, words)[0] == 2


@pytest.mark.slow
def test_other_code_is_declined_and_ends_the_process(lonely):
    start_resident(str(lonely))
    place = Place.of(str(lonely))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(place.socket))
        protocol.send(connection, {"do": "run", "code": "other"}, [0, 1, 2])
        assert protocol.receive(connection)[0] == {"declined": "the code has changed"}
    wait_for(lambda: not place.socket.exists())


def test_another_user_is_not_heard(lonely):
    """Another user than the one that the process listens to: this test cannot change its own."""
    program = (
        "import sys, os; from pipeline.resident.place import Place; "
        "from pipeline.resident.resident import Resident; "
        "Resident(Place.of(sys.argv[1]), 1, uid=os.getuid() + 1).serve()"
    )
    Place.of(str(lonely)).folder.mkdir(mode=0o700, exist_ok=True)
    running = subprocess.Popen([sys.executable, "-c", program, str(lonely)], cwd=ROOT)
    wait_for(Place.of(str(lonely)).socket.exists)
    assert request(str(lonely), "status") is None and request(str(lonely), "stop") is None
    running.kill()
    running.wait()


@pytest.mark.slow
def test_control(lonely, run):
    bank = f"bank={lonely}"
    assert run("resident", bank) == (1, f"no resident process of bank {lonely}\n", "")
    start_resident(str(lonely))
    code, out, _ = run("resident", "status", "--bank", str(lonely))
    assert code == 0 and f"process {status(lonely)['pid']}" in out
    assert run("resident", "stop", bank)[0] == 0
    assert request(str(lonely), "status") is None
    assert run("resident", "stop", bank)[0] == 0
    assert run("resident", "begin", bank)[0] == 2


# ---- where it listens


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_folder_that_others_may_open_is_refused(monkeypatch, tmp_path, mode):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = runtime_folder()
    assert folder == tmp_path / f"reelbank-{os.getuid()}"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(UserError, match="only its owner"):
        runtime_folder()
    folder.chmod(0o700)
    assert runtime_folder() == folder
    folder.rename(tmp_path / "mine")
    folder.symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="only its owner"):
        runtime_folder()


def test_a_long_path_is_left_for_a_short_one(monkeypatch, tmp_path):
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    assert runtime_folder().parent != long
    assert len(os.fsencode(Place.of("/" + "deep/" * 50).socket)) < 104


def test_links_to_a_bank_are_the_bank(runtime, tmp_path):
    (tmp_path / "bank").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "bank")
    assert Place.of(str(tmp_path / "link")) == Place.of(str(tmp_path / "bank"))


@pytest.mark.slow
def test_a_server_answers_questions_on_its_bank(runtime, run, film, bank, tmp_path):
    pytest.importorskip("uvicorn")
    copied = tmp_path / "bank"
    shutil.copytree(bank, copied)
    words = words_of("ask", film, copied)
    serving = process(["serve", f"bank={copied}", "port=0", *toy_parts()])
    try:
        wait_for(lambda: request(str(copied), "status") is not None)
        assert timeless(warm(copied, words)) == timeless(cold(run, words))
        as_json = [*words, "format=json"]
        assert timeless(warm(copied, as_json)) == timeless(cold(run, as_json))
        before = status(copied)["commands"]
        for line in (
            [*words, "fps=2"],
            words_of("find", film, copied),
            words_of("late", film, copied),
        ):
            running = process(line)
            out, err = running.communicate()
            assert timeless((running.returncode, out, err)) == timeless(cold(run, line))
        assert status(copied)["commands"] == before  # each did the work itself
        code, _, err = run("resident", "stop", f"bank={copied}")
        assert code == 2 and "stop it where it was started" in err
    finally:
        serving.send_signal(signal.SIGINT)
        serving.communicate(timeout=60)
    assert not Place.of(str(copied)).socket.exists()

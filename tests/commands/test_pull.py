"""`reelbank pull` against a hub on this machine: a real server, and a cache in a folder."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from huggingface_hub import constants

from pipeline.commands.machine.model_sizes import CLIP_REPOSITORIES
from tests.support.hub import COMMIT, Hub, running_hub
from tests.support.paths import ROOT
from tests.support.toys import toy_checkpoint
from tests.support.videos import write_video

NAME = "llava_ov_0p5b"
REPOSITORY = "llava-hf/llava-onevision-qwen2-0.5b-ov-hf"
WEIGHTS = "model.safetensors"
Run = Callable[..., tuple[int, str, str]]


def contents() -> dict[str, bytes]:
    """A small random checkpoint as it would stand on a hub, with what must not be fetched."""
    files = {path.name: path.read_bytes() for path in Path(toy_checkpoint()).iterdir()}
    extra = {
        "pytorch_model.bin": b"\x80\x04cposix\nsystem\n",
        "modeling.py": b"raise SystemExit",
        "onnx/model.safetensors": b"0" * 1000,
    }
    return files | extra


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that this process believes to be the one, with an empty cache."""
    with running_hub({REPOSITORY: contents()}) as hub:
        turn_to(hub.address, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield hub


def turn_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does before the start of a process."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def environment(home: Path, address: str, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    own = {"HF_ENDPOINT": address, "HF_HOME": str(home / "hf"), "HOME": str(home)}
    return kept | own | {"PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_XET": "1"} | more


def process(
    home: Path, address: str, *arguments: str, **more: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        cwd=home,
        env=environment(home, address, **more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def blobs(home: Path) -> list[Path]:
    return sorted((home / "hf").rglob("blobs/*"))


def refused(done: tuple[int, str, str], *words: str) -> None:
    """One sentence on stderr, behind what was announced; exit code 2."""
    code, out, err = done
    assert code == 2, err
    last = err.splitlines()[-1]
    assert last.startswith("reelbank: ") and "Traceback" not in err
    assert all(word in last for word in words), last
    assert out == ""


def test_a_model_is_fetched_and_then_here(
    hub: Hub, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run("pull", NAME, "--json")
    assert code == 0, err
    result = json.loads(out)
    folder = Path(result["folder"])
    held = hub.files[REPOSITORY]
    wanted = {name for name in held if not name.endswith((".bin", ".py")) and "/" not in name}
    assert {path.name for path in folder.iterdir()} == wanted
    for name in wanted:
        assert (folder / name).read_bytes() == held[name]
    assert result["commit"] == COMMIT == folder.name
    assert result["bytes"] == result["fetched_bytes"] == sum(len(held[name]) for name in wanted)
    assert hub.gets(WEIGHTS) == [0]
    assert {name for method, name, _ in hub.requests if method == "GET"} == wanted
    # once more: nothing is fetched; and without the hub, what is here counts
    _, out, _ = run("pull", NAME, "--json")
    assert json.loads(out)["fetched_bytes"] == 0 and hub.gets(WEIGHTS) == [0]
    turn_to(closed_address(), monkeypatch)
    code, out, err = run("pull", NAME)
    assert code == 0 and str(folder) in out
    assert "cannot be reached; what is here is used" in err


def test_a_broken_connection_is_taken_up_again(hub: Hub, run: Run) -> None:
    hub.files[REPOSITORY][WEIGHTS] += b"\0" * 1_000_000
    size = len(hub.files[REPOSITORY][WEIGHTS])
    hub.breaks[WEIGHTS], hub.break_after = 2, size // 3
    code, out, err = run("pull", NAME)
    assert code == 0 and f'say `reelbank ask FILM "..." -m {NAME}`' in out, err
    first, second, third = hub.gets(WEIGHTS)
    assert first == 0 and 0 < second < third < size
    assert hub.sent[WEIGHTS] < 1.2 * size


def test_a_killed_run_goes_on_where_it_stopped(hub: Hub, run: Run, tmp_path: Path) -> None:
    hub.files[REPOSITORY][WEIGHTS] += b"\0" * 2_000_000
    size = len(hub.files[REPOSITORY][WEIGHTS])
    hub.seconds_per_chunk = 0.1
    pulling = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "pull", NAME],
        cwd=tmp_path,
        env=environment(tmp_path, hub.address),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    stop = time.monotonic() + 60
    while not any(path.stat().st_size > 300_000 for path in blobs(tmp_path)):
        assert pulling.poll() is None and time.monotonic() < stop
        time.sleep(0.02)
    pulling.send_signal(signal.SIGKILL)
    pulling.communicate()
    (part,) = blobs(tmp_path)
    kept = part.stat().st_size
    assert part.name.endswith(".incomplete") and 300_000 < kept < size
    hub.seconds_per_chunk = 0.0
    code, out, err = run("pull", NAME, "--json")
    assert code == 0, err
    assert hub.gets(WEIGHTS)[1:] == [kept]
    result = json.loads(out)
    assert result["fetched_bytes"] == result["bytes"] - kept
    assert (Path(result["folder"]) / WEIGHTS).read_bytes() == hub.files[REPOSITORY][WEIGHTS]
    assert not any(path.name.endswith(".incomplete") for path in blobs(tmp_path))


def test_spoiled_bytes_never_enter_the_cache(hub: Hub, run: Run, tmp_path: Path) -> None:
    hub.spoiled = {WEIGHTS}
    refused(run("pull", NAME), WEIGHTS, "is deleted; say the same")
    assert blobs(tmp_path) == []
    hub.spoiled = {"config.json"}
    refused(run("pull", NAME), "config.json", "is damaged")
    hub.spoiled = set()
    assert run("pull", NAME)[0] == 0


REFUSED = {
    "not there": ((404, "RepoNotFound"), f"There is no {REPOSITORY} at http://127.0.0.1"),
    "not public": ((401, "RepoNotFound"), "set HF_TOKEN if it is yours"),
    "gated": ((403, "GatedRepo"), "is behind a form of its authors; agree to it at"),
    "gated, no login": ((401, "GatedRepo"), "and set HF_TOKEN to a token of yours"),
    "no revision": ((404, "RevisionNotFound"), "has no such revision"),
    "an error": ((500, ""), "answers 500 about"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_hub_refuses_is_one_sentence(hub: Hub, run: Run, tmp_path: Path, kind: str) -> None:
    hub.refused[REPOSITORY], words = REFUSED[kind]
    refused(run("pull", NAME), words)
    assert blobs(tmp_path) == []


def closed_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


def test_without_a_network_the_way_to_bring_the_files_is_told(
    hub: Hub, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (f"hf download {REPOSITORY}", f"backbone={NAME} backbone.path=DIR", "HF_HOME")
    turn_to(closed_address(), monkeypatch)
    refused(run("pull", NAME), *words)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(run("pull", NAME), *words)


def test_names_and_pickles_that_are_refused(hub: Hub, run: Run) -> None:
    del hub.files[REPOSITORY][WEIGHTS]
    refused(run("pull", NAME), "pickled weights only (pytorch_model.bin)")
    refused(run("pull", "qwen99"), "There is no model 'qwen99'")
    refused(run("pull", "embedded"), "is shipped with Reelbank")
    refused(run("pull", "conse"), "clip=conse is not fetched from a hub")
    refused(run("pull", "a/b/c"), "is no name of a repository")
    refused(run("pull"), "name= is missing")


def test_a_large_model_is_asked_for(hub: Hub, run: Run) -> None:
    small = ("pull", NAME, "ask_over=10kB")
    refused(run(*small), f"say `reelbank pull {NAME} --yes`")
    assert hub.gets(WEIGHTS) == []
    assert run(*small, "--yes")[0] == 0 and hub.gets(WEIGHTS) == [0]


@pytest.mark.parametrize(("typed", "code"), [(b"n\n", 2), (b"y\n", 0)])
def test_a_terminal_is_asked(hub: Hub, tmp_path: Path, typed: bytes, code: int) -> None:
    ours, theirs = pty.openpty()
    asking = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "pull", NAME, "ask_over=10kB"],
        cwd=tmp_path,
        env=environment(tmp_path, hub.address),
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    while b"[y/N]" not in said:
        said += os.read(ours, 1000)
    assert b" files of " in said and hub.gets(WEIGHTS) == []  # the size comes first
    os.write(ours, typed)
    with suppress(OSError):  # until the other end is closed
        while os.read(ours, 1000):
            pass
    os.close(ours)
    assert asking.wait(60) == code
    assert hub.gets(WEIGHTS) == ([0] if code == 0 else [])


def test_the_frame_embedder_comes_once(hub: Hub, run: Run) -> None:
    """Its repository holds the same weights for two libraries."""
    hub.files[CLIP_REPOSITORIES["b32"]] = {
        "open_clip_model.safetensors": b"1" * 5000,
        "model.safetensors": b"2" * 5000,
        "open_clip_pytorch_model.bin": b"3" * 5000,
        "open_clip_config.json": b"{}",
    }
    code, out, err = run("pull", "b32", "--json")
    assert code == 0, err
    found = {path.name for path in Path(json.loads(out)["folder"]).iterdir()}
    assert found == {"open_clip_model.safetensors", "open_clip_config.json"}


@pytest.mark.slow
def test_a_fetched_model_answers_without_a_network(hub: Hub, tmp_path: Path) -> None:
    fetched = process(tmp_path, hub.address, "pull", NAME)
    assert fetched.returncode == 0, fetched.stderr
    write_video(tmp_path / "a.mp4", 6)
    line = ("ask", "a.mp4", "What is shown?", "-m", NAME, "-o", "backbone.dtype=float32")
    done = process(tmp_path, hub.address, *line, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    found = process(tmp_path, hub.address, "doctor", "--json", HF_HUB_OFFLINE="1")
    findings = {one["name"]: one for one in json.loads(found.stdout)["findings"]}
    assert findings["fetched"]["facts"]["names"] == [NAME]

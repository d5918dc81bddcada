"""What was composed before comes back the same without Hydra, and a change is seen."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import conf
from encoders.errors import UserError
from pipeline.config import compose_cache
from pipeline.config.compose import compose, options
from pipeline.config.compose_cache import ComposeCache
from tests.support.paths import ROOT

LINES = [
    ("ask", ["video=a.mp4", "question=what?"]),
    ("ask", ["video=~/a.mp4", "question=${fps}", "backbone=qwen3_vl_2b", "fps=2", "format=json"]),
    ("ask", ["video=a.mp4", "question=???", "asked_at=1:02", "experiment=compact"]),
    ("find", ["query=a=b, [c]", "channels=[ocr,picture]", "dense=minilm", "planner=model"]),
    ("ingest", ["video=a.mp4", "text=[subtitles,ocr]", "backbone.path=/some where/x"]),
    ("bank", ["action=repair", "bank=b"]),
    ("bank", ["bank=b", "start=10"]),
    ("batch", ["jobs=a.jsonl", "out=o", "annotations=vnbench"]),
    ("needle", ["preset=smoke", "out=o", "looks=[card]"]),
    ("serve", ["api_key=secret", "port=0"]),
    ("demo", []),
    ("bench", ["bench_preset=store"]),
    ("backbones", ["backbone=internvl3_1b"]),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "reelbank" / "settings"


@pytest.mark.parametrize(("task", "overrides"), LINES)
def test_an_entry_gives_what_hydra_gave(folder, monkeypatch, task, overrides):
    first = compose(task, overrides)
    assert list(folder.glob("*.json"))
    monkeypatch.setitem(sys.modules, "pipeline.config.hydra_grammar", None)  # importing it fails
    again = compose(task, overrides)
    assert type(again) is type(first) and vars(again) == vars(first)
    assert repr(again.to_dict()) == repr(first.to_dict())  # 1 is not 1.0, an enum is no text


def test_another_question_needs_no_hydra_and_no_text_is_written(folder, monkeypatch):
    compose("ask", ["video=a.mp4", "question=is my secret out?", "bank=here"])
    monkeypatch.setitem(sys.modules, "pipeline.config.hydra_grammar", None)
    other = compose("ask", ["question=another", "bank=there", "video=b.mp4"])
    assert (other.question, other.bank, other.video) == ("another", "there", "b.mp4")
    text = "".join(file.read_text() for file in folder.iterdir())
    assert not any(word in text for word in ("secret out", "another", "a.mp4", "here"))


def test_options_of_a_group_come_back_the_same(monkeypatch):
    first = options("clip", {"backbone": {"device": "cpu"}})
    monkeypatch.setitem(sys.modules, "pipeline.config.hydra_grammar", None)
    assert options("clip", {"backbone": {"device": "cpu"}}) == first
    with pytest.raises(ImportError):
        options("clip", {"backbone": {"device": "cuda"}})


@pytest.mark.parametrize("wrong", ["fps=x", "nothing=1", "reader=nothing", "+fps=1", "question"])
def test_a_mistake_is_told_as_before_and_leaves_no_entry(folder, wrong):
    line = ["video=a.mp4", "question=what?", wrong]
    sentences = set()
    for _ in range(2):
        with pytest.raises(UserError) as told:
            compose("ask", line)
        sentences.add(str(told.value))
    assert len(sentences) == 1 and not folder.exists()


def test_a_reference_to_the_environment_is_read_every_time(monkeypatch):
    line = ["video=a.mp4", "question=what?", "backbone.path=${oc.env:MY_MODEL}"]
    for path in ("/models/a", "/models/b"):
        monkeypatch.setenv("MY_MODEL", path)
        assert compose("ask", line).backbone["path"] == path


def test_no_file_of_conf_reads_the_environment_or_the_clock():
    files = list(Path(conf.__file__).parent.rglob("*.yaml"))
    assert len(files) > 50
    texts = [file.read_text() for file in files]
    assert not [text for text in texts if "${oc.env" in text or "${now" in text]


def test_a_changed_file_of_conf_is_seen(tmp_path, folder):
    """In a copy of the packages, by a process of its own for each command."""
    for name in ("conf", "encoders", "memory", "pipeline"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("weights"))
    program = "from pipeline.config.compose import compose; print(compose('demo', []).segmenter)"

    def printed() -> str:
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    before = printed()
    assert printed() == before and "8.0" in before
    file = tmp_path / "conf" / "segmenter" / "window.yaml"
    file.write_text(file.read_text().replace("8.0", "3.0"))
    assert printed() == before.replace("8.0", "3.0")


@pytest.mark.slow  # seconds of CPU
def test_damage_and_other_owners_mean_no_entry(folder, monkeypatch):
    line = ["video=a.mp4", "question=what?"]
    first = vars(compose("ask", line))
    (entry,) = folder.glob("*.json")
    for damaged in (b"", b"[]", b"{}", entry.read_bytes()[:-5], b'{"key": 1, "value": {}}'):
        entry.write_bytes(damaged)
        assert vars(compose("ask", line)) == first
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert ComposeCache().get(["anything"]) is None and compose_cache._folder() is None
    assert vars(compose("ask", line)) == first
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert vars(compose("ask", line)) == first


def test_old_entries_go(folder):
    cache = ComposeCache()
    for number in range(compose_cache._ENTRIES + 9):
        cache.put(["some", number], number)
        os.utime(cache._path(folder, ["some", number]), ns=(number, number))
    assert len(list(folder.iterdir())) == compose_cache._ENTRIES
    assert cache.get(["some", 3]) is None
    assert cache.get(["some", compose_cache._ENTRIES]) == compose_cache._ENTRIES

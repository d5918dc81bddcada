"""The command line: what commands print, and how they refuse mistakes.

A mistake gives one line on stderr that names the file or key, exit code 2, and no change on disk.
Commands run in this process for speed, and as a real process where that matters.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from PIL import Image

from pipeline import cli
from pipeline.config.compose import compose
from pipeline.schema import Answer, IngestReport
from tests.support.console import sentence, tree
from tests.support.paths import ROOT
from tests.support.toys import FRAME_TOKENS, toy_parts
from tests.support.videos import write_audio, write_video

SECONDS = 12
NOTHING = "not in the video"


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good video and files that are none."""
    folder = tmp_path_factory.mktemp("films")
    write_video(folder / "good.mp4", SECONDS, 5)
    write_audio(folder / "sound.m4a")
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is no video\n" * 50)
    data = (folder / "good.mp4").read_bytes()
    pictures = [Image.new("RGB", (64, 64), (20 * number, 0, 0)) for number in range(3)]
    pictures[0].save(folder / "still.webp")
    pictures[0].save(folder / "moving.webp", save_all=True, append_images=pictures[1:])
    shutil.copy(folder / "moving.webp", folder / "renamed.mp4")
    (folder / "no_moov.mp4").write_bytes(data[: len(data) // 2])  # the index is at the end
    write_video(folder / "broken.mkv", SECONDS, 5)
    data = (folder / "broken.mkv").read_bytes()
    (folder / "broken.mkv").write_bytes(data[: len(data) * 6 // 10])
    (folder / "full").mkdir()
    (folder / "full" / "notes.txt").write_text("mine")
    return folder


@pytest.fixture(scope="module")
def bank(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank with the good video."""
    folder = tmp_path_factory.mktemp("banks") / "bank"
    assert cli.run("ingest", [f"video={films / 'good.mp4'}", f"bank={folder}", *toy_parts()]) == 0
    return folder


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run a command in an empty folder: exit code, stdout, stderr (also what C libraries write)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as done:
            cli.main(arguments)
        return int(str(done.value.code)), *capfd.readouterr()

    return call


VIDEO = "{films}/good.mp4"
FILES = {
    "missing": ("{films}/gone.mp4", "no file"),
    "folder": ("{films}", "folder"),
    "text": ("{films}/text.mp4", "not a video"),
    "empty": ("{films}/empty.mp4", "empty"),
    "no moov": ("{films}/no_moov.mp4", "incomplete"),
    "sound": ("{films}/sound.m4a", "only sound"),
    "still": ("{films}/still.webp", "is a still picture"),
    "animation": ("{films}/moving.webp", "is an animated WebP, which is not supported; convert it"),
    "animation by another name": ("{films}/renamed.mp4", "is an animated WebP"),
}


@pytest.mark.parametrize("task", ["ask", "ingest"])
@pytest.mark.parametrize("name", FILES)
def test_a_bad_file_is_told_and_nothing_is_made(run, films, tmp_path, task, name):
    path, words = FILES[name]
    path = path.format(films=films)
    question = ["question=What is the code?"] if task == "ask" else []
    code, out, err = run(task, f"video={path}", *question, *toy_parts())
    assert (code, out) == (2, "")
    sentence(err, path, words)
    assert tree(tmp_path) == {}


BAD = {
    "no frame in the range": (["start=100"], "12.00 s long"),
    "no frame before the end": (["start=0.3", "end=0.7"], "frames per second"),
    "start at end": (["start=5", "end=5"], "start=5"),
    "start behind end": (["start=7", "end=5"], "start=7"),
    "negative start": (["start=-1"], "start=-1"),
    "unknown key": (["nix=1"], "nix"),
    "unknown option": (["retriever=nix"], "use one of clip, fused, kv, uniform"),
    "unknown key of a part": (["prefill.nix=1"], "prefill.nix"),
    "new key of a part": (["+prefill.nix=1"], "prefill.nix"),
    "text for a number": (["fps=abc"], "fps"),
    "fraction for a whole number": (["read_tokens=1.5"], "read_tokens"),
    "text for a part's number": (
        ["prefill.window_frames=abc"],
        "prefill.window_frames=abc does not fit; give a whole number",
    ),
    "fraction for a part's number": (["reader.max_new_tokens=1.5"], "reader.max_new_tokens=1.5"),
    "text for a nested part's number": (
        ["retriever.parts.clip.per_segment=abc"],
        "retriever.parts.clip.per_segment=abc",
    ),
    "several values": (["fps=1,2"], "fps=1,2"),
    "zero fps": (["fps=0"], "fps=0"),
    "fps that is no number": (["fps=nan"], "fps=nan"),
    "endless fps": (["fps=inf"], "fps=inf"),
    "negative fps": (["fps=-1"], "fps=-1"),
    "negative read_tokens": (["read_tokens=-1"], "read_tokens=-1"),
    "negative recent_frames": (["recent_frames=-1"], "recent_frames=-1"),
    "negative cite_share": (["cite_share=-0.1"], "cite_share=-0.1"),
    "large cite_share": (["cite_share=1.5"], "cite_share=1.5"),
    "negative threads": (["threads=-1"], "threads=-1"),
    "more threads than a machine has": (["threads=1000000000"], "use 1024 or less"),
    "a seed that is no number of torch": (
        ["seed=99999999999999999999"],
        "seed=99999999999999999999",
    ),
    "endless prefetch": (["prefetch_frames=99999999999"], "use 100000 or less"),
    "endless answer": (["reader.max_new_tokens=99999999999"], "use less"),
    "negative asked_at": (["asked_at=-1"], "asked_at=-1"),
    "negative window": (["prefill.window_frames=-1"], "prefill.window_frames=-1"),
    "unknown dtype of a part": (["prefill.dtype=int3"], "prefill.dtype=int3"),
    "unknown dtype": (["backbone.dtype=int3"], "backbone.dtype=int3"),
    "unknown dtype at rest": (
        ["kv_dtype=int3"],
        "kv_dtype=int3 is not known; use bfloat16, int8, int4, or null",
    ),
    "unknown dtype of tokens": (
        ["token_dtype=int3"],
        "token_dtype=int3 is not known; use bfloat16, int8, int4, or null",
    ),
    "nothing to quantise": (
        ["kv_dtype=int8", "prefill=none", "retriever=clip", "reader=tokens"],
        "kv_dtype=int8 has no effect",
    ),
    "unknown experiment": (["experiment=nix"], "use one of compact"),
    "bad shrink": (["compressor=shrink", "compressor.by=0"], "by=0"),
    "bad merge": (["compressor=merge", "compressor.threshold=1.5"], "threshold=1.5"),
    "no room for an answer": (["reader.max_new_tokens=0"], "reader.max_new_tokens=0"),
    "bad scene settings": (["segmenter=scene", "segmenter.lag=0"], "lag=0"),
    "bad window": (["segmenter.seconds=0"], "seconds=0"),
    "bad pool": (["compressor=pool", "compressor.size=0"], "size=0"),
    "bad rank": (["retriever=clip", "retriever.per_segment=0"], "per_segment=0"),
    "malformed": (["foo"], "foo"),
    "half a list": (["fps=[1"], "fps=[1"),
    "no key": (["=3"], "=3"),
    "refers to nothing": (["fps=${nix}"], "nix"),
    "no part": (["reader=null"], "reader"),
    "deleted part": (["~reader"], "reader"),
    "unknown format": (["format=xml"], "format=xml"),
    "empty question": (["question="], "question"),
    "blank question": (["question=   "], "question"),
    "bank is a folder of something else": (["bank={films}/full"], "{films}/full"),
    "bank is a file": (["bank={films}/text.mp4"], "{films}/text.mp4"),
    "no model there": (["backbone.path={films}/gone"], "{films}/gone"),
    "no model in the folder": (["backbone.path={films}/full"], "{films}/full"),
    "no clip model there": (["clip.model=local-dir:{films}/gone"], "{films}/gone"),
    "no such clip model": (["clip.model=nix"], "clip.model=nix"),
    "model of another family": (["backbone.path={other}"], "qwen2"),
}


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a model that is no LLaVA-OneVision."""
    from transformers import AutoConfig, AutoTokenizer

    folder = tmp_path_factory.mktemp("other")
    path = next(part for part in toy_parts() if part.startswith("backbone.path")).partition("=")[2]
    AutoTokenizer.from_pretrained(path).save_pretrained(folder)
    AutoConfig.for_model("qwen2").save_pretrained(folder)
    return folder


# of values out of range one is enough: unit/pipeline/config/test_checks.py has the others
OUT_OF_RANGE = (
    "fps that is no number",
    "negative fps",
    "negative read_tokens",
    "negative recent_frames",
    "negative cite_share",
    "large cite_share",
    "negative threads",
    "more threads than a machine has",
    "a seed that is no number of torch",
    "endless prefetch",
    "unknown dtype of tokens",
)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in OUT_OF_RANGE else []) for name in BAD],
)
def test_bad_settings_are_told_and_nothing_is_made(run, films, other, tmp_path, name):
    overrides, words = BAD[name]
    fill = {"films": films, "other": other}
    overrides = [o.replace("{films}", str(films)).replace("{other}", str(other)) for o in overrides]
    before = tree(films)
    code, out, err = run(
        "ask", f"video={films / 'good.mp4'}", "question=What is the code?", *toy_parts(), *overrides
    )
    assert (code, out) == (2, ""), err
    sentence(err, words.format(**fill) if "{" in words else words)
    assert tree(tmp_path) == {} and tree(films) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ", ".join(cli.TASKS)),
        (["nix"], "'nix'"),
        (["ask", "question=x"], "video="),
        (["ask", "video=x"], "question="),
        (["ingest"], "video="),
        (["bank", "action=ls"], "reelbank-bank"),
        (["bank", "action=verify", "bank=gone"], "gone"),
        (["bank", "action=burn"], "action=burn"),
        (["bank", "format=xml"], "format=xml"),
        (["bank", "fps=1"], "fps"),
    ],
)
def test_bad_commands(run, tmp_path, arguments, words):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    sentence(err, words)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["fps=2"], "fps=1.0 (this run: 2.0)"),
        (["compressor=pool"], "compressor=NoCompression() (this run: Pool(size=7))"),
        (["prefill.dtype=float32"], "dtype=float32"),
        (["prefill.window_frames=4"], "window_frames=32"),
        (["backbone.dtype=bfloat16"], "dtype=float32 (this run: bfloat16)"),
        (["segmenter.seconds=4"], "segmenter=FixedWindow(seconds=8.0)"),
        (["kv_dtype=int4"], "quantisation=none (this run: kv=int4, keys=causal, window=32)"),
        (["token_dtype=int8"], "quantisation=none (this run: tokens=int8)"),
        (["OTHER MODEL"], "weights="),
    ],
)
@pytest.mark.parametrize("task", ["ask", pytest.param("ingest", marks=pytest.mark.slow)])
def test_a_bank_made_otherwise_is_refused_and_stays(run, films, bank, task, overrides, words):
    before = tree(bank)
    parts = toy_parts(says="four") if overrides == ["OTHER MODEL"] else [*toy_parts(), *overrides]
    question = ["question=What is the code?"] if task == "ask" else []
    code, out, err = run(task, f"video={films / 'good.mp4'}", f"bank={bank}", *question, *parts)
    assert (code, out) == (2, "")
    sentence(err, str(bank), words, "use another bank=DIR")
    assert tree(bank) == before


def test_a_budget_below_one_frame_is_refused(run, films, bank):
    code, out, err = run(
        "ask", f"video={films / 'good.mp4'}", f"bank={bank}", "question=x", "read_tokens=3",
        *toy_parts()
    )  # fmt: skip
    assert (code, out) == (2, "")
    sentence(err, "read_tokens=3", f"{FRAME_TOKENS} tokens")


def test_traceback_on_request(films, monkeypatch):
    from encoders.errors import UserError

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(UserError, match="no file"):
        cli.main(["ask", f"video={films / 'gone.mp4'}", "question=x"])


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_as_a_process(films, tmp_path, full):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HYDRA_FULL_ERROR": "1" if full else "0"}
    command = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "ask",
        f"video={films / 'gone.mp4'}",
        "question=x",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "" and tree(tmp_path) == {}
    if full:
        assert "Traceback" in done.stderr and done.returncode == 1
    else:
        assert done.returncode == 2
        sentence(done.stderr, "gone.mp4")


def test_help_and_configuration(run, tmp_path):
    for arguments in (["--help"], ["-h"], ["help"], ["ask", "--help"]):
        code, out, err = run(*arguments)
        assert (code, err) == (0, "") and "reelbank TASK key=value" in out
        assert all(task in out for task in cli.TASKS)
    code, out, err = run("ask", "--cfg", "fps=3", "compressor=pool")
    assert (code, err) == (0, "")
    assert "fps: 3.0" in out and "encoders.compressors.Pool" in out and "question: ???" in out
    assert tree(tmp_path) == {}


QUESTIONS = [
    "In what order did the star, the circle and the heart appear?",
    "What's on the (red) card: a 'code' or a \"name\"?",
    "cost ${fps} and \\${fps}, 100 % = [all]",
    "back\\slash\\",
    "null",
    "42",
    " blanks around ",
    "one\ntwo",
    "何色ですか？",
]


@pytest.mark.parametrize("text", QUESTIONS)
def test_questions_and_paths_are_taken_as_they_stand(text):
    config = compose("ask", [f"question={text}", f"video={text}.mp4", f"bank={text}"])
    assert (config.question, config.video, config.bank) == (text, f"{text}.mp4", text)


def test_quotes_belong_to_a_question():
    assert compose("ask", ["question='a, b'"]).question == "'a, b'"
    assert compose("ask", ['question="it\'s"']).question == '"it\'s"'


def test_answer_as_text_and_json(run, films, bank):
    common = [
        "ask",
        f"video={films / 'good.mp4'}",
        f"bank={bank}",
        "question=What color is the star, please?",
    ]
    code, out, err = run(*common, *toy_parts())
    assert (code, err) == (0, "")
    text = out.splitlines()
    assert len(text) == 3 and f"{SECONDS} frames, {SECONDS * FRAME_TOKENS} visual tokens" in text[2]
    code, out, err = run(*common, *toy_parts(), "format=json", "asked_at=7.0")
    assert (code, err, out.count("\n")) == (0, "", 1)
    answer = json.loads(out)
    assert list(answer) == [field.name for field in fields(Answer)]
    assert answer["question"] == "What color is the star, please?"
    assert answer["asked_at"] == 7.0 and answer["frames_read"] == 8 and answer["warning"] == ""
    assert (
        answer["shown"] is True
        and answer["spans"]
        and all(a < b <= 8.0 for a, b in answer["spans"])
    )
    keys = {"video_id", "ordinal", "segment", "time", "end", "weight", "score"}
    assert keys == set(answer["cited"][0])
    assert {"search", "load", "lay_out", "first_token", "decode", "cite", "total"} == set(
        answer["seconds"]
    )


def test_an_answer_that_nothing_shows(run, films, tmp_path):
    common = [
        "ask",
        f"video={films / 'good.mp4'}",
        "question=What is the code?",
        *toy_parts(NOTHING),
    ]
    code, out, err = run(*common)
    assert (code, err) == (0, "")
    assert out.splitlines()[:2] == [NOTHING, "no moment of the video shows it"]
    code, out, err = run(*common, "format=json")
    answer = json.loads(out)
    assert (answer["text"], answer["shown"], answer["spans"], answer["cited"]) == (
        NOTHING,
        False,
        [],
        [],
    )
    assert answer["frames_read"] == SECONDS


def test_ingest_as_text_and_json(run, films, tmp_path):
    common = ["ingest", f"video={films / 'good.mp4'}", f"bank={tmp_path / 'b'}", *toy_parts()]
    code, out, err = run(*common)
    stored = sum(
        path.stat().st_size for path in (tmp_path / "b" / "segments").rglob("*.safetensors")
    )
    assert (code, err) == (
        0,
        "",
    ) and f"00:12 in 2 segments, 12 frames (2 new segments, {stored / 1e6:.1f} MB, " in out
    code, out, err = run(*common)
    assert (code, err) == (0, "") and "nothing new" in out
    code, out, err = run(*common, "format=json")
    done = json.loads(out)
    assert list(done) == [field.name for field in fields(IngestReport)]
    assert (done["new_segments"], done["segments"], done["frames"], done["video_seconds"]) == (
        0,
        2,
        12,
        12.0,
    )
    assert done["nbytes"] == 0


@pytest.mark.parametrize("dials", [[], ["kv_dtype=int4", "token_dtype=int4"]])
def test_ingest_tells_the_bytes_that_it_wrote(run, films, tmp_path, dials):
    code, out, _ = run(
        "ingest",
        f"video={films / 'good.mp4'}",
        f"bank={tmp_path / 'b'}",
        *toy_parts(),
        *dials,
        "format=json",
    )
    stored = sum(
        path.stat().st_size for path in (tmp_path / "b" / "segments").rglob("*.safetensors")
    )
    assert code == 0 and json.loads(out)["nbytes"] == stored > 0


@pytest.mark.slow
def test_a_part_of_a_video_is_another_video(run, films, tmp_path):
    common = [f"video={films / 'good.mp4'}", f"bank={tmp_path / 'b'}", *toy_parts()]
    ids = {}
    for overrides, frames in (
        ([], 12),
        (["start=3"], 9),
        (["end=7.5"], 8),
        (["start=3", "end=7.5"], 5),
    ):
        code, out, _ = run("ingest", *common, "format=json", *overrides)
        done = json.loads(out)
        assert code == 0 and done["frames"] == frames
        ids[tuple(overrides)] = done["video_id"]
    whole = ids[()]
    assert list(ids.values()) == [
        whole,
        f"{whole}-from-3",
        f"{whole}-to-7.5",
        f"{whole}-from-3-to-7.5",
    ]
    code, out, _ = run(
        "ask", *common, "question=What is the code?", "start=3", "end=7.5", "format=json"
    )
    answer = json.loads(out)
    assert (code, answer["frames_read"]) == (0, 5) and all(
        3 <= a < b <= 8 for a, b in answer["spans"]
    )
    code, _, err = run("ask", *common, "question=What is the code?", "start=3", "asked_at=2")
    assert code == 2
    sentence(err, "asked_at=2")


def test_a_file_that_breaks_is_used_up_to_the_break(run, films, tmp_path):
    common = [f"video={films / 'broken.mkv'}", f"bank={tmp_path / 'b'}", *toy_parts()]
    code, out, err = run("ask", *common, "question=What is the code?")
    assert (code, err) == (0, "")
    warning = next(line for line in out.splitlines() if line.startswith("warning: "))
    assert "breaks at" in warning and "only what comes before is used" in warning
    code, out, err = run("ask", *common, "question=What is the code?", "format=json")
    answer = json.loads(out)
    assert (code, err) == (0, "") and answer["warning"] in warning
    broke = float(answer["warning"].split()[4])
    assert 2 < broke < SECONDS and answer["frames_read"] == int(broke - 1e-6) + 1
    code, out, err = run("ingest", *common)
    assert (code, err) == (0, "") and "warning: " in out
    code, out, err = run("bank", f"bank={tmp_path / 'b'}")
    assert (code, err) == (0, "") and f"file breaks at {broke:.1f} s" in out


def test_bank_ls(run, films, bank):
    code, out, err = run("bank", "action=ls", f"bank={bank}")
    assert (code, err) == (0, "")
    assert (
        "fps=1.0" in out
        and "2 segments  12 frames" in out
        and "complete" in out
        and "good.mp4" in out
    )
    code, out, err = run("bank", f"bank={bank}", "format=json")
    told = json.loads(out)
    assert (code, err) == (0, "") and told["made_with"]["fps"] == 1.0
    (video,) = told["videos"]
    assert (video["frames"], video["finished"], video["broke_at"]) == (12, True, None)


def test_bank_verify(run, bank, tmp_path):
    code, out, err = run("bank", "action=verify", f"bank={bank}")
    assert (code, err) == (0, "") and "all 2 segments are whole" in out
    code, out, err = run("bank", "action=verify", f"bank={bank}", "format=json")
    assert (code, err, json.loads(out)) == (0, "", [])
    hurt = tmp_path / "hurt"
    shutil.copytree(bank, hurt)
    file = next((hurt / "segments").rglob("000001.safetensors"))
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(bytes(data))
    code, out, err = run("bank", "action=verify", f"bank={hurt}")
    assert (code, err, out.count("\n")) == (1, "", 1) and str(file) in out
    code, out, err = run("bank", "action=verify", f"bank={hurt}", "format=json")
    (problem,) = json.loads(out)
    assert (code, problem["kind"], problem["path"]) == (1, "checksum", str(file))


def test_a_question_about_a_damaged_bank(run, films, bank, tmp_path):
    shutil.copytree(bank, tmp_path / "hurt")
    file = next((tmp_path / "hurt" / "segments").rglob("000001.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])
    code, out, err = run(
        "ask", f"video={films / 'good.mp4'}", f"bank={tmp_path / 'hurt'}", "question=x",
        *toy_parts()
    )  # fmt: skip
    assert (code, out) == (2, "")
    sentence(err, str(file), "action=verify")


# ---- what reads stdout, and bytes


def shell(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """A line of bash in a folder; `$RB` is the command, as a real process."""
    environment = os.environ | {
        "RB": f"{sys.executable} -m pipeline.cli", "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"
    }  # fmt: skip
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_a_reader_that_leaves_is_left_in_silence(tmp_path):
    """`| head -1` closes the pipe; help is longer than a pipe's buffer only when it is repeated."""
    done = shell(tmp_path, "$RB --help | true")
    assert (done.returncode, done.stderr) in ((141, ""), (0, ""))
    done = shell(tmp_path, "exec 3> >(true); sleep 0.3; $RB --help >&3")
    assert (done.returncode, done.stdout, done.stderr) == (141, "", "")
    done = shell(tmp_path, "exec 3> >(true); sleep 0.3; $RB ask --cfg >&3")
    assert (done.returncode, done.stdout, done.stderr) == (141, "", "")


def test_a_full_disk_behind_stdout_is_one_sentence(tmp_path):
    done = shell(tmp_path, "$RB --help > /dev/full")
    assert done.returncode == 2
    sentence(done.stderr, "No space left on device")


def test_a_closed_stdout_and_stderr_are_no_mistake(tmp_path):
    done = shell(tmp_path, "$RB --help >&-")
    assert (done.returncode, done.stderr) == (0, "")
    done = shell(tmp_path, "$RB nix 2>&-")
    assert done.returncode == 2


@pytest.mark.parametrize("setting", ["question", "query", "format", "fps", "nix", "began"])
def test_bytes_that_are_no_utf8_are_one_sentence(run, films, setting):
    task = "find" if setting == "query" else "ask"
    value = os.fsdecode(b"caf\xe9")
    question = [] if setting in ("query", "question") else ["question=x"]
    video = [] if task == "find" else [f"video={films / 'good.mp4'}"]
    code, out, err = run(task, *video, *question, f"{setting}={value}")
    assert (code, out) == (2, "")
    sentence(err, setting)


def test_bytes_in_a_task_are_one_sentence(run):
    code, out, err = run(os.fsdecode(b"\xe9"))
    assert (code, out) == (2, "")
    sentence(err, "There is no task")


@pytest.mark.slow
def test_a_question_of_question_marks_is_a_question(run, films, bank):
    for question in ("???", "?", "??? ???"):
        code, out, err = run(
            "ask", f"video={films / 'good.mp4'}", f"bank={bank}", f"question={question}",
            "format=json", *toy_parts(),
        )  # fmt: skip
        assert (code, err) == (0, "") and json.loads(out)["question"] == question


def test_times_of_a_command_are_minutes_too(run, films, tmp_path):
    code, out, err = run(
        "ask", f"video={films / 'good.mp4'}", f"bank={tmp_path / 'bank'}", "question=x",
        "start=00:02", "end=0:10", "asked_at=0:00:05", "format=json", *toy_parts(),
    )  # fmt: skip
    answer = json.loads(out)
    assert (code, err) == (0, "") and answer["asked_at"] == 5.0
    assert answer["recalled"] == [[2.0, 6.0]]


def test_a_bank_at_home_is_at_home(run, films, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # composed settings
    (tmp_path / "home").mkdir()
    shutil.copy(films / "good.mp4", tmp_path / "home" / "v.mp4")
    code, _, err = run("ingest", "video=~/v.mp4", "bank=~/bank", *toy_parts())
    assert (code, err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["bank", "v.mp4"]
    assert not (tmp_path / "~").exists()
    code, out, err = run("bank", "bank=~/bank", "video=~/v.mp4")
    assert (code, err) == (0, "") and "v.mp4" in out


def test_a_folder_that_is_gone_is_one_sentence(run, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, out, err = run("ask", "video=a.mp4", "question=x")
    assert (code, out) == (2, "")
    sentence(err)

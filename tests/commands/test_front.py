"""The command line that people expect: words by place, options, key=value, and texts unharmed."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from encoders.errors import UserError
from pipeline.cli.arguments import parse
from pipeline.cli.commands import COMMANDS, TASKS
from pipeline.config.compose import compose
from pipeline.config.task_settings import TASK_SETTINGS
from tests.support.console import sentence, tree
from tests.support.paths import ROOT
from tests.support.toys import toy_parts
from tests.support.videos import write_video

REELBANK = [sys.executable, "-m", "pipeline.cli"]
FILM = "talk.mp4"


def overrides(command: str, *words: str) -> list[str]:
    """What a line gives to Hydra, without what tells about encoding."""
    found = parse(COMMANDS[command], words).overrides
    return [one for one in found if not one.startswith("messages=")]


# ---- words, options, settings


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["ask", FILM, "What?"], [f"video={FILM}", "question=What?"]),
        (["ask", "What?", f"video={FILM}"], ["question=What?", f"video={FILM}"]),
        (["ask", "--video", FILM, "What?"], [f"video={FILM}", "question=What?"]),
        (["ask", FILM, "question=What?"], [f"video={FILM}", "question=What?"]),
        (["ask", FILM, "What?", "-b", "films"], ["bank=films", f"video={FILM}", "question=What?"]),
        (["ask", "--json", FILM, "x"], ["format=json", f"video={FILM}", "question=x"]),
        (["ask", FILM, "x", "--at=1:30"], ["asked_at=1:30", f"video={FILM}", "question=x"]),
        (["ask", FILM, "x", "fps=2"], [f"video={FILM}", "question=x", "fps=2"]),
        (["ask", FILM, "x", "-o", "fps=2"], [f"video={FILM}", "question=x", "fps=2"]),
        (["ask", FILM, "x", "-ofps=2"], [f"video={FILM}", "question=x", "fps=2"]),
        (["ask", FILM, "x", "-m", "b"], ["backbone=b", f"video={FILM}", "question=x"]),
        (["serve", "-m", "http://h:1/v1"], ["backbone=endpoint", "backbone.url=http://h:1/v1"]),
        (["ask", FILM, "x", "-m", "http://h:1/v1", "--model-name", "m"],
         ["backbone=endpoint", "backbone.url=http://h:1/v1", "backbone.model=m", f"video={FILM}",
          "question=x"]),
        (["ask", FILM, "x", "--model-name=m", "backbone=endpoint"],
         ["backbone.model=m", f"video={FILM}", "question=x", "backbone=endpoint"]),
        (["ask", FILM, "b.mp4", "What?"], [f"video={FILM}", "question=What?", "also=[b.mp4]"]),
        (["ask", FILM, "b.mp4", "question=What?"],
         [f"video={FILM}", "also=[b.mp4]", "question=What?"]),
        (["ask", FILM, "it's,a.mp4", "./b.mp4", "--", "-5?"],
         [f"video={FILM}", "question=-5?", r"also=['it\'s,a.mp4','./b.mp4']"]),
        (["find", FILM, "b.mp4", "red car"],
         [f"video={FILM}", "encode=true", "query=red car", "also=[b.mp4]"]),
        (["ask", "--all", "x", "-b", "A", "--bank", "B", "--bank=C"],
         ["video=*", "bank=A", "question=x", "also_banks=[B,C]"]),
        (["find", "red car"], ["query=red car"]),
        (["find", FILM, "red car"], [f"video={FILM}", "encode=true", "query=red car"]),
        (["find", "x", "-k", "3"], ["top=3", "query=x"]),
        (["find", "x", "-k3"], ["top=3", "query=x"]),
        (["find", "x", "--top=3", "top=4"], ["top=3", "query=x", "top=4"]),  # the last one counts
        (["add", FILM], [f"video={FILM}"]),
        (["bank"], []),
        (["bank", "ls"], ["action=ls"]),
        (["bank", "ls", FILM], ["action=ls", f"video={FILM}"]),
        (["bank", "prune", "--older-than", "7d", "-n"],
         ["older_than=7d", "dry_run=true", "action=prune"]),
        (["batch", "jobs.csv", "-o", "out"], ["out=out", "jobs=jobs.csv"]),
        (["batch", "jobs.csv", "-o", "out", "-o", "fps=2"], ["out=out", "jobs=jobs.csv", "fps=2"]),
        (["needle", "smoke", "-o", "out"], ["out=out", "preset=smoke"]),
        (["bench", "smoke", "--out=out"], ["out=out", "bench_preset=smoke"]),
        (["serve", "--port", "0", "--model", "b"], ["port=0", "backbone=b"]),
        (["models", "b", "backbone.path=c"], ["backbone=b", "backbone.path=c"]),
        (["models", "qwen3_vl_2b", "--json"], ["format=json", "backbone=qwen3_vl_2b"]),
    ],
)  # fmt: skip
def test_a_line_gives_settings(line, expected):
    assert overrides(*line) == expected


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["ask", FILM, "--jsn", "x"], ("--jsn", "use --json", "--")),
        (["ask", FILM, "x", "--bank"], ("--bank has no value", "--bank DIR")),
        (["ask", FILM, "x", "--bank", "--json"], ("--bank has no value",)),
        (["ask", FILM, "x", "--json=1"], ("--json takes no value",)),
        (["ask", FILM, "red", "car"], ("FILM and QUESTION", "'car'", "quotes")),
        (["add", FILM, "-b", "A", "-b", "B"], ("reelbank add works with one bank", "-b once")),
        (["ask", FILM, "x", "--resident", "-b", "A", "-b", "B"], ("--resident", "one bank")),
        (["find", FILM, "red", "car"], ("FILM and QUERY", "'car'", "quotes")),
        (["models", "a", "b"], ("NAME", "'b'")),
        (["ask", FILM, "x", "-m", "/"], ("-m NAME -o backbone.path=/",)),
        (["serve", "--jsn"], ("no option --jsn",)),
        (["ask", FILM, "x", "--model-name", "m"], ("--model-name m", "address", "--model http://")),
        (["ask", FILM, "x", "-m", "b", "--model-name=m"], ("--model-name m", "--model http://")),
    ],
)
def test_a_wrong_line_is_one_sentence(run, tmp_path, monkeypatch, line, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*line)
    assert (code, out) == (2, "") and tree(tmp_path) == {}
    sentence(err, *words)


def test_every_option_goes_to_a_key_of_its_task():
    for command in COMMANDS.values():
        if not command.task:
            continue
        kinds = ("bank", "repair") if command.task == "bank" else (command.task,)
        keys = {key for kind in kinds for key in TASK_SETTINGS[kind].__dataclass_fields__}
        groups = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}
        flags = [one for one in command.options if not (one.takes_value or "=" in one.setting)]
        assert {one.setting for one in flags} <= {"resident"}  # of the front itself
        for one in (*(one for one in command.options if one not in flags), *command.slots):
            assert one.setting.partition("=")[0].partition(".")[0] in keys | groups, (
                command.name,
                one,
            )


# ---- texts

ANY = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
    st.from_regex(r"[\w =,\[\]{}'\"$%~+\-\n🎬é]{1,30}", fullmatch=True),
)
BYTES = st.binary(min_size=1).filter(lambda data: b"\0" not in data).map(os.fsdecode)


@pytest.mark.slow
@given(film=ANY | BYTES, question=ANY)
@example(film="*", question="0")  # no pattern
@settings(max_examples=80, deadline=None)
def test_texts_behind_two_dashes_are_taken_as_they_stand(film, question):
    assert overrides("ask", "--", film, question) == [f"video={film}", f"question={question}"]
    assert overrides("ask", f"--video={film}", "--", question)[-1] == f"question={question}"
    assert overrides("find", "--bank", "b", "--", question) == ["bank=b", f"query={question}"]


@given(question=ANY)
@settings(max_examples=80, deadline=None)
def test_a_question_is_taken_as_it_stands(question):
    """Without `--`: unless it begins with a key of the task and =, or is written as an option."""
    words = question.split()
    assume((words and not question.startswith("-")) or len(words) > 1)
    key = question.lstrip("+~").partition("=")[0]
    assume(key.split(".")[0] not in TASK_SETTINGS["ask"].__dataclass_fields__)
    # os.path: a question may be longer than the name of a file
    assume(not os.path.isdir(ROOT / "conf" / key.split(".")[0].split("@")[0].split("/")[0]))
    assume(key.split(".")[0] not in COMMANDS["ask"].options and question != "--")
    assume(not question.startswith("hydra"))
    assert overrides("ask", FILM, question)[-1] == f"question={question}"
    assert overrides("find", FILM, "--", question)[-1] == f"query={question}"


@given(question=ANY, film=ANY)
@settings(max_examples=6, deadline=None)
def test_what_a_line_gives_is_what_the_task_gets(question, film):
    """In both grammars, to the settings that Hydra composed."""
    assume(film.strip("~") == film)  # ~ is the home folder
    new = compose("ask", parse(COMMANDS["ask"], ["--", film, question]).overrides)
    old = compose(
        "ask", parse(COMMANDS["ask"], [f"video={film}", f"question={question}"]).overrides
    )
    assert (new.video, new.question) == (old.video, old.question) == (film, question)


@pytest.mark.parametrize(
    "question",
    [
        "fps=2 means what?",
        "x=5",
        "is a=b, or [c]?",
        "-5 degrees?",
        "--- what is this ---",
        "-",
        "- who?",
        "--json or not?",
        "'quoted' and \"quoted\"",
        "one\ntwo",
        "🎬 ¿qué?",
        "${fps} {x} %20",
        "~",
        "+1?",
        "???",
    ],
)
def test_a_question_that_looks_like_something_else(question):
    assert overrides("ask", FILM, question) == [f"video={FILM}", f"question={question}"]
    assert overrides("find", FILM, question)[-1] == f"query={question}"


NAMES = (
    "a b.mp4",
    "100%.mp4",
    "a=b.mp4",
    "fps=2.mp4",
    "it's.mp4",
    "a,b.mp4",
    "été 中 🎬.mp4",
    "-i.mp4",
    "--jsn",
    "[1].mp4",
    "*.mp4",
    "\n.mp4",
    os.fsdecode(b"caf\xe9.mp4"),
)


@pytest.mark.parametrize("name", NAMES)
def test_a_film_of_any_name_is_told_by_its_place(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).touch()
    (tmp_path / "other.mp4").touch()
    assert overrides("ask", name, "What?") == [f"video={name}", "question=What?"]
    assert overrides("find", name, "x") == [f"video={name}", "encode=true", "query=x"]
    call = parse(COMMANDS["add"], [name, "other.mp4"])
    assert call.words == (name, "other.mp4")
    assert compose("ask", overrides("ask", name, "What?")).video == name


# ---- light


def test_help_imports_nothing_heavy():
    """Nor does the way from a line to its settings."""
    code = (
        "import sys; from pipeline.cli import main\n"
        "from pipeline.cli.arguments import parse; from pipeline.cli.commands import COMMANDS\n"
        "parse(COMMANDS['find'], ['a.mp4', 'x', '-k', '3', 'fps=2'])\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'hydra', 'omegaconf', 'numpy', 'torch', 'rich', 'yaml', 'av', 'transformers'}\n"
        "print(heavy & set(sys.modules), file=sys.stderr)"
    )
    for words in (["--help"], ["ask", "--help"], ["--version"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=ROOT, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.stderr == "set()\n", done.stderr


def test_help_takes_a_quarter_of_a_second_of_cpu():
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*REELBANK, "--help"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(taken) <= 0.25, taken


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_page_with_an_example(run, name):
    for words in ((name, "-h"), (name, "--help"), ("help", name)):
        code, out, err = run(*words)
        assert (code, err) == (0, "") and f"example: {COMMANDS[name].example}\n" in out
        assert max(map(len, out.splitlines())) <= 100
    for option in COMMANDS[name].options:
        assert all(one in out for one in option.names)
    _, command, *words = COMMANDS[name].example.split()
    assert command == name


def test_the_overview_names_every_command(run):
    code, out, _ = run("--help")
    assert code == 0 and all(command.usage in out for command in COMMANDS.values())
    assert max(map(len, out.splitlines())) <= 100


def test_the_version(run):
    code, out, err = run("--version")
    assert (code, err) == (0, "") and out.startswith("reelbank 0.")


# ---- run


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two films."""
    folder = tmp_path_factory.mktemp("films")
    write_video(folder / "a=1 'b'.mp4", 12, 5)
    write_video(folder / "two.mp4", 9, 5)
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's data folder, and nobody has chosen a bank."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("REELBANK_BANK")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def test_a_first_question_and_a_first_search(run, films, home):
    """Encoding is told in the user's units, and the bank is named once, when it is made."""
    film, bank = str(films / "a=1 'b'.mp4"), home / "data" / "reelbank"
    code, out, err = run("ask", film, "What is -- the code?", *toy_parts())
    told = err.splitlines()
    assert code == 0 and "12 frames" in out and len(told) == 3
    assert told[0].startswith("a=1 'b'.mp4: 12 s in ") and "x real time, " in told[0]
    assert told[0].endswith(" MB") and not told[0].endswith(" 0.0 MB")
    assert told[1].startswith("next: reelbank find '/")
    assert told[2].startswith(f"reelbank: the bank is {bank}") and bank.is_dir()
    assert tree(home / "here") == {}
    code, _, err = run("ask", film, "And now?", *toy_parts())
    assert (code, err) == (0, "")  # nothing is encoded, and nothing is told
    code, out, err = run("find", str(films / "two.mp4"), "a star", "-k", "1", *toy_parts()[:2])
    assert code == 0 and out.count("\n") == 1 and "two.mp4" in out
    assert err.startswith("two.mp4: 9.0 s in ") and "next: reelbank ask " in err
    code, out, err = run("find", "a star", *toy_parts()[:2])
    assert (code, err) == (0, "") and "two.mp4" in out and "a=1 'b'.mp4" in out


def test_a_question_that_counts_is_told_of_route(run, films, tmp_path):
    line = ["ask", str(films / "two.mp4"), "-b", str(tmp_path), *toy_parts()]
    code, _, err = run(*line, "How many names were shown?")
    assert code == 0 and err.splitlines()[-1].startswith("hint: counts, orders and summaries need ")
    for words in (["What is the code?"], ["How many names were shown?", "--quiet"]):
        assert run(*line, *words)[::2] == (0, "")
    code, _, err = run(*line, "How many names were shown?", "--answer", "map_reduce")
    assert (code, err) == (0, "")


def test_json_and_quiet_print_the_answer_alone(run, films, tmp_path):
    film = str(films / "two.mp4")
    code, out, err = run("ask", film, "x=1?", "--json", "-b", str(tmp_path / "a"), *toy_parts())
    assert (code, err) == (0, "") and json.loads(out)["question"] == "x=1?"
    code, out, err = run("add", film, "-q", "-b", str(tmp_path / "b"), *toy_parts())
    assert (code, err) == (0, "") and "9 frames" in out


def test_several_films_are_added_and_a_bad_one_is_told(run, films, tmp_path, monkeypatch):
    monkeypatch.chdir(films)
    common = ["--bank", str(tmp_path / "bank"), *toy_parts()]
    code, out, err = run("add", "gone.mp4", "*.mp4", *common)
    assert code == 2 and out.count(" frames (") == 2
    assert "reelbank: There is no file gone.mp4; check the path.\n" in err
    assert err.count("x real time, ") == 2 and err.count("next: reelbank ask two.mp4 ") == 1
    code, out, err = run("add", "*.mp4", "--json", *common)
    assert (code, err) == (0, "")
    assert [json.loads(line)["new_segments"] for line in out.splitlines()] == [0, 0]
    code, out, err = run("bank", "ls", "-b", str(tmp_path / "bank"))
    assert (code, err) == (0, "") and out.count("complete") == 2
    code, out, err = run("bank", "verify", "-b", str(tmp_path / "bank"))
    assert (code, err) == (0, "")
    broken = tmp_path / "broken.mp4"
    film = (films / "two.mp4").read_bytes()
    at = film.index(b"mdat") + 4  # the header of the film stays, and its pictures are zero
    size = int.from_bytes(film[at - 8 : at - 4]) - 8
    broken.write_bytes(film[:at] + bytes(size) + film[at + size :])
    code, _, err = run("add", str(broken), *common)
    assert code == 2
    sentence(err, "broken.mp4", "no frame")
    assert run("bank", "ls", "-b", str(tmp_path / "bank"))[1].count(".mp4") == 2


def test_a_bank_of_before_is_pointed_at(run, home):
    (home / "here" / "reelbank-bank").mkdir()
    (home / "here" / "reelbank-bank" / "bank.json").touch()
    code, out, err = run("bank", "ls")
    told = err.splitlines()
    assert (code, out, len(told)) == (2, "", 2) and "--bank reelbank-bank" in told[0]


def test_what_lacks_a_question_or_a_query_is_one_sentence(run, films, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    film = str(films / "two.mp4")
    for words in (["ask", film], [film]):
        code, out, err = run(*words)
        assert (code, out) == (2, "")
        sentence(err, "no question", "two.mp4")
    code, out, err = run("find", film)
    assert (code, out) == (2, "")
    sentence(err, "nothing to find in", "QUERY")
    code, out, err = run("--bank", "x", "ask")
    assert (code, out) == (2, "")
    sentence(err, "--bank stands where the command has to")
    assert tree(tmp_path) == {}


def test_verbose_shows_where_an_error_comes_from(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run("ask", "gone.mp4", "x", "-v")
    assert (code, out) == (2, "") and err.startswith("Traceback")
    assert err.endswith("reelbank: There is no file gone.mp4; check the path.\n")


@pytest.mark.slow
def test_bytes_that_are_no_utf8_as_a_process(tmp_path):
    name = b"caf\xe9 '=.mp4"
    write_video(tmp_path / "plain.mp4", 9, 5)
    os.rename(tmp_path / "plain.mp4", os.fsencode(tmp_path) + b"/" + name)
    parts = [os.fsencode(part) for part in toy_parts()]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "REELBANK_BANK": str(tmp_path / "bank")}
    command = [os.fsencode(word) for word in REELBANK]
    done = subprocess.run(
        [*command, b"ask", name, b"-x= \xc3\xa9?", b"--json", *parts],
        cwd=tmp_path, env=environment, capture_output=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b""), done.stderr
    assert json.loads(done.stdout)["question"] == "-x= é?"
    done = subprocess.run(
        [*command, b"bank", b"ls", name], cwd=tmp_path, env=environment, capture_output=True
    )
    assert done.returncode == 0 and name in done.stdout


def test_a_setting_that_the_task_does_not_have(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run("ask", FILM, "What?", "-o", "nix=1")
    assert (code, out) == (2, "")
    sentence(err, "nix= is no setting of `reelbank ask`")


def test_the_commands_of_all_versions_are_there():
    assert set(TASKS) <= set(COMMANDS) and set(COMMANDS) >= {"add", "models"}
    with pytest.raises(UserError, match="no option"):
        parse(COMMANDS["ask"], ["--nix"])

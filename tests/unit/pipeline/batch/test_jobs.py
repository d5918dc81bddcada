"""Job files of all formats become one list of jobs; bad rows are rejected with file and line."""

import datetime
import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow
import pyarrow.parquet
import pytest

from encoders.errors import UserError
from pipeline.batch import job_files, tasks
from pipeline.batch.fetch import fetch
from pipeline.batch.schema import RejectedRow
from tests.support.job_files import collected, write

ROWS: list[dict[str, Any]] = [
    {
        "id": "1",
        "video": "a.mp4",
        "question": "What, and\nwhy?",
        "options": ["A. red", "B. blue"],
        "answer": "b",
    },
    {
        "id": "2",
        "video": "b/ü.mp4",
        "question": "Wo?",
        "options": None,
        "answer": "here",
        "asked_at": 12.5,
        "end": 20,
    },
]


@pytest.mark.parametrize("suffix", job_files.SUFFIXES)
def test_every_kind_of_file_gives_the_same_jobs(tmp_path, suffix):
    found, bad = collected(write(tmp_path / f"rows{suffix}", ROWS))
    assert bad == []
    first, second = found
    assert (first.id, first.question, first.options) == ("1", "What, and\nwhy?", ("red", "blue"))
    assert (first.answer, first.letter, first.video) == ("blue", "B", str(tmp_path / "a.mp4"))
    assert (second.answer, second.letter, second.options) == ("here", None, ())
    assert (second.asked_at, second.start, second.end) == (12.5, 0.0, 20.0)
    assert second.video == str(tmp_path / "b" / "ü.mp4")


REFUSED = {  # a row -> words of the refusal
    "no video": ({"question": "q"}, "the column video is missing; it has question"),
    "empty question": ({"video": "v", "question": " "}, "the column question is empty"),
    "no answer": (
        {"video": "v", "question": "q", "options": ["a", "b"]},
        "options without an answer",
    ),
    "letter beyond": (
        {"video": "v", "question": "q", "options": ["x", "y"], "answer": "C"},
        "answer='C' is neither",
    ),
    "another text": (
        {"video": "v", "question": "q", "options": ["x", "y"], "answer": "z"},
        "answer='z' is neither",
    ),
    "letter and another text": (
        {"video": "v", "question": "q", "options": ["x", "y"], "answer": "A. y"},
        "neither",
    ),
    "one option": (
        {"video": "v", "question": "q", "options": ["x"], "answer": "A"},
        "2 to 26 texts",
    ),
    "empty option": (
        {"video": "v", "question": "q", "options": ["x", ""], "answer": "A"},
        "none of them empty",
    ),
    "options in no list": (
        {"video": "v", "question": "q", "options": 3, "answer": "A"},
        "is no list",
    ),
    "broken list": (
        {"video": "v", "question": "q", "options": "[1,", "answer": "A"},
        "not a list in JSON",
    ),
    "no time": ({"video": "v", "question": "q", "asked_at": "noon"}, "asked_at='noon' is no time"),
    "negative time": ({"video": "v", "question": "q", "start": -1}, "start=-1 is no time"),
    "start behind end": (
        {"video": "v", "question": "q", "start": 5, "end": 5},
        "start=5 is not before end=5",
    ),
    "a rule": ({"video": "v", "question": "q", "rule": "nix"}, "rule='nix' is not known"),
    "a prompt": ({"video": "v", "question": "q", "prompt": "what?"}, "prompt='what?' asks nothing"),
    "no spans": ({"video": "v", "question": "q", "evidence": [1, 2]}, "no list of [start, end]"),
    "evidence that ends before it begins": (
        {"video": "v", "question": "q", "evidence": [[4, 2]]},
        "evidence holds [4.0, 2.0]",
    ),
    "endless evidence": (
        {"video": "v", "question": "q", "evidence": [[4, float("inf")]]},
        "no start and end",
    ),
    "further answers to none": (
        {"video": "v", "question": "q", "accepted": ["red"]},
        "further answers to an open question",
    ),
    "further answers beside options": (
        {"video": "v", "question": "q", "options": ["x", "y"], "answer": "A", "accepted": ["y"]},
        "further answers to an open question",
    ),
    "an empty further answer": (
        {"video": "v", "question": "q", "answer": "red", "accepted": "crimson|"},
        "holds an empty text",
    ),
    "glob of the whole disk": ({"video": "/**/*.mp4", "question": "q"}, "the whole disk"),
    "glob of every folder": ({"video": "/*/**", "question": "q"}, "the whole disk"),
    "glob of nothing": ({"video": "none-*.mp4", "question": "q"}, "matches no file"),
    "unknown protocol": ({"video": "nix://x/*.mp4", "question": "q"}, "cannot be looked up"),
}


def test_columns_that_scores_need(tmp_path):
    """As a list, and as texts with bars between them; a question is the same without them."""
    plain = {"id": "1", "video": "v", "question": "q", "answer": "red"}
    whole = plain | {
        "accepted": ["crimson", "dark red"],
        "evidence": [[8, 11], [20.5, 30]],
        "pair": "p",
        "group": "g",
        "category": "c",
    }
    found, bad = collected(write(tmp_path / "rows.jsonl", [whole]))
    listed, also_bad = collected(
        write(tmp_path / "bars.jsonl", [whole | {"accepted": "crimson| dark red"}])
    )
    assert bad == also_bad == [] and listed[0].accepted == found[0].accepted
    job = found[0]
    assert (job.answer, job.accepted) == ("red", ("crimson", "dark red"))
    assert (job.pair, job.group, job.category) == ("p", "g", "c")
    assert job.evidence == ((8.0, 11.0), (20.5, 30.0))
    unscored = collected(
        write(tmp_path / "plain.jsonl", [plain | {"evidence": [[8, 11], [20.5, 30]]}])
    )[0][0]
    assert job.digest() == unscored.digest()


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_row_is_told_with_its_line_and_the_rest_goes_on(tmp_path, name):
    row, words = REFUSED[name]
    path = write(tmp_path / "rows.jsonl", [ROWS[0], row, ROWS[1]])
    found, bad = collected(path)
    assert [job.id for job in found] == ["1", "2"]
    assert len(bad) == 1 and bad[0].place == "rows.jsonl line 2" and words in bad[0].why, bad


def test_lines_that_cannot_be_read(tmp_path):
    good = json.dumps(ROWS[1]).encode()
    lines = [b"\xef\xbb\xbf" + good, b'{"video": "\xff.mp4"}', b"", b"{", b"[1]"]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines))
    found, bad = collected(tmp_path / "rows.jsonl")
    assert [job.id for job in found] == ["2"]
    words = [
        ("rows.jsonl line 2", "not UTF-8"),
        ("rows.jsonl line 4", "not JSON"),
        ("rows.jsonl line 5", "not an object"),
    ]
    assert len(bad) == 3 and all(
        one.place == place and told in one.why
        for one, (place, told) in zip(bad, words, strict=True)
    )


def test_records_of_csv_that_cannot_be_read(tmp_path):
    lines = [
        "video,question",
        'a.mp4,"one\ntwo"',
        "b.mp4,\udcff",
        "c.mp4",
        'd.mp4,"x"y',
        "e.mp4,last",
    ]
    (tmp_path / "rows.csv").write_bytes("\n".join(lines).encode(errors="surrogateescape"))
    found, bad = collected(tmp_path / "rows.csv")
    assert [job.question for job in found] == ["one\ntwo", "last"]
    told = [(one.place, one.why.split(";")[0]) for one in bad]
    assert told[:2] == [
        ("rows.csv line 4", "not UTF-8"),
        ("rows.csv line 5", "1 cells under 2 column names"),
    ]
    assert len(bad) == 3 and bad[2].place == "rows.csv line 6" and "not CSV" in bad[2].why


def test_ids_stand_once(tmp_path):
    """A repeated id is rejected. Without ids, equal rows share one, and order is irrelevant."""
    bare = [{"video": "v.mp4", "question": f"q{i}"} for i in range(3)]
    found, bad = collected(
        write(tmp_path / "rows.jsonl", [ROWS[0], ROWS[0] | {"question": "other"}, *bare, bare[1]])
    )
    assert [one.place for one in bad] == ["rows.jsonl line 2", "rows.jsonl line 6"]
    assert "id 1 stands at rows.jsonl line 1 already" in bad[0].why
    moved, _ = collected(write(tmp_path / "moved.jsonl", bare[::-1]))
    assert {job.id for job in moved} == {job.id for job in found[1:]} and len(moved) == 3


FILES = {
    "missing": ("gone.jsonl", None, "There is no file"),
    "kind": ("rows.xlsx", b"x", "of no known kind"),
    "parquet": ("rows.parquet", b"PAR1 or not", "not a Parquet file"),
    "json": ("rows.json", b"[1", "not JSON in UTF-8"),
    "no list": ("rows.json", b'{"a": 1}', "holds no list of rows"),
    "column names": (
        "rows.csv",
        b"vid\xff,question\na,b\n",
        "holds the column names and is not UTF-8",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path, name):
    file, data, words = FILES[name]
    if data is not None:
        (tmp_path / file).write_bytes(data)
    with pytest.raises(UserError, match=words):
        list(job_files.rows(tmp_path / file))


def test_a_glob_asks_of_every_file(tmp_path):
    for name in ("b.mp4", "a.mp4", "[1].mp4"):
        (tmp_path / name).write_bytes(name.encode())
    rows = [
        {"id": "g", "video": "?.mp4", "question": "q"},
        {"id": "h", "video": "[1].mp4", "question": "q"},
    ]
    found, bad = collected(write(tmp_path / "rows.jsonl", rows))
    assert bad == []
    assert [(job.id, Path(job.video).name) for job in found] == [
        ("g@a.mp4", "a.mp4"),
        ("g@b.mp4", "b.mp4"),
        ("h", "[1].mp4"),
    ]


def test_videos_at_urls(tmp_path):
    """fsspec's in-memory file system: globbed, fetched once, never visible half-fetched."""
    memory = fsspec.filesystem("memory")
    memory.pipe({"/batch/a.mp4": b"film a", "/batch/b.mp4": b"film b"})
    found, bad = collected(
        write(
            tmp_path / "rows.jsonl", [{"id": "g", "video": "memory://batch/*.mp4", "question": "q"}]
        )
    )
    assert bad == [] and [job.id for job in found] == ["g@a.mp4", "g@b.mp4"]
    path = fetch(found[0].video, tmp_path / "kept")
    assert path.read_bytes() == b"film a"
    memory.rm("/batch", recursive=True)
    assert fetch(found[0].video, tmp_path / "kept") == path  # not asked for again
    with pytest.raises(UserError, match="cannot be fetched"):
        fetch(found[1].video, tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == [path]


def test_shards_are_the_whole_and_keep_videos_together(tmp_path):
    rows = [{"video": f"{i % 20}.mp4", "question": f"q{i}"} for i in range(100)]
    found, _ = collected(write(tmp_path / "rows.jsonl", rows))
    parts = [tasks.select_shard(found, f"{k}/3") for k in range(3)]
    assert sorted(job.id for some in parts for job in some) == sorted(job.id for job in found)
    videos = [{job.video for job in some} for some in parts]
    assert all(videos) and sum(map(len, videos)) == 20
    for wrong in ("3/3", "1", "a/b", "-1/2"):
        with pytest.raises(UserError, match="shard="):
            tasks.select_shard(found, wrong)


# ---- text that is none

HALF = "What is the code \ud83d on the card?"  # an emoji that a JavaScript slice has cut


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json"])
@pytest.mark.parametrize(
    "values",
    [
        {"question": HALF},
        {"question": "\ude00"},
        {"video": "\ud83d.mp4"},
        {"id": "\ud83d"},
        {"options": ["red", "\udc00"], "answer": "red"},
        {"answer": "\ud800"},
        {"evidence": [["\ud83d", 2]]},
        {"more": {"deep": [{"\ud83d": 1}]}},
        {"\ud83d": 1},
    ],
)
def test_half_a_character_rejects_its_row_alone(tmp_path, suffix, values):
    rows = [{"video": "a.mp4", "question": "x"} | values, {"video": "a.mp4", "question": "y"}]
    path = tmp_path / f"jobs{suffix}"
    text = json.dumps(rows)
    if suffix != ".json":
        text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text)
    found, (refused,) = collected(path)
    assert [job.question for job in found] == ["y"]
    assert refused.place.endswith(" 1") and "holds half a character" in refused.why
    str(refused).encode()  # it can be printed


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("data", [b"\xed\xa0\xbd", b"caf\xe9", b"\xff", b"\xc3("])
def test_bytes_that_are_no_utf8_reject_their_row_alone(tmp_path, suffix, data):
    sign = b"," if suffix == ".csv" else b"\t"
    rows = [(b"video", b"question"), (b"a.mp4", data), (b"a.mp4", b"y")]
    path = tmp_path / f"jobs{suffix}"
    path.write_bytes(b"".join(sign.join(row) + b"\n" for row in rows))
    found, (refused,) = collected(path)
    assert [job.question for job in found] == ["y"]
    assert (refused.place, refused.why) == (
        f"jobs{suffix} line 2", "not UTF-8; save the file as UTF-8"
    )  # fmt: skip


def test_parquet_with_bytes_that_are_no_utf8_rejects_its_row_alone(tmp_path):
    texts = pyarrow.array([b"x", b"\xed\xa0\xbd", b"y"]).view(pyarrow.string())
    table = pyarrow.table({"video": ["a.mp4"] * 3, "question": texts})
    pyarrow.parquet.write_table(table, tmp_path / "jobs.parquet")
    found, (refused,) = collected(tmp_path / "jobs.parquet")
    assert [job.question for job in found] == ["x", "y"]
    assert refused == RejectedRow("jobs.parquet row 2", "not UTF-8; write its texts as UTF-8")


@pytest.mark.parametrize("line", ["1" * 5000, "[" * 100_000, '{"video": ' + "9" * 5000 + "}"])
def test_json_that_python_refuses_rejects_its_row_alone(tmp_path, line):
    path = tmp_path / "jobs.jsonl"
    path.write_text(line + "\n" + json.dumps({"video": "a.mp4", "question": "y"}) + "\n")
    found, (refused,) = collected(path)
    assert [job.question for job in found] == ["y"]
    assert refused.place == "jobs.jsonl line 1" and refused.why.startswith("not ")


@pytest.mark.parametrize("text", ["5", '"text"', "null", "true", "{}", '{"a": 1}', "[" * 100_000])
def test_json_that_is_no_list_of_rows_is_one_sentence(tmp_path, text):
    (tmp_path / "jobs.json").write_text(text)
    with pytest.raises(UserError) as refused:
        list(job_files.rows(tmp_path / "jobs.json"))
    assert "check jobs=" in str(refused.value) and len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "sign", "words"),
    [
        ("jobs.csv", ";", "has semicolons between its columns, and a .csv file needs commas"),
        ("jobs.csv", "\t", "has tabs between its columns, and a .csv file needs commas"),
        ("jobs.csv", "|", "has bars between its columns, and a .csv file needs commas"),
        ("jobs.tsv", ",", "has commas between its columns, and a .tsv file needs tabs"),
        ("jobs.tsv", ";", "has semicolons between its columns, and a .tsv file needs tabs"),
    ],
)
def test_another_sign_between_the_columns_is_named(tmp_path, name, sign, words):
    (tmp_path / name).write_text(f"\ufeffvideo{sign}question\na.mp4{sign}x\n", encoding="utf-8")
    with pytest.raises(UserError, match=words):
        list(job_files.rows(tmp_path / name))


def test_a_video_of_a_row_may_lie_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = write(tmp_path / "jobs.jsonl", [{"video": "~/a.mp4", "question": "x"}])
    (job,), _ = collected(path)
    assert job.video == str(tmp_path / "home" / "a.mp4")


def test_times_of_a_row_are_those_of_the_command_line(tmp_path):
    row = {"video": "a.mp4", "question": "x", "start": "00:01", "end": "1:00", "asked_at": "0:02"}
    (job,), _ = collected(write(tmp_path / "jobs.jsonl", [row]))
    assert (job.start, job.end, job.asked_at) == (1.0, 60.0, 2.0)


def test_parquet_with_texts_as_bytes_and_times_of_day_is_read(tmp_path):
    table = pyarrow.table(
        {
            "video": [b"a.mp4", b"a.mp4\xff"],
            "question": [b"x", b"y"],
            "options": [[b"red", b"blue"], [b"red", b"blue"]],
            "answer": [b"A", b"A"],
            "start": [datetime.timedelta(seconds=1)] * 2,
            "asked_at": [datetime.time(0, 0, 3)] * 2,
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "jobs.parquet")
    (job,), (refused,) = collected(tmp_path / "jobs.parquet")
    assert (job.question, job.options, job.start, job.asked_at) == ("x", ("red", "blue"), 1.0, 3.0)
    assert job.video == str(tmp_path / "a.mp4") and refused.why.startswith("not UTF-8")


@pytest.mark.parametrize("video", ["***", "a**", "**b/*"])
def test_a_pattern_that_is_none_rejects_its_row_alone(tmp_path, video):
    rows = [{"video": video, "question": "x"}, {"video": "a.mp4", "question": "y"}]
    found, (refused,) = collected(write(tmp_path / "jobs.jsonl", rows))
    assert [job.question for job in found] == ["y"] and video in refused.why

"""`reelbank import`: real films and banks; what was imported is found, asked for, and replaced."""

import json
from pathlib import Path

import pytest

from encoders.text.lines import TextBlock, TextLine, TextSpan
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from memory.schema import Question
from memory.storage import crash_points
from pipeline import cli
from pipeline.answer.quotes.quoter import Quoter
from tests.support.console import sentence, tree
from tests.support.toys import toy_parts
from tests.support.videos import write_video

DOG = [
    {"time": time, "class": "dog", "score": score, "box": [16, 16, 32, 32]}
    for time, score in ((3, 0.9), (4, 0.95), (5, 0.2), (6, 0.9), (12, 0.3), (15, 0.8))
]


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory, film: Path) -> Path:
    """Of pictures alone."""
    root = tmp_path_factory.mktemp("import") / "bank"
    assert cli.run("ingest", [f"video={film}", f"bank={root}", "text=none", *toy_parts()]) == 0
    return root


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    path = tmp_path / "boxes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in DOG))
    return path


def found(run, bank: Path, query: str, channel: str) -> list[tuple[float, float]]:
    words = ("find", query, "--bank", str(bank), f"channels=[{channel}]", "--json")
    code, out, err = run(*words)
    assert code == 0, err
    return [(one["start"], one["end"]) for one in json.loads(out)["moments"]]


def test_detections_are_found_and_answer_when(run, film, bank, boxes) -> None:
    code, out, err = run("import", str(film), str(boxes), "--bank", str(bank))
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"{film}: 2 lines of detection of 6 records from boxes.jsonl",
        "2 of them are left out, below the score",
    ]
    code, out, _ = run(
        "find", "where is a dog?", "--bank", str(bank), "channels=[detection]", "--json"
    )
    moments = json.loads(out)["moments"]
    assert [(one["start"], one["end"]) for one in moments] == [(3.0, 7.0), (15.0, 16.0)]
    (line,) = moments[0]["lines"]
    assert line["box"] == [0.25, 0.25, 0.75, 0.75] and line["kind"] == "detection"
    with MemoryBank.open(bank, None, UniformRetriever(), recent_frames=0) as opened:
        name = opened.catalog.videos()[0].info.video_id
        question = Question("When is a dog in the picture?", (name,))
        answer = Quoter(opened).quote(question, {name: 20.0})
    assert answer is not None and answer.channel == "detection"
    assert answer.text == "dog: 00:03-00:07, 00:15-00:16"
    assert answer.spans == ((3.0, 7.0), (15.0, 16.0))
    assert run("bank", "verify", "--bank", str(bank))[0] == 0


def test_an_import_replaces_the_one_before(run, film, bank, boxes) -> None:
    words = ("import", str(film), str(boxes), "--bank", str(bank))
    assert run(*words)[0] == 0
    before = tree(bank / "text")
    code, out, _ = run(*words)
    assert code == 0 and "(nothing new)" in out and tree(bank / "text") == before
    assert "lines of detection of 6" in run(*words, "--score", "0")[1]
    stretches = [(3.0, 7.0), (12.0, 16.0)]  # out of sight for two seconds
    assert sorted(found(run, bank, "dog", "detection")) == stretches
    cat = {"time": 8, "class": "cat"}
    boxes.write_text(json.dumps(cat) + "\n")
    assert "1 line of detection of 1 record from" in run(*words)[1]
    assert found(run, bank, "dog", "detection") == []
    assert found(run, bank, "cat", "detection") == [(8.0, 9.0)]
    assert run("bank", "verify", "--bank", str(bank))[0] == 0
    (file,) = (bank / "text").glob("*/import.boxes.jsonl/*")
    file.unlink()
    (bank / "catalog.sqlite").unlink()  # is rebuilt from the files
    assert "1 line of detection" in run(*words)[1]
    assert found(run, bank, "cat", "detection") == [(8.0, 9.0)]
    assert run(*words, "--name", "other")[1].endswith(" from other\n")
    code, out, _ = run(*words, "--remove")
    assert (code, out) == (0, f"{film}: removed boxes.jsonl\n")
    assert found(run, bank, "cat", "detection") == [(8.0, 9.0)]  # of the other name
    assert run(*words, "--remove", "--name", "other")[0] == 0
    assert found(run, bank, "cat", "detection") == []
    sentence(run(*words, "--remove")[2], "has no records boxes.jsonl; none were imported")


def test_words_are_searched_like_the_rest(run, film, bank, tmp_path) -> None:
    whisper, ocr = tmp_path / "talk.json", tmp_path / "signs.json"
    segments = [
        {"start": 1.0, "end": 3.0, "text": " The lantern is lit by oil.", "avg_logprob": -0.2}
    ]
    whisper.write_text(json.dumps({"segments": segments}))
    ocr.write_text(json.dumps([{"time": time, "text": "Harbour 12"} for time in (5, 6, 7)]))
    code, out, _ = run("import", str(film), str(whisper), "--bank", str(bank), "--json")
    row = json.loads(out)
    assert (code, row["lines"], row["records"], row["is_new"]) == (0, {"speech": 1}, 1, True)
    assert run("import", str(film), str(ocr), "--bank", str(bank), "--kind", "ocr")[0] == 0
    assert found(run, bank, "lantern", "speech") == [(1.0, 3.0)]
    assert found(run, bank, "harbour", "ocr") == [(5.0, 8.0)]
    assert found(run, bank, "harbour", "speech") == []
    vtt = tmp_path / "talk.vtt"
    vtt.write_text("WEBVTT\n\n00:09.000 --> 00:11.000\nGranite it was\n")
    assert run("import", str(film), str(vtt), "--bank", str(bank))[0] == 0
    assert found(run, bank, "granite", "speech") == [(9.0, 11.0)]


def test_an_answer_cites_an_imported_line(run, tmp_path) -> None:
    film, vtt, bank = tmp_path / "talk.mp4", tmp_path / "other.vtt", str(tmp_path / "bank")
    write_video(film, 4, 5)
    assert run("add", str(film), "--bank", bank, "text=none")[0] == 0
    vtt.write_text("WEBVTT\n\n00:01.000 --> 00:03.000\nThe lantern is lit by whale oil.\n")
    assert run("import", str(film), str(vtt), "--bank", bank)[0] == 0
    code, out, _ = run("ask", str(film), "How is the lantern lit?", "--bank", bank, "--json")
    answer = json.loads(out)
    assert (code, answer["text"]) == (0, '00:01 "The lantern is lit by whale oil."')
    assert (answer["spans"], answer["channel"]) == ([[1.0, 3.0]], "speech")


def test_what_is_refused_changes_nothing(run, film, bank, boxes, tmp_path) -> None:
    assert run("import", str(film), str(boxes), "--bank", str(bank))[0] == 0
    before = tree(bank / "text")

    def refused(*words: str) -> str:
        code, out, err = run("import", *words, "--bank", str(bank))
        assert (code, out) == (2, "") and tree(bank / "text") == before
        return err

    bad = [*DOG, {"time": 99, "class": "dog"}, {"time": 3, "class": "dog", "score": 7}]
    boxes.write_text("".join(json.dumps(row) + "\n" for row in bad))
    sentence(
        refused(str(film), str(boxes)),
        "line 7: 99 s is outside of the film", "line 8: score 7", "nothing of it was imported",
    )  # fmt: skip
    sentence(refused(str(film), str(boxes), "--kind", "smell"), "kind=smell is not known")
    sentence(refused(str(film), str(boxes), "--score", "2"), "min_score=2 is no score")
    sentence(refused(str(film), str(boxes), "--fps", "-1"), "frame_rate=-1 is no rate")
    sentence(refused(str(film), str(tmp_path / "no.json")), "no.json is not there")
    other = tmp_path / "other.mp4"
    write_video(other, 4, 5)
    sentence(refused(str(other), str(boxes)), "is not in bank")
    sentence(refused("nothere.mp4", str(boxes)), "is not in bank")
    code, _, err = run("import", str(film), str(boxes), "--bank", str(tmp_path / "none"))
    assert code == 2
    sentence(err, "there is no bank at")


def test_a_part_of_a_film_takes_what_lies_in_it(run, film, boxes, tmp_path) -> None:
    bank = tmp_path / "part"
    words = (f"bank={bank}", "text=none", "start=4", "end=14", *toy_parts())
    assert run("ingest", f"video={film}", *words)[0] == 0
    for _ in range(2):
        code, out, _ = run("import", str(film), str(boxes), "--bank", str(bank), "--score", "0.5")
        assert code == 0 and "outside of the part" in out
        assert found(run, bank, "dog", "detection") == [(4.0, 7.0)]
        boxes.write_text(boxes.read_text() + "\n")  # other bytes, the same rows
    assert run("bank", "verify", "--bank", str(bank))[0] == 0


class Killed(BaseException):
    """In place of a kill."""


def test_a_crash_leaves_the_lines_of_before_or_all_new_ones(film, bank, monkeypatch) -> None:
    def block(text: str, start: float) -> TextBlock:
        line = TextLine(video_id, start, start + 1, "ocr", text, start)
        return TextBlock(
            video_id, "import.x", text, 0, TextSpan(start, start + 10, (line,), start > 0)
        )

    def words() -> list[str]:
        return [one.text for one in opened.text.during(video_id, 0, 20) if one.text in "old new"]

    for point in ("text rows", ""):
        with MemoryBank.open(bank, None, UniformRetriever(), recent_frames=0) as opened:
            video_id = opened.catalog.videos()[0].info.video_id
            opened.text.write(block("old", 0.0), block("old", 10.0), replaces=True)
            with monkeypatch.context() as patch:
                if point:
                    patch.setattr(crash_points, "reached", lambda name, at=point: _die(name, at))
                    with pytest.raises(Killed):
                        opened.text.write(block("new", 0.0), block("new", 10.0), replaces=True)
                else:
                    opened.text.write(block("new", 0.0), block("new", 10.0), replaces=True)
        with MemoryBank.open(bank, None, UniformRetriever(), recent_frames=0) as opened:
            opened.begin_writing()
            assert words() == (["old"] * 2 if point else ["new"] * 2)
            assert opened.check.verify() == []
            assert opened.text.missing(video_id, "import.x") == []
            opened.text.drop(video_id, "import.x")


def _die(name: str, point: str) -> None:
    if name == point:
        raise Killed

"""Every format of records, right rows and broken ones, and how they become lines."""

import json
from pathlib import Path
from typing import Any

import pytest

from encoders.errors import UserError
from encoders.text.records import record_file
from encoders.text.records.record import Record, RecordRules
from encoders.text.records.record_file import read_records
from encoders.text.records.record_lines import lines_of, spans_of, with_ends, within

RULES = RecordRules(length=100.0, size=(200, 100))


def read(path: Path, content: Any, rules: RecordRules = RULES) -> list[Record]:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_records(path, rules)[0]


def refusal(path: Path, content: Any, rules: RecordRules = RULES) -> str:
    with pytest.raises(UserError) as refused:
        read(path, content, rules)
    return str(refused.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.json"


def test_our_own_rows_as_lines_as_a_list_and_alone(path: Path) -> None:
    rows = [
        {"time": 3, "class": "dog", "score": 0.9, "box": [20, 10, 100, 50]},
        {"start": 4.0, "end": 5.5, "kind": "ocr", "text": "  EXIT\n now ", "other": {"a": 1}},
        {"frame": 50, "class": "cat", "box": [0.1, 0.2, 0.3, 0.4], "box_format": "xyxy",
         "box_unit": "fractions"},
        {"time": 99.9, "class": "cup", "box": [0, 0, 400, 50], "width": 400, "height": 100},
    ]  # fmt: skip
    rules = RecordRules(100.0, frame_rate=25.0, first_frame=25, size=(200, 100))
    wanted = [
        Record("detection", "dog", 3.0, None, 0.9, (0.1, 0.1, 0.6, 0.6)),
        Record("ocr", "EXIT now", 4.0, 5.5),
        Record("detection", "cat", 1.0, None, 1.0, (0.1, 0.2, 0.3, 0.4)),
        Record("detection", "cup", 99.9, None, 1.0, (0.0, 0.0, 1.0, 0.5)),
    ]
    assert read(path, rows, rules) == wanted
    lines = "\ufeff" + "\n\n".join(map(json.dumps, rows)) + "\n"
    assert read(path, lines, rules) == wanted
    assert read(path, json.dumps(rows[0]), rules) == wanted[:1]


def test_a_kind_is_asked_for_where_a_row_has_none(path: Path) -> None:
    row = {"start": 1, "end": 2, "text": "hello"}
    assert "row 1: it has no kind; add --kind" in refusal(path, [row])
    assert read(path, [row], RecordRules(9.0, kind="speech"))[0].kind == "speech"
    own = row | {"kind": "ocr"}  # the row knows better
    assert read(path, [own], RecordRules(9.0, kind="speech"))[0].kind == "ocr"


def test_coco_results_and_data_sets(path: Path) -> None:
    row = {"image_id": 50, "category_id": 18, "bbox": [20, 10, 100, 50], "score": 0.75}
    rules = RecordRules(100.0, frame_rate=25.0, size=(200, 100))
    dog = Record("detection", "dog", 2.0, None, 0.75, (0.1, 0.1, 0.6, 0.6))
    assert read(path, [row], rules) == [dog]
    assert "row 1: it counts frames; add --fps" in refusal(path, [row])
    assert "row 1: it has no class" in refusal(path, [row | {"category_id": 12}], rules)
    whole = {
        "images": [{"id": 7, "frame_index": 100, "width": 400, "height": 100}, {"id": 8}],
        "categories": [{"id": 3, "name": "forklift"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [0, 0, 100, 50]},
            {"id": 2, "image_id": 8, "category_id": 3, "bbox": [0, 0, 100, 50]},
        ],
    }
    assert read(path, whole, rules) == [
        Record("detection", "forklift", 4.0, None, 1.0, (0.0, 0.0, 0.25, 0.5)),
        Record("detection", "forklift", 0.32, None, 1.0, (0.0, 0.0, 0.5, 0.5)),
    ]


def test_whisper_and_subtitle_files_are_speech(path: Path) -> None:
    segments = [
        {"id": 0, "start": 0.0, "end": 2.5, "text": " The harbour.", "avg_logprob": -0.5},
        {"id": 1, "start": 2.5, "end": 3.0, "text": "  "},
        {"id": 2, "start": 98.0, "end": 120.0, "text": "Bye.", "avg_logprob": 0.1},
    ]
    assert read(path, {"text": "...", "segments": segments, "language": "en"}) == [
        Record("speech", "The harbour.", 0.0, 2.5, 0.6065),
        Record("speech", "Bye.", 98.0, 100.0, 1.0),
    ]
    cues = "WEBVTT\n\n00:01.000 --> 00:03.000\n<v Ann>Bread &amp; salt\n"
    vtt, srt = path.with_suffix(".vtt"), path.with_suffix(".srt")
    assert read(vtt, cues) == [Record("speech", "Bread & salt", 1.0, 3.0)]
    assert read(srt, "1\n00:00:01,000 --> 00:00:03,000\nSalt\n", RecordRules(9.0, "ocr")) == [
        Record("ocr", "Salt", 1.0, 3.0)
    ]
    late = refusal(vtt, cues.replace("00:", "09:"))
    assert "line 3: 541 s is outside of the film" in late
    assert "no subtitle in it" in refusal(srt, "")


def test_a_cue_with_impossible_times_is_named_by_its_line(path: Path) -> None:
    bad = "WEBVTT\n\n00:01.000 --> 00:03.000\nBread\n\n00:09.000 --> 00:04.000\nSalt\n"
    says = refusal(path.with_suffix(".vtt"), bad)
    assert "line 6: its times make no sense" in says and "nothing of it was imported" in says
    event = "Dialogue: 0,0:00:0{}.00,0:00:02.00,Default,,0,0,0,,Salt\n"
    ass = "[Script Info]\nScriptType: v4.00+\n\n[Events]\nFormat: Layer, Start, End, Style, Name, "
    ass += "MarginL, MarginR, MarginV, Effect, Text\n" + event.format(1) + event.format(5)
    assert "event 2: its times" in refusal(path.with_suffix(".ass"), ass)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (7, "it is no JSON object"),
        ({"time": 1}, "it has no kind"),
        ({"time": 1, "kind": "smell", "text": "x"}, "kind 'smell' is not known"),
        ({"time": 1, "kind": "ocr", "text": " \u200b"}, "it has no text"),
        ({"time": 1, "class": 16}, "it has no class"),
        ({"class": "dog"}, "it has no time"),
        ({"class": "dog", "time": "soon"}, "its time is no number"),
        ({"class": "dog", "time": True}, "its time is no number"),
        ({"class": "dog", "start": 3}, "its end is no number"),
        ({"class": "dog", "start": 3, "end": 3}, "it ends at 3 s and begins at 3 s"),
        ({"class": "dog", "time": -1}, "-1 s is outside of the film"),
        ({"class": "dog", "time": 101}, "101 s is outside of the film, which has 100.0 s"),
        ({"class": "dog", "start": 99, "end": 999}, "999 s is outside of the film"),
        ({"class": "dog", "frame": 3}, "add --fps"),
        ({"class": "dog", "time": 1, "score": 1.4}, "score 1.4 is not between 0 and 1"),
        ({"class": "dog", "time": 1, "score": "high"}, "its score is no number"),
        ({"class": "dog", "time": 1, "box": [1, 2, 3]}, "its box is not a list of four numbers"),
        ({"class": "dog", "time": 1, "box": [5, 5, 0, 5]}, "its box is empty"),
        ({"class": "dog", "time": 1, "box": [0, 0, 0.5, 0.5]}, '"box_unit": "fractions"'),
        ({"class": "dog", "time": 1, "box": [300, 0, 9, 9]}, "outside of the picture, 200 by 100"),
        ({"class": "dog", "time": 1, "box": [0, 0, 9, 9], "box_format": "cxcywh"}, "box_format"),
        ({"class": "dog", "time": 1, "box": [0, 0, 9, 9], "box_unit": "inch"}, "box_unit"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_read(path: Path, row: Any, says: str) -> None:
    rows = [{"time": 1, "class": "dog"}, row]
    told = refusal(path, rows)
    assert f"row 2: {says}" in told or (says in told and "row 2: " in told)
    assert told.endswith("nothing of it was imported")
    told = refusal(path, "\n".join(map(json.dumps, [rows[0], *rows])))
    assert "line 3: " in told and "line 2" not in told


def test_files_that_are_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "line 2: " in refusal(path, '[\n{"time": 1,}\n]')
    assert "line 2: it is no JSON object" in refusal(path, '{"time": 1, "class": "a"}\n{oops\n')
    assert "has no record in it" in refusal(path, [])
    assert "is no JSON" in refusal(path, "")
    assert "is too deep" in refusal(path, "[" * 100_000)
    assert "line 1: it has no time" in refusal(path, {"class": "dog", "time": None})
    many = refusal(path, [{}] * 9)
    assert "row 3" in many and "row 4" not in many and "and 6 more rows" in many
    path.write_bytes(b'[{"class": "\xff"}]')
    with pytest.raises(UserError, match="is not UTF-8"):
        read_records(path, RULES)
    with pytest.raises(UserError, match="is not there"):
        read_records(path.with_name("no"), RULES)
    with pytest.raises(UserError, match="is a folder"):
        read_records(path.parent, RULES)
    no_size = [{"class": "dog", "time": 1, "box": [1, 1, 9, 9]}]
    assert "give width and height" in refusal(path, no_size, RecordRules(9.0))
    monkeypatch.setattr(record_file, "MOST_BYTES", 10)
    assert "can be imported; split it" in refusal(path, no_size)


def seen(*rows: tuple[str, float, float | None, float]) -> list[tuple[str, float, float, float]]:
    records = [Record("detection", name, a, b, score) for name, a, b, score in rows]
    return [
        (one.text, one.start, one.end, one.confidence) for one in lines_of(with_ends(records), "v")
    ]


def test_what_is_seen_again_is_one_line() -> None:
    every_second = [("dog", float(t), None, 0.9) for t in (1, 2, 3, 5, 20)]
    assert seen(*every_second) == [("dog", 1.0, 6.0, 0.9), ("dog", 20.0, 21.0, 0.9)]
    cat = [("cat", 2.0, None, 0.8)]
    assert seen(*every_second[:3], *cat) == [("cat", 2.0, 3.0, 0.8), ("dog", 1.0, 4.0, 0.9)][::-1]
    assert seen(("dog", 1.0, 5.0, 0.6), ("dog", 4.0, 8.0, 0.9)) == [("dog", 1.0, 8.0, 0.6)]
    assert seen(("dog", 1.0, 2.0, 0.5), ("dog", 9.0, 9.5, 0.5)) == [
        ("dog", 1.0, 2.0, 0.5), ("dog", 9.0, 9.5, 0.5)
    ]  # fmt: skip
    assert seen(("dog", 7.0, None, 0.5), ("dog", 90.0, None, 0.5))[0] == ("dog", 7.0, 10.0, 0.5)
    assert seen(("dog", 7.0, None, 0.5)) == [("dog", 7.0, 8.0, 0.5)]


def test_two_of_a_class_with_boxes_are_two_lines() -> None:
    left, right = (0.0, 0.0, 0.2, 0.2), (0.8, 0.8, 1.0, 1.0)
    records = [
        Record("detection", "dog", float(t), None, 0.9, box)
        for t in range(4)
        for box in (left, right)
    ]
    lines = lines_of(with_ends(records), "v")
    assert [(one.start, one.end, one.box) for one in lines] == [(0, 4, left), (0, 4, right)]
    assert all(one.known == 0.0 for one in lines)


def test_words_keep_their_times() -> None:
    words = [Record("speech", "a", 1.0, 2.0), Record("speech", "a", 1.5, 2.5)]
    assert [(one.start, one.end, one.known) for one in lines_of(with_ends(words), "v")] == [
        (1.0, 2.0, 2.0), (1.5, 2.5, 2.5)
    ]  # fmt: skip
    moments = [Record("speech", "a", 1.0, None), Record("speech", "b", 30.0, None)]
    assert [(one.start, one.end) for one in lines_of(with_ends(moments), "v")] == [
        (1.0, 6.0),
        (30.0, 35.0),
    ]
    long = lines_of([Record("ocr", "word " * 300, 1.0, 2.0)], "v")
    assert len(long) == 2 and {one.start for one in long} == {1.0}


def test_spans_have_no_gaps_and_parts_cut_lines() -> None:
    lines = lines_of([Record("speech", str(t), t, t + 10.0) for t in (5.0, 590.0, 1300.0)], "v")
    spans = spans_of(lines, 0.0, 1500.0, "note")
    assert [(one.start, one.end, len(one.lines)) for one in spans] == [
        (0.0, 600.0, 2), (600.0, 1200.0, 0), (1200.0, 1500.0, 1)
    ]  # fmt: skip
    assert [one.last for one in spans] == [False, False, True]
    assert [one.note for one in spans] == ["note", "", ""]
    (one,) = within(lines, 8.0, 500.0)
    assert (one.start, one.end) == (8.0, 15.0)
    assert [span.lines for span in spans_of([], 0.0, 20.0, "")] == [()]

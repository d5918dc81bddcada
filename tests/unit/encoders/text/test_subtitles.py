"""Subtitle files and tracks: what a cue says and when, and every way in which a file can be bad."""

from pathlib import Path

import av
import numpy as np
import pytest

from encoders.errors import UserError
from encoders.text.lines import MAX_CHARS, TextLine, TextSpan, VideoFile
from encoders.text.subtitles import Subtitles

SRT = """1
00:00:01,000 --> 00:00:02,500
<i>The harbour</i> was
rebuilt

2
00:00:02,000 --> 00:00:04,000
{\\an8}with granite
"""
VTT = (
    "WEBVTT\n\n00:01.000 --> 00:02.500 align:start\nThe harbour was rebuilt\n\n"
    "00:02.000 --> 00:04.000\nwith granite\n"
)
ASS = """[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize
Style: Default,Arial,20

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,The {\\b1}harbour{\\b0} was\\Nrebuilt
Comment: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,not shown
Dialogue: 0,0:00:02.00,0:00:04.00,Default,,0,0,0,,with granite
"""
EXPECTED = [(1.0, 2.5, "The harbour was rebuilt"), (2.0, 4.0, "with granite")]


def read(
    folder: Path,
    data: str | bytes,
    name: str = "talk.srt",
    seconds: float = 60.0,
    **options: object,
) -> list[TextSpan]:
    """What is found for talk.mp4 with one file beside it; no track is looked for."""
    (folder / "talk.mp4").touch()
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    video = VideoFile("v", folder / "talk.mp4", duration=seconds)
    return list(Subtitles(tracks=False, **options).spans(video))  # type: ignore[arg-type]


def cues(spans: list[TextSpan]) -> list[tuple[float, float, str]]:
    return [(line.start, line.end, line.text) for span in spans for line in span.lines]


def note(spans: list[TextSpan]) -> str:
    return "; ".join(span.note for span in spans if span.note)


@pytest.mark.parametrize(
    ("name", "text"), [("talk.srt", SRT), ("talk.en.vtt", VTT), ("talk.ASS", ASS)]
)
def test_every_format_gives_the_same_lines(tmp_path: Path, name: str, text: str) -> None:
    (span,) = read(tmp_path, text, name)
    assert cues([span]) == EXPECTED and span.last and not span.note
    assert span.lines[0] == TextLine("v", 1.0, 2.5, "subtitle", "The harbour was rebuilt", 2.5)


def test_a_file_belongs_to_the_video_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "talk2.srt").write_text(SRT)
    assert "no subtitles are beside talk.mp4" in note(read(tmp_path, "x", "other.txt"))


def test_a_track_inside_the_video_is_read(tmp_path: Path) -> None:
    """Its times count from the first picture."""
    (tmp_path / "in.srt").write_text(SRT)
    with av.open(str(tmp_path / "in.srt")) as told, av.open(str(tmp_path / "talk.mkv"), "w") as out:
        film = out.add_stream("libx264", rate=5)
        film.width = film.height = 64
        film.pix_fmt = "yuv420p"
        words = out.add_stream_from_template(told.streams.subtitles[0])
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            frame.pts = number
            out.mux(film.encode(frame))
        out.mux(film.encode())
        for packet in told.demux():
            if packet.dts is not None:
                packet.stream = words
                out.mux(packet)
    (span,) = Subtitles().spans(VideoFile("v", tmp_path / "talk.mkv", duration=6.0))
    assert cues([span]) == EXPECTED


def test_stretches_go_on_where_they_were_stopped(tmp_path: Path) -> None:
    text = "".join(
        f"{i}\n{i // 60:02d}:{i % 60:02d}:59,500 --> {i // 60:02d}:{i % 60:02d}:59,900\nminute "
        f"{i}\n\n"
        for i in range(25)
    )
    (tmp_path / "talk.mp4").touch()
    (tmp_path / "talk.srt").write_text(text)
    video = VideoFile("v", tmp_path / "talk.mp4", duration=1500.0)
    whole = list(Subtitles(tracks=False).spans(video))
    assert [(s.start, s.end, s.last) for s in whole] == [
        (0, 600, False),
        (600, 1200, False),
        (1200, 1500, True),
    ]
    assert len(cues(whole)) == 25 and list(Subtitles(tracks=False).spans(video, 600.0)) == whole[1:]


def test_only_the_part_that_the_bank_holds_counts(tmp_path: Path) -> None:
    (tmp_path / "talk.mp4").touch()
    (tmp_path / "talk.srt").write_text(SRT)
    video = VideoFile("v", tmp_path / "talk.mp4", begin=1.5, end=3.0, duration=60.0)
    assert cues(list(Subtitles(tracks=False).spans(video))) == [(2.0, 3.0, "with granite")]


BAD_TIMES = """1
00:00:05,000 --> 00:00:02,000
ends before it begins

2
00:00:0x,000 --> 00:00:09,000
no time at all

3
00:00:10,000 --> 00:00:12,000
good

4
00:00:14,000 --> 00:00:14,000
takes no time
"""


def test_cues_with_times_that_make_no_sense_are_left_out_and_counted(tmp_path: Path) -> None:
    found = read(tmp_path, BAD_TIMES)
    assert cues(found) == [(10.0, 12.0, "good")]
    assert note(found) == "3 of 4 subtitles in talk.srt were left out, as their times make no sense"


def test_overlapping_and_unordered_cues_are_kept_in_time_order(tmp_path: Path) -> None:
    text = "1\n00:00:05,000 --> 00:00:09,000\nlate\n\n"
    text += "2\n00:00:01,000 --> 00:00:08,000\nearly\n\n3\n00:00:05,000 --> 00:00:06,000\nshort\n"
    assert cues(read(tmp_path, text)) == [
        (1.0, 8.0, "early"),
        (5.0, 6.0, "short"),
        (5.0, 9.0, "late"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marked_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    text = SRT.replace("harbour", "Hafenstraße für").encode(encoding)
    found = read(tmp_path, text)
    assert cues(found)[0][2] == "The Hafenstraße für was rebuilt" and not note(found)


def test_another_encoding_is_guessed_and_said(tmp_path: Path) -> None:
    text = SRT.replace(
        "The harbour", "Die Straße führt über die Brücke und außerdem zurück"
    ).encode("cp1252")
    found = read(tmp_path, text)
    assert "Brücke" in cues(found)[0][2] and "not UTF-8" in note(found)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x00\x01\x02\x89PNG" * 50, "no text file"),
        (b"", "no subtitle in it"),
        (b"just some prose\n", "no subtitle in it"),
    ],
)
def test_what_is_no_subtitle_file_is_one_sentence(tmp_path: Path, data: bytes, words: str) -> None:
    found = read(tmp_path, data)
    assert cues(found) == [] and found[-1].last and words in note(found) and "\n" not in note(found)
    with pytest.raises(UserError, match=words):
        read(tmp_path, data, path=str(tmp_path / "talk.srt"))


def test_a_named_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"text\.subtitles\.path=nowhere\.srt"):
        read(tmp_path, SRT, path="nowhere.srt")


def test_a_very_long_cue_becomes_several_lines_and_loses_nothing(tmp_path: Path) -> None:
    words = " ".join(f"word{i}" for i in range(1300))
    letters = "火" * 10_000
    for text in (words, letters):
        found = read(tmp_path, f"1\n00:00:01,000 --> 00:00:05,000\n{text}\n")
        lines = found[0].lines
        assert len(lines) >= 9 and all(
            len(line.text) <= MAX_CHARS and (line.start, line.end) == (1.0, 5.0) for line in lines
        )
        assert (" " if text is words else "").join(line.text for line in lines) == text


def test_marks_that_only_steer_drawing_go(tmp_path: Path) -> None:
    found = read(
        tmp_path, "1\n00:00:01,000 --> 00:00:02,000\n\u202bمرحبا\u202c \u200fבעולם\u0007\n"
    )
    assert cues(found)[0][2] == "مرحبا בעולם"


def test_cues_behind_the_end_are_left_out_and_said(tmp_path: Path) -> None:
    found = read(tmp_path, SRT, seconds=1.5)
    assert cues(found) == [(1.0, 1.5, "The harbour was rebuilt")]
    assert "1 of 2 subtitles come after the video's end" in note(found)


def test_an_edited_file_is_another_run(tmp_path: Path) -> None:
    read(tmp_path, SRT)
    video = VideoFile("v", tmp_path / "talk.mp4", duration=60.0)
    before = Subtitles().made_with(video)
    (tmp_path / "talk.srt").write_text(SRT.replace("granite", "marble"))
    assert Subtitles().made_with(video) != before

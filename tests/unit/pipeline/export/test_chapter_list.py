"""Chapters as files: what FFmpeg reads back."""

import re
from pathlib import Path

import av
import pytest

from encoders.errors import UserError
from pipeline.export.chapter_list import ChapterList

TITLES = ("Salt; and = #1", "A <b> & b\nnext line", "C:\\temp")
CHAPTERS = ChapterList.of([(0, 12.5), (12.5, 40.04), (40.04, 3700)], TITLES)


def test_ffmpeg_reads_the_metadata(tmp_path: Path) -> None:
    CHAPTERS.write(tmp_path / "a.ffmeta")
    with av.open(str(tmp_path / "a.ffmeta"), format="ffmetadata") as file:
        read = file.chapters()
    assert [chapter["metadata"]["title"] for chapter in read] == [
        "Salt; and = #1", "A <b> & b next line", "C:\\temp",
    ]  # fmt: skip
    ends = [(each["start"], each["end"], each["time_base"] or 1) for each in read]
    spans = [(float(start * base), float(end * base)) for start, end, base in ends]
    assert spans == [(0, 12.5), (12.5, 40.04), (40.04, 3700)]


def test_ffmpeg_reads_the_webvtt(tmp_path: Path) -> None:
    CHAPTERS.write(tmp_path / "a.vtt")
    text = (tmp_path / "a.vtt").read_text()
    assert text.startswith("WEBVTT\n\n1\n00:00:00.000 --> 00:00:12.500\n")
    assert "A &lt;b&gt; &amp; b next line" in text and "01:01:40.000" in text
    with av.open(str(tmp_path / "a.vtt")) as file:
        packets = [packet for packet in file.demux() if packet.size]
    assert [float((p.pts or 0) * (p.time_base or 0)) for p in packets] == [0.0, 12.5, 40.04]


def test_lines_for_youtube() -> None:
    lines = CHAPTERS.youtube().splitlines()
    assert [line.split(" ", 1)[0] for line in lines] == ["00:00", "00:12", "00:40"]
    later = ChapterList.of([(90, 100), (100, 3700), (3700, 3720)], TITLES)
    assert re.findall(r"^\S+", later.youtube(), re.M) == ["00:00:00", "00:01:40", "01:01:40"]
    assert (
        CHAPTERS.youtube_note == "" and "from 3 on" in ChapterList.of([(0, 9)], ["a"]).youtube_note
    )
    assert "below 10 s" in ChapterList.of([(0, 9), (9, 30), (30, 60)], TITLES).youtube_note


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"use \.vtt \(WebVTT\), \.ffmeta \(FFmpeg\) or \.txt"):
        CHAPTERS.write(tmp_path / "a.srt")
    with pytest.raises(UserError, match="cannot be written"):
        CHAPTERS.write(tmp_path / "nowhere" / "a.vtt")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="time order"):
        ChapterList.of([(5, 9), (0, 5)], ["a", "b"])

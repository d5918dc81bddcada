"""Tables, cues, timelines and contact sheets of moments; each is read back by its own library."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import opentimelineio as otio
import pytest
from PIL import Image

from encoders.errors import UserError
from pipeline.export.lists.contact_sheet import write_sheet
from pipeline.export.lists.moment_files import FORMATS, check_export, write_moments
from pipeline.export.moment_list import ListedMoment, MomentList
from pipeline.export.scene_times import scene_spans
from tests.support.videos import read_number, write_video

FILM = 24000 / 1001  # pictures per second
SPANS = ((7.2, 9.6), (1.0, 2.5))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("films") / "a talk, é.mp4"
    write_video(path, 12, 25, size=(128, 64))
    return path


def found(*films: Path) -> MomentList:
    moments = (
        ListedMoment(f"id{n}", str(film), *span, 0.5 - n / 10, ("speech", "picture"), 'of, "oak"')
        for n, (film, span) in enumerate(zip(films * 2, SPANS, strict=False))
    )
    return MomentList.of('the "pier"', "", list(moments))


@pytest.mark.parametrize(
    ("rate", "counted"),
    [(25, 25), (24000 / 1001, 24000 / 1001), (12.5, 24000 / 1001), (5, 24000 / 1001)],
)
def test_an_edl_is_read_back_by_the_library(tmp_path: Path, rate: float, counted: float) -> None:
    film = tmp_path / "film.mp4"
    write_video(film, 12, rate)
    write_moments(found(film), tmp_path / "hits.edl")
    timeline = otio.adapters.read_from_file(str(tmp_path / "hits.edl"), rate=counted)
    clips = list(timeline.find_clips())
    for clip, (start, end) in zip(clips, SPANS, strict=True):
        assert clip.name.startswith("film ")
        assert clip.source_range.start_time.to_seconds() == pytest.approx(start, abs=1.01 / counted)
        assert clip.source_range.end_time_exclusive().to_seconds() == pytest.approx(
            end, abs=1.01 / counted
        )
    assert film.as_uri() in (tmp_path / "hits.edl").read_text()


def test_a_timeline_of_two_films_is_read_back(film: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.mp4"
    write_video(other, 12, 30)
    write_moments(found(film, other), tmp_path / "hits.otio")
    timeline = otio.adapters.read_from_file(str(tmp_path / "hits.otio"))
    clips = list(timeline.find_clips())
    assert [clip.media_reference.target_url for clip in clips] == [film.as_uri(), other.as_uri()]
    spans = [
        (
            clip.source_range.start_time.to_seconds(),
            clip.source_range.end_time_exclusive().to_seconds(),
        )
        for clip in clips
    ]
    assert np.array(spans) == pytest.approx(np.array(SPANS), abs=0.021)
    assert clips[0].metadata["reelbank"]["score"] == 0.5 and timeline.name == 'the "pier"'


def test_final_cut_gets_whole_rates_and_a_sentence_for_others(film: Path, tmp_path: Path) -> None:
    write_moments(found(film), tmp_path / "hits.fcpxml")
    text = (tmp_path / "hits.fcpxml").read_text()
    assert 'frameDuration="1/25s"' in text and 'start="36/5s"' in text
    odd = tmp_path / "odd.mp4"
    write_video(odd, 12, 30000 / 1001)
    with pytest.raises(UserError, match=r"only whole numbers .* \.otio"):
        write_moments(found(odd), tmp_path / "odd.fcpxml")
    assert not (tmp_path / "odd.fcpxml").exists()


def test_tables_say_everything(film: Path, tmp_path: Path) -> None:
    for suffix in (".csv", ".json", ".vtt"):
        write_moments(found(film), tmp_path / f"hits{suffix}")
    with (tmp_path / "hits.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "number": "1", "path": str(film), "start": "7.2", "end": "9.6", "score": "0.5",
        "channels": "speech+picture", "words": 'of, "oak"', "video_id": "id0",
    }  # fmt: skip
    row = json.loads((tmp_path / "hits.json").read_text())
    assert row["query"] == 'the "pier"' and [one["number"] for one in row["moments"]] == [1, 2]
    cues = (tmp_path / "hits.vtt").read_text()
    assert cues.index("00:00:01.000 --> 00:00:02.500\n2: of") < cues.index("00:00:07.200")
    assert json.loads((tmp_path / "hits.vtt.json").read_text())["files"][0]["start"] == 7.2
    with pytest.raises(UserError, match="the moments are of 2"):
        write_moments(found(film, tmp_path / "b.mp4"), tmp_path / "two.vtt")


def test_a_sheet_shows_the_middle_of_each_moment(film: Path, tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    write_sheet(found(film).moments, path, title="pier", columns=2, width=128)
    with Image.open(path) as sheet:
        pixels = np.asarray(sheet)
    assert pixels.shape[1] == 2 * (128 + 8) + 8
    first, second = pixels[34:98, 8:136], pixels[34:98, 144:272]
    assert (read_number(first), read_number(second)) == (int(8.4 * 25), int(1.75 * 25))
    assert pixels[98:118, 8:136].min() < 100  # a time is below


def test_scenes_begin_where_pictures_change(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    tones = [30, 200, 90, 240]

    def paint(number: int, seconds: float) -> np.ndarray:
        tone = tones[int(seconds >= 3) + int(seconds >= 10) + int(seconds >= 14)]
        return np.full((64, 96, 3), tone, np.uint8)

    write_video(path, 20, 10, size=(96, 64), paint=paint)
    spans = scene_spans(path, 4)
    assert [start for start, _ in spans] == pytest.approx([0, 3, 10, 14], abs=20 / 24)
    assert spans[-1][1] == pytest.approx(20, abs=0.1)
    assert len(scene_spans(path, 1)) == 1 and len(scene_spans(path, 400)) <= 200


@pytest.mark.parametrize(
    ("name", "words"),
    [("hits.txt", "is no name for a file of moments"), ("no/hits.csv", "folder that is not there")],
)
def test_what_is_refused(film: Path, tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_export(tmp_path / name)
    empty = MomentList.of("pier", "", [])
    for suffix in FORMATS:
        with pytest.raises(UserError, match="There is nothing to write"):
            write_moments(empty, tmp_path / f"hits{suffix}")
    gone = found(tmp_path / "gone.mp4")
    for suffix in (".edl", ".jpg"):
        with pytest.raises(UserError, match="There is no file"):
            write_moments(gone, tmp_path / f"hits{suffix}")
    with pytest.raises(UserError, match="202 pictures do not fit"):
        write_sheet(found(film).moments * 101, tmp_path / "a.jpg", title="")
    assert os.listdir(tmp_path) == []

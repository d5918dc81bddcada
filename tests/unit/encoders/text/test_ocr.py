"""Print on the screen: which frames are read, how repeats are joined, and what rapidocr finds.

rapidocr reads real footage and lectures, and these tests need it. Real clips lie beside the project
and are never copied into it.
"""

from pathlib import Path

import numpy as np
import pytest

from encoders.errors import UserError
from encoders.sources.file import FileSource
from encoders.text import picture_reader
from encoders.text.line_tracker import LineTracker, edit_distance, plausible
from encoders.text.lines import VideoFile
from encoders.text.ocr import CREDIT, Ocr, credit_per_second, size_of
from encoders.text.picture_reader import SPAN_S
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from pipeline.ingest.text import TextExtraction
from pipeline.moments.finder import Finder
from tests.support.lectures import Lecture, plan
from tests.support.paths import CLIPS
from tests.support.records import info
from tests.support.videos import turn, write_video

pytest.importorskip("rapidocr", reason="rapidocr is not installed")
pytest.importorskip("cv2", reason="OpenCV is not installed")

BOX = (0.1, 0.1, 0.5, 0.2)


def clip(name: str) -> Path:
    path = CLIPS / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return path


# ---- repeats


def test_what_is_read_again_is_one_line() -> None:
    repeats = LineTracker("v", 0.2)
    repeats.take(1.0, [("The harbour", 0.8, BOX)], 1.0)
    repeats.take(5.0, [("The harb0ur", 0.7, BOX), ("new", 0.9, BOX)], 4.5)
    repeats.take(9.0, [("The Harbour!", 0.99, BOX)], 8.0)
    repeats.take(13.0, [], 12.0)
    repeats.take(17.0, [], 16.0)
    old, new = repeats.finish(20.0)
    # known when it was read like that
    assert (old.text, old.start, old.end, old.known) == ("The Harbour!", 1.0, 12.0, 9.0)
    assert (new.text, new.start, new.end, new.known) == ("new", 5.0, 8.0, 5.0)


def test_one_reading_that_misses_a_line_does_not_end_it() -> None:
    repeats = LineTracker("v", 0.2)
    for time, there in ((0.0, True), (4.0, False), (8.0, True)):
        repeats.take(time, [("stays", 0.9, BOX)] if there else [], time)
    (line,) = repeats.finish(12.0)
    assert (line.start, line.end) == (0.0, 12.0)


def test_the_same_words_twice_on_one_slide_are_two_lines() -> None:
    repeats = LineTracker("v", 0.2)
    for time in (0.0, 4.0):
        repeats.take(time, [("yes", 0.9, BOX), ("yes", 0.9, (0.6, 0.6, 0.9, 0.9))], time)
    assert [line.text for line in repeats.finish(8.0)] == ["yes", "yes"]


def test_distance_is_edits_per_letter() -> None:
    assert (
        edit_distance("a b C", "ABC") == 0
        and edit_distance("abcd", "abxd") == 0.25
        and edit_distance("abc", "xyz") == 1
    )
    assert (
        edit_distance("abcdefgh", "ab") == 1
        and edit_distance("", "a") == 1
        and edit_distance("abc", "abcd") == 0.25
    )


def test_what_is_probably_no_print_is_left_out() -> None:
    prints = [
        ("SAM", 0.9, BOX),
        ("W", 0.9, BOX),
        (".!", 0.9, BOX),
        ("low", 0.3, BOX),
        ("火", 0.95, BOX),
        (" two\nlines ", 0.8, BOX),
    ]
    assert [text for text, *_ in plausible(prints, 0.6)] == ["SAM", "火", "two lines"]


# ---- which frames are read


def chosen(
    pictures: list[np.ndarray], policy: str = "change", every: float = 4.0, fps: float = 2.0
) -> list[float]:
    from encoders.text.keyframe_selector import KeyframeSelector

    frames = KeyframeSelector(credit_per_second(every), CREDIT, policy)
    times = []
    for number, picture in enumerate(pictures):
        if frames.wants(picture, number / fps):
            times.append(number / fps)
            frames.changed_at = None
    return times


@pytest.mark.slow
def test_new_print_is_read_soon_and_what_stays_is_not_read_again() -> None:
    """The camera wanders. Every new slide and every new line is read within 1.5 s."""
    phrases = [phrase for phrase in plan(12) if phrase.end < 40]
    lecture = Lecture(phrases)
    read = chosen(
        [lecture.picture(number, number / 2) for number in range(int(2 * lecture.seconds))]
    )
    for start in {phrase.start for phrase in phrases}:
        assert any(start <= time <= start + 1.5 for time in read), (start, read)
    assert len(read) <= CREDIT + lecture.seconds / 4


@pytest.mark.parametrize("policy", ["change", "steady", "scene"])
def test_readings_never_exceed_what_is_allowed(policy: str) -> None:
    rng = np.random.default_rng(0)
    pictures = [
        np.kron(rng.integers(0, 256, (24, 32, 1)), np.ones((8, 8, 3))).astype(np.uint8)
        for _ in range(240)
    ]
    read = chosen(pictures, policy)
    assert 20 <= len(read) <= SPAN_S / 4


def test_a_still_picture_is_read_once() -> None:
    picture = np.zeros((180, 320, 3), np.uint8)
    assert chosen([picture] * 40) == [0.0]


# ---- reading


def slides(number: int, seconds: float) -> np.ndarray:
    """Two sentences, four seconds each."""
    from PIL import Image, ImageDraw, ImageFont

    frame = Image.new("RGB", (480, 270), "white")
    text = "Granite harbour 1847" if seconds < 4 else "Bread needs salt"
    ImageDraw.Draw(frame).text((60, 110), text, font=ImageFont.load_default(30), fill="black")
    return np.asarray(frame)


@pytest.mark.slow
def test_slides_are_read_and_an_interrupted_run_goes_on_with_the_same_lines(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(picture_reader, "SPAN_S", 4.0)
    write_video(tmp_path / "a.mp4", 8, 2, size=(480, 270), paint=slides)
    video, reader = VideoFile("v", tmp_path / "a.mp4", duration=8.0), Ocr(workers=0, every=1.0)
    first, second = list(reader.spans(video))
    assert [line.text for line in first.lines] == ["Granite harbour 1847"] and (
        first.start,
        first.end,
        first.last,
    ) == (
        0,
        4,
        False,
    )
    (line,) = second.lines
    assert (line.text, line.start, line.end, second.last) == ("Bread needs salt", 4.0, 8.0, True)
    assert line.box is not None and 0.1 < line.box[0] < line.box[2] < 0.9 and line.known == 4.0
    assert list(reader.spans(video, 4.0)) == [second]


def find_in(path: Path, tmp_path: Path, word: str, reader: Ocr) -> tuple[float, float]:
    """Seconds of the best moment for a word, by print alone."""
    with MemoryBank.open(
        tmp_path / "bank", {"model": "m"}, UniformRetriever(), recent_frames=0
    ) as bank:
        bank.record_video(info("v"), 1.0, finished=True)
        TextExtraction(bank).extract(reader, VideoFile("v", path, duration=10.0))
        moment = Finder(bank, ("ocr",)).find(word)[0]
        assert (
            bank.check.verify() == []
            and moment.channels == ("ocr",)
            and moment.lines[0].text == word
        )
        return moment.start, moment.end


@pytest.mark.slow  # seconds of CPU
def test_sora_is_found_in_the_clouds(tmp_path: Path) -> None:
    """The letters stand from about 1 s to 2.6 s."""
    start, end = find_in(clip("clouds_text.mp4"), tmp_path, "SORA", Ocr(workers=1))
    # that it is gone is not looked for: no print came in its place
    assert 0.7 <= start <= 1.6 and start < end <= 3.6


@pytest.mark.slow
def test_sam_is_found_on_the_blocks(tmp_path: Path) -> None:
    start, _ = find_in(clip("blocks.mp4"), tmp_path, "SAM", Ocr())
    assert start <= 1.0


# ---- bad input


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"policy": "often"}, "policy=often"),
        ({"every": 0.0}, "every=0"),
        ({"fps": 0.0}, "fps=0"),
        ({"alike": 1.0}, "alike=1"),
        ({"workers": -1}, "workers=-1"),
        ({"short_side": 8}, "short_side=8"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict, words: str) -> None:
    with pytest.raises(UserError, match=rf"text\.ocr\.{words}"):
        Ocr(**options)


def test_a_turned_video_is_read_upright(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 1, 5, size=(96, 64))
    turn(tmp_path / "a.mp4")
    video = VideoFile("v", tmp_path / "a.mp4")
    assert size_of(video, 720) == (64, 96) and size_of(video, 32) == (32, 48)
    width, height = size_of(video, 720)
    assert next(FileSource(video.path, width=width, height=height).frames()).pixels.shape[1:3] == (
        96,
        64,
    )


def test_a_file_that_is_no_video_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(UserError, match="not a video that can be read"):
        list(Ocr(workers=0).spans(VideoFile("v", tmp_path / "a.mp4")))

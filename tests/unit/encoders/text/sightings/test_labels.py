"""Labels of real pictures: sure classes and groups of them, and when they are there."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from encoders.errors import UserError
from encoders.models.imagenet.class_names import image_classes
from encoders.models.imagenet.lite0_package import LITE0
from encoders.text import picture_reader
from encoders.text.lines import TextLine, VideoFile
from encoders.text.sightings.class_groups import group_matrix, group_names
from encoders.text.sightings.labels import Labels
from tests.support.cat_films import write_cat
from tests.support.paths import CLIPS

pytestmark = pytest.mark.skipif(
    not LITE0.is_installed, reason="the extra pictures is not installed"
)

LOOSE = Labels(probability=0.5, keep=0.25)  # the photograph is surer than that in every frame


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds, with a cheetah from second 3 to second 8."""
    path = tmp_path_factory.mktemp("film") / "cat.mp4"
    write_cat(path, 10, 3, 8, whole=True)
    return path


def lines_of(path: Path, labels: Labels) -> list[TextLine]:
    return [line for span in labels.spans(VideoFile("v", path)) for line in span.lines]


def test_a_cheetah_is_named_while_it_is_there(film: Path) -> None:
    (line,) = [one for one in lines_of(film, LOOSE) if "cheetah" in one.text]
    assert (line.kind, line.start, line.end, line.box) == ("label", 3.0, 8.0, None)
    assert line.known == 5.0 and line.confidence > 0.5


def test_an_interrupted_run_goes_on_with_the_same_lines(
    film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_reader, "SPAN_S", 4.0)
    labels, video = replace(LOOSE, minimum=1.0), VideoFile("v", film)
    spans = list(labels.spans(video))
    assert [len(one.lines) for one in spans] == [1, 1, 0]
    assert list(labels.spans(video, 4.0)) == spans[1:]


def test_a_group_has_the_probability_of_its_classes() -> None:
    """A picture of one of two breeds is surely one of a dog."""
    row = torch.zeros(1000)
    numbers = {one.label: number for number, one in enumerate(image_classes())}
    row[numbers["Brittany spaniel"]], row[numbers["beagle"]], row[numbers["tabby"]] = 0.4, 0.5, 0.1
    groups = dict(zip(group_names(), (row @ group_matrix()).tolist(), strict=True))
    assert groups["dog"] == pytest.approx(0.9) and groups["cat"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("group", "first", "last"),
    [
        ("dog", "Chihuahua", "Mexican hairless"),
        ("cat", "tabby", "Egyptian cat"),
        ("bird", "cock", "albatross"),
        ("snake", "thunder snake", "sidewinder"),
        ("butterfly", "admiral", "lycaenid"),
    ],
)
def test_the_numbers_of_groups_are_those_of_the_classes(group: str, first: str, last: str) -> None:
    (column,) = [n for n, name in enumerate(group_names()) if name == group]
    inside = group_matrix()[:, column].nonzero()[:, 0].tolist()
    assert image_classes()[inside[0]].label == first and image_classes()[inside[-1]].label == last


def test_a_real_dog(tmp_path: Path) -> None:
    path = CLIPS / "dog.mp4"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    assert "dog" in {line.text for line in lines_of(path, Labels())}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every": 0.0}, "every=0"),
        ({"probability": 50.0}, "probability=50"),
        ({"keep": 0.0}, "keep=0"),
        ({"gap": -1.0}, "gap=-1"),
        ({"minimum": float("nan")}, "minimum=nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict, words: str) -> None:
    with pytest.raises(UserError, match=rf"text\.labels\.{words}"):
        Labels(**options)


@pytest.mark.slow
def test_the_commands_know_labels(run, film: Path, tmp_path: Path) -> None:
    bank = f"bank={tmp_path / 'bank'}"
    loose = ("text.labels.probability=0.5", "text.labels.keep=0.25")
    code, out, _ = run("ingest", f"video={film}", bank, "text=labels", *loose, "clip=embedded")
    assert code == 0 and "lines by labels" in out
    question = "question=Where is a cheetah?"
    code, out, _ = run("ask", f"video={film}", bank, question, "format=json", "clip=embedded")
    answer = json.loads(out)
    assert code == 0 and answer["spans"] == [[3.0, 8.0]] and answer["channel"] == "label"

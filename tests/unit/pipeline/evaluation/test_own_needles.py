"""The user's own needles: a folder of pictures and clips with a table of questions."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from encoders.errors import UserError
from pipeline.evaluation.needle.films import make
from pipeline.evaluation.needle.films.film import FilmPictures, fingerprint
from pipeline.evaluation.needle.films.own_needles import own_tasks
from pipeline.evaluation.needle.films.schema import read_films
from tests.support.needle_films import GRID
from tests.support.videos import write_video

ROWS: list[dict[str, Any]] = [
    {"file": "red.png", "question": "What colour is the wall?", "answer": "red"},
    {"file": "clip.mp4", "question": "What moves?", "answer": "a bar"},
    {"file": "red.png", "question": "How bright is the wall?", "answer": "bright",
     "options": ["dark", "bright", "grey", "black"]},
    {"file": "green.png", "question": "What is behind the house?", "answer": "a lawn"},
    {"file": "green.png", "question": "What is above the lawn?", "answer": "nothing"},
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own")
    Image.new("RGB", (60, 40), (230, 20, 20)).save(path / "red.png")
    Image.new("RGB", (40, 60), (20, 200, 20)).save(path / "green.png")
    write_video(path / "clip.mp4", 3.0, 5)
    (path / "needles.json").write_text(json.dumps(ROWS))
    return path


def grid_of(folder: Path) -> make.Grid:
    tasks = own_tasks(folder)
    return replace(GRID, tasks=tuple(tasks), known_tasks=tasks, films=(5,), minutes=(1.0,))


def test_every_row_is_a_film_at_every_depth(folder: Path, tmp_path: Path) -> None:
    films, items = make.make(grid_of(folder))
    assert len(films) == len(items) == 25 and {item.task for item in items} == {"own"}
    for number, item in enumerate(items):
        row = ROWS[number // 5]
        assert (item.question, item.answer) == (row["question"], row["answer"])
        assert item.options[item.slot] == item.answer and len(set(item.options)) == 4
        assert set(item.options) <= set(row.get("options") or [r["answer"] for r in ROWS])
    for start in range(0, 25, 5):
        depths = [item.depth for item in items[start : start + 5]]
        # the phase is random by half a second, and a film of a minute has its ends
        assert np.abs(np.sort(np.array(depths, float)) - GRID.depths).max() < 1.0
    make.save(films, items, tmp_path)
    assert read_films(tmp_path / "films.jsonl") == films


def test_a_picture_shows_in_its_shape_and_a_clip_runs(folder: Path) -> None:
    films, _ = make.make(grid_of(folder))
    for film, size in ((films[0], (60, 40)), (films[15], (40, 60))):
        (one,) = film.shown
        seen = np.asarray(FilmPictures(film).at(one.start + 0.5), dtype=int)
        plain = FilmPictures(replace(film, shown=())).at(one.start + 0.5)
        y, x = np.nonzero(np.abs(seen - np.asarray(plain, dtype=int)).max(2) > 8)
        shape = (np.ptp(x) + 1) / (np.ptp(y) + 1)
        assert shape == pytest.approx(size[0] / size[1], rel=0.12)
        wanted = (230, 20, 20) if size == (60, 40) else (20, 200, 20)
        assert np.abs(seen[int(np.median(y)), int(np.median(x))] - wanted).max() < 4
    (clip,) = films[5].shown
    assert clip.end - clip.start == pytest.approx(3.0, abs=0.05)
    pictures = FilmPictures(replace(films[5], footage=("grey",)))
    moments = [np.asarray(pictures.at(clip.start + t), dtype=int) for t in (0.2, 1.2, 2.2)]
    assert all(np.abs(a - b).max() > 20 for a, b in pairwise(moments))


def test_another_content_is_another_film(folder: Path, tmp_path: Path) -> None:
    for name in ("red.png", "green.png", "clip.mp4"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "needles.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    before = make.make(grid_of(tmp_path))[0][0]
    Image.new("RGB", (60, 40), (20, 20, 230)).save(tmp_path / "red.png")
    with pytest.raises(UserError, match=r"red\.png has changed since"):
        FilmPictures(before)
    assert fingerprint(make.make(grid_of(tmp_path))[0][0]) != fingerprint(before)


def test_a_csv_file_divides_options_by_bars(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes((folder / "red.png").read_bytes())
    (tmp_path / "needles.csv").write_text(
        'file,question,answer,options\nred.png,"What, then?",red,red|blue|green|grey\n'
    )
    _, items = make.make(grid_of(tmp_path))
    assert items[0].question == "What, then?"
    assert sorted(items[0].options) == ["blue", "green", "grey", "red"]


BAD: dict[str, tuple[Any, str]] = {
    "no answer": ([ROWS[0] | {"answer": " "}], "row 1 has no answer"),
    "second row": ([ROWS[2], {"file": "red.png"}], "row 2 has no question"),
    "no object": (["red.png"], "row 1 is no object"),
    "no file": ([ROWS[2] | {"file": "blue.png"}], r"row 1 names .*blue\.png, which is not there"),
    "no picture": ([ROWS[2] | {"file": "needles.json"}], "neither a picture nor a video"),
    "options": ([ROWS[2] | {"options": ["bright", "dark"]}], "row 1 needs four different options"),
    "answer is none": ([ROWS[2] | {"answer": "loud"}], "row 1 needs four .*'loud'"),
    "too few": ([ROWS[0], ROWS[1]], "row 1 has no options, and the table has 1 other answers"),
    "no rows": ([], "has no rows"),
    "no list": ({}, "holds no list"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    rows, words = BAD[name]
    for file in ("red.png", "clip.mp4"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    (tmp_path / "needles.json").write_text(json.dumps(rows))
    with pytest.raises(UserError, match=words) as error:
        own_tasks(tmp_path)
    assert "\n" not in str(error.value)


def test_a_folder_needs_one_table(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs one table"):
        own_tasks(tmp_path)
    for name in ("needles.json", "needles.csv"):
        (tmp_path / name).write_text("[]")
    with pytest.raises(UserError, match="has 2"):
        own_tasks(tmp_path)
    (tmp_path / "needles.csv").unlink()
    (tmp_path / "needles.json").write_text("[{]")
    with pytest.raises(UserError, match="is no JSON"):
        own_tasks(tmp_path)

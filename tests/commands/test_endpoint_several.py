"""Questions about several films to a model behind an address, by commands, against a strict server:
which film each picture and each line is of, and which film a citation names.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import reelbank
from pipeline import cli
from tests.support.chat_server import MODEL, Asked, ChatServer, Reply, chat_server
from tests.support.serving import film as write_film
from tests.support.toys import toy_parts
from tests.support.videos import write_video

QUESTION = "What is the code on the card?"
CARDS = {"a.mp4": ("code:4821@5", 8.0), "b.mp4": ("name:Alice@2", 4.0)}
SAID = {"a.mp4": (6, "The code on the card is old."), "b.mp4": (1, "A card shows no code.")}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two films, each with a card and a line of subtitles, in one bank with thumbnails."""
    folder = tmp_path_factory.mktemp("several")
    for number, (name, (card, seconds)) in enumerate(CARDS.items()):
        path = write_film(folder / name, card, seconds=seconds, seed=3 + number)
        at, text = SAID[name]
        path.with_suffix(".srt").write_text(f"1\n00:00:0{at},000 --> 00:00:0{at},900\n{text}\n")
        line = ["ingest", f"video={path}", f"bank={folder / 'bank'}", "source.keep=jpeg"]
        with pytest.raises(SystemExit) as end:
            cli.main([*line, *model("http://127.0.0.1:9/v1")])
        assert end.value.code == 0
    return folder


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with chat_server(answer=lambda asked: Reply("4821\nSources: 6, 12")) as running:
        yield running
        assert running.mistakes == []


def model(url: str) -> list[str]:
    clip = [part for part in toy_parts() if part.startswith("clip")]
    return [
        "backbone=endpoint",
        f"backbone.url={url}",
        f"backbone.model={MODEL}",
        "text=subtitles",
        *clip,
    ]


def parts_by_film(asked: Asked) -> dict[str, list[str]]:
    """The texts of a request behind the name of each film."""
    found: dict[str, list[str]] = {}
    own: list[str] = []
    for text in asked.texts[1:-1]:
        if text.startswith("Video "):
            own = found.setdefault(text.strip(), [])
        else:
            own.append(text.strip())
    return found


@pytest.mark.slow
def test_films_stand_one_after_another_each_behind_its_name(
    folder: Path, run: Run, server: ChatServer
) -> None:
    """The bank orders films by their path, and `also=` as the question names them."""
    bank = f"bank={folder / 'bank'}"
    every = [*(f"{n}. [00:0{n - 1}]" for n in range(1, 8)), f"8. [00:06] said: {SAID['a.mp4'][1]}"]
    other = ["10. [00:00]", "11. [00:01]", f"12. [00:01] said: {SAID['b.mp4'][1]}", "13. [00:02]"]
    both = [f"video={folder / 'a.mp4'}", f"also=[{folder / 'b.mp4'}]"]
    for which in (["--all"], both):
        code, out, err = run("ask", *which, bank, f"question={QUESTION}", *model(server.url))
        assert code == 0, err
        found = parts_by_film(server.asked[-1])
        assert found == {
            "Video a.mp4:": [*every, "9. [00:07]"],
            "Video b.mp4:": [*other, "14. [00:03]"],
        }
        assert "parts of several videos, each behind its name" in server.asked[-1].texts[0]
        assert "numbered parts of these videos alone" in server.asked[-1].texts[-1]
        # part 6 is a frame of a.mp4, and part 12 is the line of b.mp4
        head, *lines = out.splitlines()
        assert head == "4821" and "in a.mp4 at 00:05-00:06 (5.0-6.0 s)" in lines[0]
        assert "in b.mp4 at 00:01-00:02 (1.0-2.0 s)" in lines[0]
        assert f"subtitle in a.mp4 at 00:06 (6.0 s): {SAID['a.mp4'][1]}" in lines
        assert f"subtitle in b.mp4 at 00:01 (1.0 s): {SAID['b.mp4'][1]}" in lines


def test_python_names_the_film_of_each_span(folder: Path, server: ChatServer) -> None:
    server.answer = lambda asked: Reply("Alice\nSources: 4")
    with reelbank.open(folder / "bank", options=model(server.url)) as bank:
        answer = bank.ask(QUESTION, video=[folder / "b.mp4", folder / "a.mp4"])
    (span,) = answer.spans
    assert list(parts_by_film(server.asked[0])) == ["Video b.mp4:", "Video a.mp4:"]
    assert (Path(span.video.path).name, span.start, span.end) == ("b.mp4", 2.0, 3.0)
    said = {one.text: Path(one.video.path).name for one in answer.evidence if one.text}
    assert said == {text: name for name, (_, text) in SAID.items()}


def test_a_film_that_is_gone_gives_its_own_thumbnails(
    folder: Path, run: Run, server: ChatServer
) -> None:
    """Every picture is of its own film, whether it is decoded or stored."""
    ask = ("ask", f"bank={folder / 'bank'}", "--all", f"question={QUESTION}", *model(server.url))
    code, _, err = run(*ask)
    assert code == 0, err
    gone = folder / "b.mp4"
    try:
        gone.rename(folder / "gone.mp4")
        code, out, err = run(*ask)
    finally:
        (folder / "gone.mp4").rename(gone)
    assert code == 0, err
    assert "Pictures are stored thumbnails, because" in out and "b.mp4" in out
    before, after = (np.stack(list(map(small, one.pictures))) for one in server.asked)
    assert before.shape == after.shape and len(after) == 12  # 8 of a.mp4, then 4 of b.mp4
    distances = np.abs(before[:, None] - after[None]).mean(axis=(2, 3, 4))  # [before, after]
    assert (np.diag(distances) < 6).all() and (distances[:8, 8:] > 6).all()


def test_a_model_of_text_gets_the_lines_behind_their_films(
    folder: Path, run: Run, server: ChatServer
) -> None:
    server.answer = lambda asked: Reply("No.\nSources: 2")
    line = ["ask", f"bank={folder / 'bank'}", "--all", f"question={QUESTION}", "format=json"]
    code, out, err = run(*line, *model(server.url), "backbone.images=false")
    assert code == 0, err
    (text,) = server.asked[0].texts
    assert (
        f"Video a.mp4:\n1. [00:06] said: {SAID['a.mp4'][1]}\n"
        f"Video b.mp4:\n2. [00:01] said: {SAID['b.mp4'][1]}\n"
    ) in text
    cited = {Path(one["path"]).name: one["spans"] for one in json.loads(out)["videos"]}
    assert cited == {"a.mp4": [], "b.mp4": [[1.0, 2.0]]}


@pytest.mark.slow
def test_a_quote_names_its_film(tmp_path: Path, run: Run) -> None:
    """The embedded model cannot answer, so the words do."""
    bank = f"bank={tmp_path / 'bank'}"
    lines = ("The first pier was built of oak in 1721.", "Fishermen dragged their boats away.")
    for number, text in enumerate(lines):
        film = tmp_path / f"{'ab'[number]}.mp4"
        write_video(film, 4 + number, 2)
        film.with_suffix(".srt").write_text(f"1\n00:00:01,000 --> 00:00:03,000\n{text}\n")
        code, _, err = run("ingest", f"video={film}", bank, "text=subtitles", "dense=none")
        assert code == 0, err
    question = "question=When was the first pier built?"
    code, out, err = run("ask", "--all", bank, question, "text=subtitles", "dense=none")
    assert code == 0, err
    assert out.startswith(f'00:01 "{lines[0]}"\nsaid in a.mp4 at 00:01-00:03 (1.0-3.0 s); ')


def small(picture: Image.Image) -> np.ndarray:
    """[18, 32, 3] float32, so that thumbnails and decoded pictures can be compared."""
    return np.asarray(picture.convert("RGB").resize((32, 18)), np.float32)

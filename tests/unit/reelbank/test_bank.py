"""The Python package as a caller sees it, with small random models and real files."""

from pathlib import Path

import numpy as np
import pytest

import reelbank
from tests.support.talks import SRT
from tests.support.toys import toy_parts
from tests.support.videos import read_number, write_video

WORDS = ("subtitle", "speech", "ocr", "caption")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("api") / "a film, with = and 100%.mp4"
    write_video(path, 20, 5)
    path.with_suffix(".srt").write_text(SRT)
    return path


@pytest.fixture(scope="module")
def bank(film: Path):
    options = ["text=subtitles", *toy_parts("A red heart")]
    with reelbank.open(film.parent / "bank", options=options) as opened:
        yield opened


def test_a_film_is_added_with_progress(bank: reelbank.Bank, film: Path) -> None:
    steps: list[reelbank.Progress] = []
    report = bank.add(film, progress=steps.append)
    assert [step.seconds for step in steps] == [0.0, 8.0, 16.0, 20.0, 20.0]
    assert steps[-1].nbytes == report.nbytes
    assert steps[-1].share == 1.0 and steps[-1].path == str(film)
    assert (report.frames, report.new_segments, report.lines) == (20, 3, {"subtitles": 3})
    assert report.nbytes > 0 and report.seconds > 0
    (video,) = bank.videos
    assert report.video == video and (video.path, video.encoded) == (str(film), 20.0)
    assert video.is_complete and str(video) == str(film)
    assert bank.add(str(film)).new_segments == 0


def test_an_answer_has_text_spans_and_evidence(bank: reelbank.Bank, film: Path) -> None:
    bank.add(film)
    pieces: list[str] = []
    answer = bank.ask("What of granite?", video=film, on_token=pieces.append)
    assert answer.text == "A red heart" == str(answer) == "".join(pieces).strip()
    assert answer.is_shown and answer.spans and answer.video == bank.videos[0]
    assert all(0 <= span.start < span.end <= 20 for span in answer.spans)
    frames = [each for each in answer.evidence if each.kind == "frame"]
    lines = [each for each in answer.evidence if each.kind == "subtitle"]
    assert frames and [frame.weight for frame in frames] == sorted(
        (frame.weight for frame in frames), reverse=True
    )
    assert "with granite in 1847." in [line.text for line in lines]
    # without a name the only video is meant; nothing after the moment is used
    early = bank.ask("What of bread?", at=5.0)
    assert early.at == 5.0 and all(each.end <= 6.0 for each in early.evidence)


def test_hits_have_a_picture_and_a_clip(bank: reelbank.Bank, film: Path, tmp_path: Path) -> None:
    bank.add(film)
    hits = bank.find("harbour granite", channels=WORDS)
    assert len(hits) == 1 and list(hits) == [hits[0]] == list(hits[:1])
    hit = hits[0]
    assert (hit.timecode, hit.start, hit.end, hit.channels) == ("00:00:02", 2.0, 6.0, ("subtitle",))
    assert hit.words == "The harbour was rebuilt / with granite in 1847." and hit.score > 0
    picture = hit.image()
    assert picture.size == (64, 64)
    import numpy as np

    assert read_number(np.asarray(picture)) == int(hit.picture_at * 5)
    assert hit.image(longest_side=32).size == (32, 32)
    clip = hit.clip(tmp_path / "moment.mkv")
    assert clip.path.stat().st_size == clip.nbytes and clip.start <= 2.0 and clip.end >= 6.0
    assert len(bank.find("harbour", k=1)) == 1 and len(bank.find("harbour", k=3)) == 3


def test_a_part_is_a_video_of_its_own(bank: reelbank.Bank, film: Path) -> None:
    report = bank.add(film, start=4, end=12)
    assert (report.video.id, report.frames) == (f"{bank.videos[0].id}-from-4-to-12", 8)
    whole, part = bank.videos
    assert bank.find("granite", video=part, channels=WORDS)[0].video == part
    assert {each.id for each in bank.videos} == {whole.id, part.id}
    assert bank.ask("What of granite?").video in (whole, part)  # without a name: of both
    assert bank.ask("What?", video=whole).video == whole


def test_a_stream_is_asked_while_it_runs(film: Path, tmp_path: Path) -> None:
    with reelbank.open(tmp_path / "bank", options=toy_parts("A red heart")) as bank:
        with bank.stream(film, speed=20) as stream:
            stream.wait()
            first = stream.ask("What is there?")
            assert first.text == "A red heart" and first.at is not None
            assert stream.join(60) and stream.state == "ended"
            assert stream.seen_until == 19.0 and stream.ask("And now?").at is not None
        (video,) = bank.videos
        assert video.is_complete and video.encoded == 20.0
        assert bank.ask("What is there?", video=film).text == "A red heart"
        with pytest.raises(reelbank.Error, match="has run already"), stream:
            pass
        with pytest.raises(reelbank.Error, match="does not run yet"):
            bank.stream(film).ask("What?")


# ---- errors


def test_mistakes_are_one_sentence(bank: reelbank.Bank, film: Path, tmp_path: Path) -> None:
    bank.add(film)
    for call, words in (
        (lambda: bank.ask("  ", video=film), "question is empty"),
        (lambda: bank.ask("What?", video="nowhere.mp4"), "There is no file nowhere.mp4"),
        (lambda: bank.ask("What?", video=film, at=-1), "before the video begins"),
        (lambda: bank.find(""), "query is empty"),
        (lambda: bank.find("x", k=0), "k=0 finds nothing"),
        (lambda: bank.find("x", channels=["smell"]), "are not known"),
        (lambda: bank.add(tmp_path), "is a folder"),
        (lambda: bank.add(film.with_suffix(".srt")), "holds no pictures"),
        (lambda: reelbank.open(tmp_path, options=["nonsense=1"]), "is no setting"),
        (lambda: reelbank.open(tmp_path, model="nix"), "backbone=nix is not there; use one of"),
        (lambda: reelbank.open(tmp_path, fps=0).add(film), "fps=0.0 is too small"),
    ):
        with pytest.raises(reelbank.Error, match=words) as error:
            call()
        assert "\n" not in str(error.value)


def test_a_film_that_is_gone_has_no_picture_and_no_clip(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    write_video(film, 9, 5)
    with reelbank.open(tmp_path / "bank", options=toy_parts()) as bank:
        bank.add(film)
        hit = bank.find("x", k=1)[0]
        write_video(film, 5, 5)
        for call in (hit.image, lambda: hit.clip(tmp_path / "out.mkv")):
            with pytest.raises(reelbank.Error, match="is not the video that it was"):
                call()
        film.unlink()
        for call in (hit.image, lambda: hit.clip(tmp_path / "out.mkv")):
            with pytest.raises(reelbank.Error, match="is not there"):
                call()
        # the bank answers without the film
        assert bank.ask("What?").video.path == str(film)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["bank"]


def test_the_bank_of_no_name_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELBANK_BANK", str(tmp_path / "mine"))
    with reelbank.open() as bank:
        assert bank.path == str(tmp_path / "mine") and bank.videos == ()
        assert repr(bank) == f"Bank({bank.path!r})"
    assert list(tmp_path.iterdir()) == []


def test_a_summary_has_chapters_and_sentences_that_are_moments(
    bank: reelbank.Bank, film: Path, tmp_path: Path
) -> None:
    summary = bank.summary(film, method="extractive")
    (chapter,) = summary.chapters
    assert (chapter.start, chapter.end, chapter.timecode) == (0.0, 20.0, "00:00:00")
    assert [str(each) for each in summary.sentences] == str(summary).split("\n")
    first = summary.sentences[0]
    assert first.text == "The harbour was rebuilt with granite in 1847." and first.is_quoted
    assert (first.start, first.end, first.channel, first.video) == (
        2.0, 6.0, "subtitle", bank.videos[0],
    )  # fmt: skip
    assert read_number(np.asarray(chapter.image())) == 5 * chapter.picture_at
    assert summary.write(tmp_path / "r.md").read_text().startswith("# a film, with = and 100%.mp4")
    assert summary.write_chapters(tmp_path / "c.vtt").exists() and str(chapter) == (
        f"00:00:00 {chapter.title}"
    )
    with pytest.raises(
        reelbank.Error, match=r"no name for a report; let it end with \.html or \.md"
    ):
        summary.write(tmp_path / "r.pdf")
    with pytest.raises(reelbank.Error, match="outside of"):
        bank.summary(film, start=100)

"""`reelbank find --image` and `--like`: real films and banks, with small random models; the same
scene of real clips by the models that come along.
"""

import json
from pathlib import Path

import pytest
from PIL import Image

from encoders.sources.pictures import pictures_at
from pipeline import cli
from tests.support.console import sentence
from tests.support.paths import CLIPS
from tests.support.toys import toy_parts
from tests.support.videos import numbered, write_video

CLIP = toy_parts()[1]
SCENES = (3, 40, 200, 900, 3, 77)  # numbers that a film shows, each for 8 s


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first scene comes again at 00:32."""
    path = tmp_path_factory.mktemp("film") / "a.mp4"

    def paint(_: int, second: float):
        return numbered(SCENES[min(int(second // 8), len(SCENES) - 1)], (96, 96))

    write_video(path, 48, 2, size=(96, 96), paint=paint)
    return path


@pytest.fixture(scope="module")
def bank(film: Path) -> Path:
    root = film.parent / "bank"
    assert cli.run("ingest", [f"video={film}", f"bank={root}", "text=none", *toy_parts()]) == 0
    return root


def found(run, bank: Path, *words: str) -> list[float]:
    """Where the moments begin, best first."""
    code, out, err = run("find", *words, "--bank", str(bank), CLIP, "--json")
    assert code == 0, err
    moments = json.loads(out)["moments"]
    assert {tuple(one["channels"]) for one in moments} <= {("picture",)}
    return [one["start"] for one in moments]


def picture(film: Path, second: float, path: Path) -> Path:
    (pixels,) = pictures_at(film, [second], 96)
    assert pixels is not None
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.slow
def test_a_picture_finds_its_scenes(run, film, bank, tmp_path) -> None:
    photo = picture(film, 18.0, tmp_path / "photo.png")
    assert 16 <= found(run, bank, "--image", str(photo), "-k", "1")[0] < 24
    again = found(run, bank, "--image", str(picture(film, 2.0, photo)), "-k", "4")
    assert {int(start // 8) for start in again} == {0, 4}
    assert (
        found(run, bank, "--image", str(photo), "--and", "a card before 00:20", "-k", "9")[-1] < 20
    )
    assert found(run, bank, str(film), "--image", str(photo), "--start", "30", "-k", "1")[0] >= 32
    turned = Image.open(picture(film, 18.0, photo)).rotate(90)
    exif = Image.Exif()
    exif[0x0112] = 6  # a phone that was held upright: viewers turn it back
    turned.save(tmp_path / "phone.jpg", exif=exif, quality=95)
    assert 16 <= found(run, bank, "--image", str(tmp_path / "phone.jpg"), "-k", "1")[0] < 24


def test_a_moment_finds_others_like_it(run, film, bank, tmp_path) -> None:
    assert 32 <= found(run, bank, "--like", f"{film}@0:04", "-k", "1")[0] < 40
    stretch = found(run, bank, "--like", f"{film}@0:00-0:07", "-k", "9")
    assert 32 <= stretch[0] < 40 and min(stretch) > 8  # the stretch itself is no hit
    run("find", "--like", f"{film}@0:04", "--bank", str(bank), CLIP, "-k", "1")
    assert found(run, bank, "--like", "@1", "-k", "1")[0] < 8  # and back
    clip = tmp_path / "clip.mp4"
    write_video(clip, 3, 5, size=(96, 96), paint=lambda *_: numbered(900, (96, 96)))
    assert 24 <= found(run, bank, "--image", str(clip), "-k", "1")[0] < 32


def test_words_beside_a_picture_are_weighed(run, film, bank, tmp_path) -> None:
    words = ("--image", str(picture(film, 18.0, tmp_path / "photo.png")), "--and", "red circle")
    alone = found(run, bank, *words, "picture_weight=0", "-k", "20")
    half, whole = (found(run, bank, *words, f"picture_weight={w}", "-k", "20") for w in (0.5, 1))
    assert (
        whole == found(run, bank, *words[:2], "-k", "20")
        and len({*map(tuple, (alone, half, whole))}) > 1
    )
    _, out, _ = run(
        "find", "red circle", "--bank", str(bank), CLIP, "channels=[picture]", "-k", "20", "--json"
    )
    assert alone == [one["start"] for one in json.loads(out)["moments"]]


def test_what_cannot_be_searched_for_is_one_sentence(run, film, bank, tmp_path) -> None:
    def refused(*words: str) -> str:
        code, out, err = run("find", *words, "--bank", str(bank), CLIP)
        assert (code, out) == (2, "")
        return err

    photo = str(picture(film, 1.0, tmp_path / "photo.png"))
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    sentence(refused("--image", str(broken)), "broken.jpg cannot be read as a picture")
    sentence(refused("--image", "gone.png"), "There is no picture gone.png")
    sentence(refused("--like", f"{film}@9:59"), "is behind the end of the film, which has 00:48")
    sentence(refused("--like", f"{film}@soon"), "is no time")
    sentence(refused("--like", str(film)), "names no moment")
    sentence(refused("--like", f"{tmp_path / 'other.mp4'}@0:01"), "is not in bank")
    sentence(refused("--image", photo, "--like", f"{film}@0:01"), "two pictures")
    sentence(refused("--image", photo, "channels=[ocr]"), "hold no pictures")
    sentence(refused("--image", photo, "picture_weight=2"), "is no share")
    sentence(refused(), "query is empty")
    other = "clip=embedded"  # another embedder than that of the bank
    code, _, err = run("find", "--image", photo, "--bank", str(bank), other)
    assert code == 2
    sentence(err, "another frame embedder", "search for words")


@pytest.mark.slow  # 15 s of CPU
@pytest.mark.skipif(not CLIPS.exists(), reason="needs the clips beside the checkout")
def test_the_same_scene_of_real_clips(run, tmp_path) -> None:
    films = [str(CLIPS / f"{name}.mp4") for name in ("dance", "dog", "blocks", "toddler_room")]
    bank, cut = str(tmp_path / "bank"), tmp_path / "cut.mp4"
    assert run("add", *films, "--bank", bank, "text=none")[0] == 0
    assert run("clip", films[0], "8-11", "-o", str(cut), "--exact")[0] == 0
    for name in (films[1], films[3]):
        photo = picture(Path(name), 4.0, tmp_path / "photo.jpg")
        _, out, _ = run("find", "--image", str(photo), "--bank", bank, "-k", "1", "--json")
        (best,) = json.loads(out)["moments"]
        assert best["path"] == name
    _, out, _ = run("find", "--image", str(cut), "--bank", bank, "-k", "3", "--json")
    assert [one["path"] for one in json.loads(out)["moments"]] == [films[0]] * 3

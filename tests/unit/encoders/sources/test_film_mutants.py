"""Damaged films: no crash, no traceback, no half film without a word, and the same bytes twice,
from one worker and from three.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.film_mutants import Reply, mutate, read, read_all
from tests.support.fixture_film import RECIPES
from tests.support.videos import write_with_sound

_SECONDS, _FPS = 3.0, 25.0
_FILMS = (
    "libx264-closed-mp4-25", "libx264-open-mkv-29.97", "libx264-open-ts-50",
    "libx264-closed-flv-30", "libx264-intra_refresh-mp4-25", "libx264-closed-mp4-15",
    "libx264-slices-mkv-29.97", "libx264-interlaced-ts-50", "libx265-open-mkv-25",
    "libx265-layers-mp4-24", "mpeg2video-open-ts-25", "mpeg4-B-mkv-29.97", "mpeg4-no_B-avi-25",
    "libvpx-vp9-alt-ref-webm-30", "libvpx-alt-ref-webm-30", "libsvtav1-open-mp4-30",
    "mjpeg-all_intra-avi-25", "wmv2-no_B-asf-25", "h263-no_B-3gp-29.97",
    "prores_ks-all_intra-mov-24",
)  # fmt: skip
_MEMORY_MB = 1500


def _films(folder: Path, names: tuple[str, ...]) -> Iterator[tuple[Path, int]]:
    """Films with the number of their pictures."""
    for recipe in RECIPES:
        if str(recipe) in names:
            home = folder / str(recipe)
            home.mkdir()
            path, times = recipe.write(home, _SECONDS)
            yield path, len(times)


def _is_silent_half(film: Path, pictures: int, reply: Reply) -> bool:
    """True if most of the film is missing without a word. An MPEG-TS states nothing of its length,
    so one that ends early is a shorter film; and damage to a clock alone changes only times.
    """
    if "error" in reply or reply["note"] or film.suffix == ".ts":
        return False
    return reply["frames"] < 0.5 * _SECONDS * _FPS and reply["listed"] < 0.5 * pictures


def _check(films: list[tuple[Path, int]], seeds: range) -> None:
    jobs = [(film, seed) for film, _ in films for seed in seeds]
    pictures = dict(films)
    first, second = (read_all(jobs, *each) for each in ((0x5A, 1), (0xA5, 3)))
    silent = []
    for job in jobs:
        reply, again = first[job], second[job]
        assert "traceback" not in reply, f"{job}: {reply['traceback']}"
        assert reply["stderr"] == ""
        assert reply.pop("peak_mb") < _MEMORY_MB
        again.pop("peak_mb")
        assert reply == again, job
        assert "\n" not in reply.get("error", "")
        if _is_silent_half(job[0], pictures[job[0]], reply):
            silent.append((job, reply))
    assert silent == []


def test_a_few_mutants(tmp_path: Path) -> None:
    for film, pictures in _films(tmp_path, _FILMS[:3]):
        for seed in range(8):
            mutant = tmp_path / f"mutant{film.suffix}"
            mutant.write_bytes(mutate(film.read_bytes(), seed))
            reply = read(mutant)
            assert reply == read(mutant, workers=3)
            assert not _is_silent_half(film, pictures, reply)


@pytest.mark.slow
def test_five_hundred_mutants(tmp_path: Path) -> None:
    films = list(_films(tmp_path, _FILMS))
    write_with_sound(tmp_path / "sound.mp4", [number / 25 for number in range(75)], _SECONDS)
    films.append((tmp_path / "sound.mp4", 75))
    seeds = range(1000, 1032)
    assert len(films) * len(seeds) >= 500
    _check(films, seeds)

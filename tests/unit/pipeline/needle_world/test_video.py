"""Videos with needles, the questions about them, and how answers are scored.

A second, plainer reading of the scene checks truths, and the written file checks moments.
Interrupted training ends where it would have ended.
"""

import itertools
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from encoders.errors import UserError
from encoders.schema import join_frames
from encoders.sources.file import FileSource
from pipeline.embedded import data, model, tokenizer, train_tower
from pipeline.embedded.training_curve import TrainingCurve
from pipeline.needle_world import questions, video
from pipeline.needle_world.cards import (
    COLORS,
    HELD_OUT_PAIRS,
    ICONS,
    KINDS,
    NAMES,
    SHAPES,
    Needle,
    draw,
    random_needle,
    random_placement,
)
from pipeline.needle_world.scenes import demo_scene, random_scene
from pipeline.needle_world.scoring import cites_all
from pipeline.scoring import cell, is_right, share
from tests.support.videos import write_video

SEEDS = st.integers(0, 2**32 - 1)
GREY = (128, 128, 128)


def needles(count: int, seed: int = 0) -> list[Needle]:
    rng = np.random.default_rng(seed)
    return [random_needle(rng, KINDS[i % 4]) for i in range(count)]


# ---- the plan


@given(SEEDS, st.integers(0, 12), st.floats(0.5, 4), st.floats(0, 3), st.floats(0, 60))
def test_a_plan_never_overlaps_and_stays_inside(
    seed: int, count: int, each: float, gap: float, spare: float
) -> None:
    seconds = 2 + count * each + max(count - 1, 0) * gap + spare + 1e-6
    shown = video.plan(np.random.default_rng(seed), needles(count), seconds, each, gap)
    assert [one.needle for one in shown] == needles(count)
    assert all(one.end - one.start == pytest.approx(each, abs=2e-3) for one in shown)
    assert all(b.start - a.end >= gap - 3e-3 for a, b in itertools.pairwise(shown))
    assert not shown or (shown[0].start >= 1 - 1e-3 and shown[-1].end <= seconds - 1 + 3e-3)


def test_a_plan_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="5 needles"):
        video.plan(np.random.default_rng(0), needles(5), 12.0)


def test_same_seed_same_plan_and_moments_off_any_grid() -> None:
    one, two, other = (
        video.plan(np.random.default_rng(seed), needles(10), 600.0) for seed in (1, 1, 2)
    )
    assert one == two != other
    assert len({round(shown.start % 1, 3) for shown in one}) == 10


# ---- the file


def card_frames(path: Path, fps: float) -> dict[float, bool]:
    """Whether each frame of a file over gray footage shows a card, read as the encoder reads it."""
    film = join_frames(list(FileSource(path, fps, width=96, height=54).frames()))
    return {
        float(t): bool(np.abs(p.astype(int) - 128).mean() > 8)
        for t, p in zip(film.times, film.pixels, strict=True)
    }


def test_moments_in_the_file_are_exact(tmp_path: Path) -> None:
    shown = video.plan(np.random.default_rng(3), needles(4), 24.0)
    sizes: list[float] = []
    path = tmp_path / "a.mp4"
    video.write(
        path,
        shown,
        24.0,
        lambda t: Image.new("RGB", (192, 108), GREY),
        size=(192, 108),
        progress=sizes.append,
    )
    found = card_frames(path, 8)
    assert list(found) == [i / 8 for i in range(24 * 8)] == sizes
    for t, card in found.items():
        assert card == any(one.start <= t < one.end for one in shown), t
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_a_file_appears_under_its_name_when_it_is_whole(tmp_path: Path) -> None:
    def fails(t: float) -> Image.Image:
        if t > 1:
            raise RuntimeError("no more footage")
        return Image.new("RGB", (64, 36), GREY)

    with pytest.raises(RuntimeError):
        video.write(tmp_path / "a.mp4", (), 4.0, fails, size=(64, 36))
    assert not (tmp_path / "a.mp4").exists()


def test_a_seed_names_one_film(tmp_path: Path) -> None:
    path, card, size = tmp_path / "film.mp4", (video.parse("code:4821@4", 0),), (480, 270)
    films = set[bytes]()
    for _ in range(5):
        video.write(path, card, 6.0, video.procedural_footage(0, size), size=size)
        films.add(path.read_bytes())
    assert len(films) == 1


def test_same_seed_same_footage(tmp_path: Path) -> None:
    write_video(tmp_path / "1.mp4", 2, 10)
    write_video(tmp_path / "2.mp4", 3, 10)
    clips = [tmp_path / "1.mp4", tmp_path / "2.mp4"]
    moments = [i / 4 for i in range(40)]  # longer than the clips: they go round
    for make in (
        video.procedural_footage,
        lambda seed, size: video.clip_footage(clips, seed, size),
    ):
        films = [
            [np.asarray(footage(t)) for t in moments]
            for footage in (make(5, (64, 36)), make(5, (64, 36)), make(6, (64, 36)))
        ]
        assert all(np.array_equal(a, b) for a, b in zip(films[0], films[1], strict=True))
        assert not all(np.array_equal(a, c) for a, c in zip(films[0], films[2], strict=True))
        assert films[0][0].shape == (36, 64, 3) and len({film.tobytes() for film in films[0]}) > 20


def test_needles_go_into_a_video_of_ones_own(tmp_path: Path) -> None:
    def paint(number: int, seconds: float) -> np.ndarray:
        return np.full((108, 192, 3), 128, np.uint8)

    write_video(tmp_path / "mine.mp4", 12, 10, size=(192, 108), paint=paint)
    shown = tuple(
        video.parse(text, i) for i, text in enumerate(["code:4821@2.25", "shape:red star@7"])
    )
    assert [one.needle for one in shown] == [Needle("code", "4821"), Needle("shape", "star", "red")]
    video.insert(tmp_path / "mine.mp4", tmp_path / "cards.mp4", shown)
    found = card_frames(tmp_path / "cards.mp4", 10)
    assert list(found) == list(card_frames(tmp_path / "mine.mp4", 10)) and len(found) == 120
    assert [t for t, card in found.items() if card] == [
        t for t in found if 2.25 <= t < 4.25 or 7 <= t < 9
    ]
    with pytest.raises(UserError, match=r"mine.mp4 ends at 11.9 s"):
        video.insert(tmp_path / "mine.mp4", tmp_path / "late.mp4", (video.parse("icon:key@50", 0),))
    assert not list(tmp_path.glob("late*"))


@pytest.mark.parametrize("text", [
    "", "code:4821", "code:482@5", "code:abcd@5", "name:Zoe@1", "shape:red box@5",
    "shape:mauve star@5", "icon:house@x", "card:house@5", "name:red Alice@5",
])  # fmt: skip
def test_a_needle_that_is_none_is_told(text: str) -> None:
    with pytest.raises(UserError, match="is no needle"):
        video.parse(text, 0)


def test_a_shape_needs_its_colour() -> None:
    """A star without a colour could not be drawn."""
    with pytest.raises(UserError, match="is no needle"):
        video.parse("shape:star@5", 0)


# ---- the score


@pytest.mark.parametrize(
    ("text", "truth", "right"),
    [("4821", "4821", True), (" Red. ", "red", True), ("red", "Red", True), ("4812", "4821", False),
    ("", "0", False),
     ("star, circle", "circle, star", False), ("it is red", "red", False)],
)  # fmt: skip
def test_is_right(text: str, truth: str, right: bool) -> None:
    assert is_right(text, truth) is right


def test_holds() -> None:
    place = random_placement(np.random.default_rng(0), "code")
    one, two = (
        video.PlacedNeedle(needle, start, start + 2.0, place)
        for needle, start in zip(needles(2), (5.0, 11.0), strict=True)
    )
    assert (
        cites_all([(6.0, 7.0)], [one])
        and cites_all([(0.0, 5.5)], [one])
        and cites_all([(6.9, 20.0)], [one, two])
    )
    assert cites_all([(7.0, 8.0)], [one]) is False  # a span that begins when the card is gone
    assert cites_all([(4.0, 5.0)], [one]) is False and cites_all([], [one]) is False
    assert cites_all([(6.0, 7.0)], [one, two]) is False
    assert cites_all([(6.0, 7.0)], []) is None


def test_share_and_its_interval() -> None:
    results = [(f"v{i}", i % 4 != 0) for i in range(200)]
    mean, low, high, count = share(results)
    assert (mean, count) == (0.75, 200) and share(results) == (mean, low, high, count)  # seeded
    normal = 1.96 * (0.75 * 0.25 / 200) ** 0.5  # one question a video: the textbook's interval
    assert mean - low == pytest.approx(normal, abs=0.01) and high - mean == pytest.approx(
        normal, abs=0.01
    )
    # ten videos, all or nothing: far less is known
    clumped = [(f"v{i // 20}", (i // 20) % 4 != 0) for i in range(200)]
    assert share(clumped)[2] - share(clumped)[1] > 2.5 * (high - low)
    assert share([("a", True)] * 3)[:3] == (1.0, 1.0, 1.0)
    assert np.isnan(share([])[0]) and cell([]) == "-"
    assert re.fullmatch(r"75\.0 \(\d\d\.\d-\d\d\.\d\), n=200", cell(results))


# ---- questions and their truths


def brute_force(scene: list[Needle], text: str) -> str | None:
    """The answer from the scene and the words of the question alone; None for a question it cannot
    read.
    """
    lower = text.lower()
    shapes = [n for n in scene if n.kind == "shape"]
    color = next((c for c in COLORS if f" {c}" in lower), None)
    mentioned = [s for s in SHAPES if re.search(rf"\b{s}\b", lower)]
    kind = (
        "code"
        if "code" in lower
        else "name"
        if "name" in lower or "secret word" in lower
        else "icon"
    )

    def one(found: list[str]) -> str | None:
        if len(found) > 1:
            return None  # no single right answer
        return found[0] if found else "not in the video"

    if lower.startswith("how many"):
        word = next((s for s in SHAPES if s in lower), None)
        return str(
            sum(n.text == word for n in shapes) if word else sum(n.kind == kind for n in scene)
        )
    if "order" in lower:
        named = [n.text for n in scene if (n.text in mentioned if mentioned else n.kind == kind)]
        return ", ".join(named) if len(named) == len(set(named)) else None
    if mentioned:
        return one([n.color for n in shapes if n.text == mentioned[0]])
    if color:
        return one([n.text for n in shapes if n.color == color])
    return one([n.text for n in scene if n.kind == kind])


@settings(max_examples=300)
@given(SEEDS, st.integers(0, 12), st.sampled_from(questions.FAMILIES))
def test_truths_agree_with_another_reading_of_the_scene(seed: int, count: int, family: str) -> None:
    rng = np.random.default_rng(seed)
    scene = random_scene(rng, count)
    asked = questions.ask_one(rng, scene, family)
    if asked is None:
        return
    assert asked.family == family
    assert brute_force(scene, asked.text) == asked.answer, (scene, asked)
    assert all(0 <= i < len(scene) for i in asked.needles) and list(asked.needles) == sorted(
        set(asked.needles)
    )
    assert bool(asked.needles) == (asked.answer not in ("0", questions.NOT_SHOWN))
    if family == "count":
        assert len(asked.needles) == int(asked.answer) <= 6
    if family == "order":
        assert ", ".join(scene[i].text for i in asked.needles) == asked.answer


@given(SEEDS, st.integers(0, 14))
def test_a_scene_has_different_needles(seed: int, count: int) -> None:
    scene = random_scene(np.random.default_rng(seed), count)
    assert len(scene) == count == len(set(scene))


@settings(max_examples=30)
@given(SEEDS)
def test_the_demo_asks_for_everything_and_for_something_absent(seed: int) -> None:
    scene, asked = demo_scene(np.random.default_rng(seed))
    assert len(scene) == 10 and len(asked) == 11 and len({one.text for one in asked}) == 11
    assert {one.family for one in asked} == set(questions.FAMILIES) and {
        n.kind for n in scene
    } == set(KINDS)
    assert all(brute_force(scene, one.text) == one.answer for one in asked)


def test_every_family_comes_up() -> None:
    rng = np.random.default_rng(0)
    made = [
        (f, questions.ask_one(rng, random_scene(rng, 10), f))
        for f in questions.FAMILIES
        for _ in range(40)
    ]
    found = Counter(family for family, asked in made if asked)
    assert min(found[family] for family in questions.FAMILIES) >= 3
    with pytest.raises(ValueError, match="no question family"):
        questions.ask_one(rng, [], "colour")


def test_the_tokenizer_knows_the_world_in_few_tokens() -> None:
    words = tokenizer.build(questions.corpus())
    for word in (*NAMES, *COLORS, *SHAPES, *ICONS):
        assert len(words.encode(f" {word}", add_special_tokens=False)) == 1, word
    for text in ("[07:09]", "[99:59]"):
        assert len(words.encode(text, add_special_tokens=False)) == 2
    for text in ("4821", "Où est le café? 何色\n", "What code appears in the video?"):
        assert words.decode(words.encode(text, add_special_tokens=False)) == text


# ---- training data


def test_held_out_pairs_are_never_trained_on() -> None:
    rng = np.random.default_rng(0)
    drawn = {
        (n.color, n.text) for n in (random_needle(rng, "shape", pairs="train") for _ in range(3000))
    }
    everything = set(itertools.product(COLORS, SHAPES))
    assert len(HELD_OUT_PAIRS) == 8 and everything >= HELD_OUT_PAIRS
    assert drawn == everything - HELD_OUT_PAIRS
    held = {
        (n.color, n.text)
        for n in (random_needle(rng, "shape", pairs="held_out") for _ in range(300))
    }
    assert held == HELD_OUT_PAIRS


def test_training_shards_hold_no_held_out_pair() -> None:
    shards = [data.render_shard(0, number, 48, 1, [], easy=True) for number in range(4)]
    shown = [n for shard in shards for n in shard.needles]
    pairs = {(n.color, n.text) for n in shown if n is not None and n.kind == "shape"}
    assert len(pairs) > 15 and not pairs & HELD_OUT_PAIRS
    assert 0.1 < sum(n is None for n in shown) / len(shown) < 0.3


def test_a_shard_is_its_seed_and_number() -> None:
    one, two, other = (data.render_shard(0, number, 6, 2, []) for number in (3, 3, 4))
    assert (
        np.array_equal(one.pixels, two.pixels)
        and np.array_equal(one.dense, two.dense)
        and one.needles == two.needles
    )
    assert not np.array_equal(one.pixels, other.pixels)


def test_dense_labels_lie_where_the_card_is() -> None:
    rng = np.random.default_rng(0)
    for kind in KINDS:
        needle, place = random_needle(rng, kind), random_placement(rng, kind)
        picture, labels = Image.new("RGB", (192, 108), GREY), Image.new("L", (192, 108), 0)
        draw(picture, needle, place, labels)
        changed = (np.asarray(picture) != 128).any(-1)
        marked = np.asarray(labels) > 0
        assert (marked >= changed).all() and marked.sum() < 1.1 * changed.sum() + 50


# ---- training resumes


class Interrupted(Exception):
    """The power went."""


@pytest.mark.slow
def test_interrupted_training_ends_where_it_would_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine shards of a few cards; the checkpoint is written after the eighth."""
    for name, value in (
        ("CYCLES", (train_tower.TowerCycle(9, 2e-3, 0.5, 0.34),)),
        ("EVENTS", 8),
        ("BATCH", 16),
    ):
        monkeypatch.setattr(train_tower, name, value)
    monkeypatch.setattr(train_tower, "accuracy", lambda *_: {})  # renders a thousand cards
    words = tokenizer.build(questions.corpus())
    add = TrainingCurve.add

    def breaks(self: TrainingCurve, row: dict[str, float]) -> None:
        add(self, row)
        if row["shard"] == 8:
            raise Interrupted

    (tmp_path / "whole").mkdir()
    whole = model.build(words)
    train_tower.train(whole, tmp_path / "whole", None)
    (tmp_path / "halves").mkdir()
    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(TrainingCurve, "add", breaks)
        train_tower.train(model.build(words), tmp_path / "halves", None)
    # another beginning: everything must come from the checkpoint
    resumed = model.build(words, seed=1)
    train_tower.train(resumed, tmp_path / "halves", None)
    states = [
        torch.load(tmp_path / part / "tower.pt", weights_only=True) for part in ("whole", "halves")
    ]
    assert states[0]["shards"] == states[1]["shards"] == 9
    for name, expected in states[0]["model"].items():
        assert torch.equal(states[1]["model"][name], expected), name
    assert all(
        torch.equal(states[1]["heads"][name], value) for name, value in states[0]["heads"].items()
    )
    curves = [
        TrainingCurve(tmp_path / part / "tower.csv", keep=99).rows for part in ("whole", "halves")
    ]
    assert curves[0] == curves[1] and [row["shard"] for row in curves[0]] == list(range(1, 10))
    start = model.build(words).state_dict()
    moved = [
        name for name, value in states[0]["model"].items() if not torch.equal(value, start[name])
    ]
    # the tower learned, the rest stayed
    assert moved and not any("language_model" in name for name in moved)

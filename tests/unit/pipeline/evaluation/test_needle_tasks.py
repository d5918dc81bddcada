"""The tasks beyond the first eight: right answers are computed again from the film's plan.

tests/unit/pipeline/evaluation/test_needle_films.py has what all tasks share.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from encoders.errors import UserError
from pipeline.evaluation.needle.films import looks, make, vnbench
from pipeline.evaluation.needle.films.film import FilmPictures, FilmSource, fingerprint
from pipeline.evaluation.needle.films.haystack import haystack_of
from pipeline.evaluation.needle.films.schema import Appearance, Film, Item, read_films, read_items
from pipeline.evaluation.needle.films.tasks.aggregates import Density
from pipeline.evaluation.needle.films.tasks.association import LANDMARKS, THINGS
from pipeline.evaluation.needle.films.tasks.positions import Stitched
from pipeline.evaluation.needle.films.tasks.state_tracking import StateTracking
from pipeline.evaluation.needle.films.tasks.threads import Threads
from pipeline.evaluation.needle.films.tasks.words import FACTS
from pipeline.evaluation.needle.results import vnbench_score
from tests.support.needle_films import FIRST_TASKS, GRID, TASKS

LATER_TASKS = tuple(task for task in TASKS if task not in FIRST_TASKS)


@pytest.fixture(scope="module")
def benchmark() -> list[tuple[Film, Item]]:
    grid = replace(GRID, minutes=(2.0, 3.0), tasks=LATER_TASKS, films=(10,), seed=77)
    films, items = make.make(grid)
    by_name = {film.name: film for film in films}
    return [(by_name[item.film], item) for item in items]


# ---- answers, read off the plan


def pairs(film: Film, sign: str = ": ") -> list[tuple[str, str]]:
    """The texts of cards as pairs, in time order."""
    shown = sorted(film.shown, key=lambda one: one.start)
    texts = [one.card.text for one in shown if one.card.kind == "lines"]
    return [tuple(text.split(sign)) for text in texts if sign in text]  # type: ignore[misc]


def named(item: Item) -> list[str]:
    """The names in a question, in its order."""
    words = re.findall(r"[A-Z][a-z]+", item.question)
    return [w for w in words if w not in ("What", "Which", "Follow", "In", "How", "Where")]


def multi_value(film: Film, item: Item) -> str:
    return ", ".join(code for name, code in pairs(film) if name == named(item)[0])


def multi_query(film: Film, item: Item) -> str:
    return ", ".join(dict(pairs(film))[name] for name in named(item))


def pictured_value(film: Film, item: Item) -> str:
    shown = dict(one.card.text.split(": ") for one in film.shown)
    return shown[named(item)[0]]


def as_of(film: Film, item: Item) -> str:
    name = named(item)[0]
    own = [one for one in film.shown if one.card.text.startswith(f"{name}:")]
    values = [one.card.text.split(": ")[1] for one in sorted(own, key=lambda one: one.start)]
    if item.family == "previous":
        return values[-2]
    minutes, seconds = re.findall(r"(\d\d):(\d\d)", item.question)[0]
    moment = 60 * int(minutes) + int(seconds)
    # no card shows at that moment, so a needle of any length gives the same answer
    assert not any(one.start <= moment < one.end for one in film.shown)
    return values[sum(one.end <= moment for one in own) - 1]


def threads(film: Film, item: Item) -> str:
    ways, codes = dict(pairs(film, " > ")), dict(pairs(film))
    ends = []
    for name in named(item):
        while name in ways:
            name = ways[name]
        ends.append(codes[name])
    return ", ".join(ends)


def neighbours(film: Film, item: Item) -> str:
    texts = [one.card.text for one in sorted(film.shown, key=lambda one: one.start)]
    place = texts.index(item.question.rstrip("?").split(" ")[-1])
    return texts[place - 1 if item.family == "before" else place + 1]


def thumbnails(film: Film, item: Item) -> str:
    seconds = [float(text) for text in film.shown[-1].card.text.split()]
    for second, one in zip(sorted(seconds), film.shown, strict=False):
        assert one.start < second < one.end and one.card.kind == "footage"
    return ", ".join(sorted("ABCD", key=lambda letter: seconds["ABCD".index(letter)]))


def association(film: Film, item: Item) -> str:
    if item.family == "landmark":
        (city,) = [city for city in LANDMARKS.values() if item.question.endswith(f" {city}?")]
        return next(name for name, landmark in pairs(film) if LANDMARKS[landmark] == city)
    (color,) = [color for color, thing in THINGS.items() if thing in item.question]
    return next(one.card.text for one in film.shown if one.card.color == color)


def state_tracking(film: Film, item: Item) -> str:
    """Plays the facts through again, from the film's sentences alone."""
    at: dict[str, str] = {}
    carrier: dict[str, str] = {}
    for one in sorted(film.shown, key=lambda one: one.start):
        who, what, _, *rest = one.card.text.rstrip(".").split(" ")
        if what == "went":
            at[who] = rest[-1]
        elif what == "took":
            carrier[rest[-1] if rest else one.card.text.rstrip(".").split(" ")[-1]] = who
        else:
            thing = one.card.text.rstrip(".").split(" ")[-1]
            at[thing] = at[carrier.pop(thing)]
    name = item.question.rstrip("?").split(" ")[-1]
    return at[carrier.get(name, name)]


def extremes(film: Film, item: Item) -> str:
    ordered = sorted(pairs(film), key=lambda pair: int(pair[1]))
    return ordered[0 if item.family == "lowest" else -1][0]


def minimum_code(film: Film, item: Item) -> str:
    return f"{min(int(one.card.text) for one in film.shown):04d}"


def density(film: Film, item: Item) -> str:
    return min(code for name, code in pairs(film) if name == named(item)[0])


def group_by(film: Film, item: Item) -> str:
    counts = Counter(one.card.color for one in film.shown if one.card.kind == "shape")
    colors = re.findall(r"[a-z]+", item.question.split("many ")[1].split(" shapes")[0])
    return ", ".join(f"{counts[color]} {color}" for color in colors if color != "and")


def one_card(film: Film, item: Item) -> str:
    kind = "shape" if item.family == "color" else item.family
    of = [one.card for one in film.shown if one.card.kind == kind]
    if item.family == "color":
        (card,) = [card for card in of if f"the {card.text}" in item.question]
        return card.color
    (card,) = of
    return card.text


def stitched(film: Film, item: Item) -> str:
    if item.family != "cell":
        return one_card(film, item)
    (one,) = [one for one in film.shown if f"the {one.card.text}?" in item.question]
    n = film.stitched
    row, column = (int(n * middle) + 1 for middle in middle_of(one)[::-1])
    return f"row {row}, column {column}"


def middle_of(one: Appearance) -> tuple[float, float]:
    return one.place.x + one.place.width / 2, one.place.y + one.place.height / 2


def motion(film: Film, item: Item) -> str:
    (one,) = [one for one in film.shown if f"the {one.card.text} " in item.question]
    assert one.to is not None
    x, y = one.to.x - one.place.x, one.to.y - one.place.y
    if abs(x) > abs(y):
        return "right" if x > 0 else "left"
    return "down" if y > 0 else "up"


def words(film: Film, item: Item) -> str:
    (sentence,) = [sentence for sentence, question, _ in FACTS if question == item.question]
    pattern = re.escape(sentence).replace(r"\{\}", "(.*)")
    found = [re.fullmatch(pattern, one.card.text) for one in film.shown]
    return next(match.group(1) for match in found if match)


ANSWERS: dict[str, Callable[[Film, Item], str]] = {
    "multi_value": multi_value, "multi_query": multi_query,
    "pictured_value": pictured_value, "as_of": as_of,
    "thread_forward": threads, "thread_backward": threads, "threads": threads,
    "neighbours": neighbours, "thumbnails": thumbnails, "association": association,
    "state_tracking": state_tracking, "extremes": extremes, "minimum_code": minimum_code,
    "density_25": density, "density_50": density, "density_100": density, "group_by": group_by,
    "places": one_card, "stitched_2": stitched, "stitched_4": stitched, "motion": motion,
    "spoken": words, "printed": words,
}  # fmt: skip


def test_every_task_has_a_second_computation() -> None:
    assert set(ANSWERS) == set(LATER_TASKS)


def test_truth_is_what_the_plan_says(benchmark: list[tuple[Film, Item]]) -> None:
    for film, item in benchmark:
        assert ANSWERS[item.task](film, item) == item.answer, item
        assert item.options[item.slot] == item.answer and len(set(item.options)) == 4
        question = item.question.lower().replace("?", " ").replace(",", " ").split()
        assert item.answer.lower() not in question  # the question does not tell


def test_the_needles_are_enough_for_the_answer(benchmark: list[tuple[Film, Item]]) -> None:
    """The film without all other cards has the same answer: so the oracle can know it."""
    for film, item in benchmark:
        if item.family not in ("cell", "before", "after"):  # nothing is next to what is left out
            alone = replace(film, shown=tuple(film.shown[i] for i in item.needles))
            assert ANSWERS[item.task](alone, item) == item.answer, item


def test_without_its_needles_a_film_does_not_answer(benchmark: list[tuple[Film, Item]]) -> None:
    """The plan gives no answer then, or a wrong one. Earlier facts of state_tracking may name the
    same place by chance.
    """
    chance, every = 0, 0
    for film, item in benchmark:
        rest = tuple(one for i, one in enumerate(film.shown) if i not in item.needles)
        try:
            answer = ANSWERS[item.task](replace(film, shown=rest), item)
        except (KeyError, IndexError, ValueError, StopIteration):
            continue
        if item.task == "state_tracking":
            every, chance = every + 1, chance + (answer == item.answer)
        else:
            assert answer != item.answer, item
    assert every > 20 and chance < 0.5 * every


@pytest.mark.parametrize("task", LATER_TASKS)
def test_no_rule_over_the_options_beats_chance(task: str) -> None:
    drafts = [
        draft
        for seed in range(250)
        for draft in TASKS[task].sheet(np.random.default_rng((6, seed)), 30).drafts
    ]
    rows = [
        row
        for number, draft in enumerate(drafts)
        for row in vnbench.tries(
            str(number), task, draft.question, draft.options, draft.slot, (), 60.0
        )
    ]
    for rule, share in vnbench_score.blind_rules(rows).items():
        assert share < 0.25 + 5 * (0.25 * 0.75 / len(drafts)) ** 0.5, rule


# ---- what makes each task what it is


def test_an_association_shares_no_word_with_its_card(benchmark: list[tuple[Film, Item]]) -> None:
    asked = [(film, item) for film, item in benchmark if item.task == "association"]
    assert len(asked) == 40
    for film, item in asked:
        question = set(re.findall(r"[a-z]+", item.question.lower()))
        for one in film.shown:
            card = set(re.findall(r"[a-z]+", f"{one.card.text} {one.card.color}".lower()))
            assert not question & (card | {one.card.kind}), (item.question, one.card)


def test_threads_run_forward_or_backward_and_interleave(
    benchmark: list[tuple[Film, Item]],
) -> None:
    mixed = 0
    for film, item in benchmark:
        if item.task in ("thread_forward", "thread_backward"):
            texts = [film.shown[i].card.text for i in item.needles]
            if item.task == "thread_backward":
                texts = texts[::-1]
            assert texts[0].startswith(f"{named(item)[0]} > ") and ": " in texts[-1]
            for text, after in pairwise(texts):
                assert text.split(" > ")[1] == re.split(" > |: ", after)[0]
            mixed += item.needles[-1] - item.needles[0] > len(item.needles) - 1
    assert mixed > 30  # of 40: cards of other threads stand between


def test_the_share_of_relevant_cards_is_the_dial(benchmark: list[tuple[Film, Item]]) -> None:
    for share in (25, 50, 100):
        asked = [(f, i) for f, i in benchmark if i.task == f"density_{share}"]
        assert asked and {len(film.shown) for film, _ in asked} == {12}
        assert {100 * len(item.needles) / len(film.shown) for film, item in asked} == {share}


def test_each_place_of_the_frame_has_one_question_a_film(
    benchmark: list[tuple[Film, Item]],
) -> None:
    cells: dict[str, list[tuple[int, int]]] = {}
    for film, item in benchmark:
        if item.task == "places":
            x, y = middle_of(film.shown[item.needles[0]])
            cells.setdefault(film.name, []).append((int(3 * y), int(3 * x)))
    assert len(cells) == 20
    for own in cells.values():
        assert sorted(own) == [(row, column) for row in range(3) for column in range(3)]


def test_single_frames_do_not_tell_a_direction() -> None:
    """Seen one by one, the places of a path and of the opposite path have one distribution."""
    places: dict[str, list[float]] = {"left": [], "right": [], "up": [], "down": []}
    films, items = make.make(replace(GRID, minutes=(2.0,), tasks=("motion",), films=(150,), seed=5))
    by_name = {film.name: film for film in films}
    for item in items:
        one = by_name[item.film].shown[item.needles[0]]
        assert one.to is not None
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            begin, end = (
                (one.place.x, one.to.x)
                if item.answer in ("left", "right")
                else (one.place.y, one.to.y)
            )
            places[item.answer].append(begin + share * (end - begin))
    for way, back in (("left", "right"), ("up", "down")):
        one_way, other = np.array(places[way]), np.array(places[back])
        error = (one_way.var() / len(one_way) * 5 + other.var() / len(other) * 5) ** 0.5
        assert abs(one_way.mean() - other.mean()) < 4 * error
        assert abs(one_way.std() - other.std()) < 0.05


def test_a_shape_moves_on_the_frames() -> None:
    film = make.make(replace(GRID, minutes=(1.0,), tasks=("motion",), films=(1,)))[0][0]
    one, pictures, behind = film.shown[0], FilmPictures(film), haystack_of(film)
    assert one.end - one.start == pytest.approx(4.0)
    middles = []
    for t in np.arange(one.start + 0.1, one.end, 0.9):
        plain = np.asarray(behind.at(float(t)), dtype=int)
        changed = np.abs(np.asarray(pictures.at(float(t)), dtype=int) - plain).max(2) > 8
        y, x = np.nonzero(changed)
        middles.append((x.min() + x.max(), y.min() + y.max()))
    assert one.to is not None
    axis = 0 if abs(one.to.x - one.place.x) > abs(one.to.y - one.place.y) else 1
    steps = np.diff([middle[axis] for middle in middles])
    forward = (one.to.x > one.place.x, one.to.y > one.place.y)[axis]
    assert len(steps) >= 3 and ((steps > 0) == forward).all()


def test_stitched_frames_are_different_pictures_of_the_footage() -> None:
    film = make.make(replace(GRID, minutes=(1.0,), tasks=("stitched_4",), films=(1,)))[0][0]
    bare = np.asarray(FilmPictures(replace(film, shown=())).at(20.0))
    cells = {
        bare[row * 13 + 1 : row * 13 + 12, column * 24 + 1 : column * 24 + 23].tobytes()
        for row in range(4)
        for column in range(4)
    }
    assert len(cells) == 16
    one = film.shown[0]
    seen = np.asarray(FilmPictures(film).at(one.start + 0.5), dtype=int)
    plain = np.asarray(FilmPictures(replace(film, shown=())).at(one.start + 0.5), dtype=int)
    y, x = np.nonzero(np.abs(seen - plain).max(2) > 8)
    assert np.ptp(x) < 96 / 4 + 1 and np.ptp(y) < 54 / 4 + 1  # the card stays in its cell


def test_thumbnails_are_what_the_film_shows_at_their_seconds() -> None:
    grid = replace(GRID, minutes=(2.0,), tasks=("thumbnails",), films=(1,), width=192, height=108)
    film = make.make(grid)[0][0]
    pictures, card = FilmPictures(film), film.shown[-1]
    grid_picture = np.asarray(pictures.at(card.start + 0.5), dtype=int)
    alone = make.needles_alone(film)
    grey = FilmPictures(alone)
    assert fingerprint(alone) != fingerprint(film)
    for number, second in enumerate(float(text) for text in card.card.text.split()):
        row, column = divmod(number, 2)
        small = np.asarray(pictures.at(second).resize((96, 54), 2), dtype=int)
        cell = grid_picture[row * 54 : row * 54 + 54, column * 96 : column * 96 + 96]
        assert np.abs(cell - small)[15:, 15:].mean() < 3  # behind its letter
        # the control shows the moments and the card on grey
        (place,) = [i for i, one in enumerate(film.shown) if one.start < second < one.end]
        moment = np.asarray(grey.at(alone.shown[place].start + 0.5), dtype=int)
        assert np.abs(moment - np.asarray(pictures.at(second), dtype=int)).mean() < 3
    assert (np.asarray(grey.at(0.0)) == 128).all()
    copy = np.asarray(grey.at(alone.shown[-1].start + 0.5), dtype=int)
    assert np.abs(copy - grid_picture).mean() < 3


def test_moments_of_thumbnails_lie_in_different_scenes_of_two_minutes(
    benchmark: list[tuple[Film, Item]],
) -> None:
    for film, item in benchmark:
        if item.task == "thumbnails":
            seconds = sorted(float(text) for text in film.shown[-1].card.text.split())
            assert min(np.diff(seconds)) > 13.0


def test_speech_is_on_no_frame() -> None:
    film = make.make(replace(GRID, minutes=(1.0,), tasks=("spoken",), films=(1,)))[0][0]
    second = (film.shown[0].start + film.shown[0].end) / 2
    behind = np.asarray(haystack_of(film).at(second))
    assert np.array_equal(np.asarray(FilmPictures(film).at(second)), behind)


@pytest.mark.parametrize("look", looks.LOOKS)
def test_every_task_is_drawn_in_every_look(look: str) -> None:
    films, _ = make.make(
        replace(GRID, minutes=(2.0,), tasks=LATER_TASKS, films=(1,), looks=(look,))
    )
    for film in films:
        one = film.shown[-1]
        frames = next(iter(FilmSource(film, 4.0, width=96, height=54, batch=1).frames(one.start)))
        assert frames.pixels.shape == (1, 54, 96, 3)


def test_plans_with_later_fields_are_read_back(tmp_path) -> None:
    films, items = make.make(replace(GRID, minutes=(2.0,), tasks=LATER_TASKS, films=(1,)))
    make.save(films, items, tmp_path)
    assert read_films(tmp_path / "films.jsonl") == films
    assert read_items(tmp_path / "items.jsonl") == items
    assert {film.stitched for film in films} == {1, 2, 4}
    assert any(one.to for film in films for one in film.shown)
    again, _ = make.make(replace(GRID, minutes=(2.0,), tasks=LATER_TASKS[::-1], films=(2,)))
    assert {fingerprint(film) for film in films} < {fingerprint(film) for film in again}


@pytest.mark.parametrize(
    ("make_task", "words"),
    [
        (lambda: Threads(threads=9, length=3), "threads=9"),
        (lambda: Threads(direction="sideways"), "sideways"),
        (lambda: Density(share=0.0), "share=0"),
        (lambda: Stitched(n=1), "n=1"),
        (lambda: StateTracking(steps=2), "steps=2"),
    ],
)
def test_settings_of_a_task_that_do_not_fit(make_task: Callable[[], object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_task()

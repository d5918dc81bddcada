"""Films of the needle benchmark, their questions, and how answers are scored.

VNBench's rules give the published figures. Truths agree with a plainer reading of the film. Options
leak nothing. A film differs from its haystack at the needles alone.
"""

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from encoders.errors import UserError
from encoders.schema import join_frames
from encoders.sources.file import FileSource
from pipeline.evaluation.needle.films import looks, make, vnbench
from pipeline.evaluation.needle.films.film import (
    FilmSource,
    fingerprint,
    is_sampled,
    source_second,
    write,
)
from pipeline.evaluation.needle.films.haystack import haystack_of
from pipeline.evaluation.needle.films.schema import (
    Appearance,
    Card,
    Film,
    Item,
    read_films,
    read_items,
)
from pipeline.evaluation.needle.results import score, vnbench_score
from pipeline.evaluation.needle.results.rows import question_of
from pipeline.needle_world.questions import NOT_SHOWN
from pipeline.scoring import named_option
from tests.support.needle_films import FIRST_TASKS, FIXTURE, GRID, TASKS, frames, published
from tests.support.videos import write_video

# ---- VNBench


def test_the_template_reproduces_letters_and_prompts() -> None:
    """64 rows written from the published table of letters and prompts, not by our code."""
    assert len(FIXTURE) == 64 and {row["slot"] for row in FIXTURE} == {0, 1, 2, 3}
    for wanted in FIXTURE:
        row = vnbench.tries(
            "v", wanted["type"], wanted["question"], wanted["base"], wanted["slot"], [1.0], 60.0
        )[wanted["try"]]
        assert (
            row["gt_option"] == wanted["gt_option"] and row["gt"] == wanted["base"][wanted["slot"]]
        )
        assert vnbench.prompt(row) == wanted["prompt"]


# of 150 videos each: LLaVA-OneVision-7B with 64 frames, types as the annotation names them
@pytest.mark.parametrize("strict", [False, True])
def test_published_results_get_their_published_scores(tmp_path: Path, strict: bool) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in published()))
    done = vnbench_score.score(vnbench_score.read_results(path), strict=strict)
    assert (
        round(100 * done.overall, 1) == 51.8
        and round(100 * done.single, 1) == 62.8
        and done.videos == 1350
    )
    assert {group: round(100 * share, 1) for group, share in done.groups.items()} == {
        "ret": 77.1,
        "ord": 52.4,
        "cnt": 25.8,
    }
    # the stricter scorer names the picture tasks as the paper does
    first = "ret_insert1" if strict else "ret_insert2"
    assert round(100 * done.types[first], 1) == 87.3


def test_the_looser_scorer_reads_letters_as_it_is_published(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"

    def scored(*preds: str | None) -> float:
        lines = [
            {
                "question_id": f"v_ret_edit1_{i}",
                "type": "ret_edit1",
                "gt": 1,
                "pred": pred,
                "try": i,
                "prompt": "",
            }
            for i, pred in enumerate(preds)
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return vnbench_score.score(vnbench_score.read_results(path)).overall

    assert scored("B", "B", "(B)", "B. Alice") == 1
    assert scored("B", "B", "B", "Answer: B") == 0  # the A of "Answer" comes first
    assert scored("B", "B", "B", None) == 0 and scored("B", "B", "B") == 0  # a missing try fails
    with pytest.raises(UserError, match="no answer to score"):
        scored(None)
    scored("B", "B", "B")
    with pytest.raises(UserError, match="3 tries, and 4 are needed"):
        vnbench_score.score(vnbench_score.read_results(path), strict=True)


@pytest.mark.parametrize("name", vnbench.FIELDS)
def test_an_annotation_without_a_field_is_told_by_row_and_field(tmp_path: Path, name: str) -> None:
    rows = vnbench.tries("v.mp4", "ret_edit1", "?", "wxyz", 2, [1.0], 60.0)
    vnbench.write(tmp_path / "good.json", rows)
    assert vnbench.read(tmp_path / "good.json") == rows
    del rows[2][name]
    vnbench.write(tmp_path / "bad.json", rows)
    with pytest.raises(UserError, match=rf"row 3 has no field '{name}'"):
        vnbench.read(tmp_path / "bad.json")


def test_an_annotation_that_contradicts_itself_is_told(tmp_path: Path) -> None:
    rows = vnbench.tries("v.mp4", "ret_edit1", "?", "wxyz", 2, [1.0], 60.0)
    vnbench.write(tmp_path / "bad.json", [rows[0] | {"gt": "x"}])
    with pytest.raises(UserError, match="row 1: option C is not gt='x'"):
        vnbench.read(tmp_path / "bad.json")


# ---- truths


def plain_answer(item: Item, film: Film) -> str:
    """The answer, read off the film's cards in another way than they were drawn up."""
    cards = [one.card for one in sorted(film.shown, key=lambda one: one.start)]
    of = [card for card in cards if card.kind == item.family]
    words = item.question.rstrip("?.").lower().replace(",", " ").split()
    if item.task == "not_shown":
        hits = [c for c in of if item.family != "shape" or c.text in words or c.color in words]
        return NOT_SHOWN if not hits else "shown after all"
    if item.task in ("retrieve", "confuser"):
        if item.family == "color":
            return next(c.color for c in cards if c.kind == "shape" and c.text in words)
        if item.family == "shape":
            return next(c.text for c in cards if c.color in words and c.color)
        return of[0].text if len(of) == 1 else "several"
    if item.task == "order":
        return ", ".join(c.text for c in of)
    if item.task == "count":
        return str(
            sum(item.family != "shape" or any(w.startswith(c.text) for w in words) for c in of)
        )
    if item.task == "most_frequent":
        (first, most), (_, next_) = Counter(c.text for c in of).most_common(2)
        return first if most > next_ else "a tie"
    pairs = [c.text.split(": ") for c in of if ": " in c.text]
    name = item.question.rstrip("?.").split(" of ")[-1]
    if item.task in ("multi_key", "updated"):
        return [code for who, code in pairs if who == name][-1]
    ways = dict(c.text.split(" > ") for c in of if " > " in c.text)
    name = item.question.split("from ")[1].split(":")[0]
    while name in ways:
        name = ways[name]
    return dict(pairs)[name]


def test_truth_is_what_the_film_shows() -> None:
    films, items = make.make(replace(GRID, minutes=(1.0, 5.0), films=(6,), looks=looks.LOOKS))
    by_name = {film.name: film for film in films}
    assert {item.task for item in items} == {*FIRST_TASKS, "not_shown"}
    for item in items:
        film = by_name[item.film]
        assert plain_answer(item, film) == item.answer, item
        assert not item.options or (
            item.options[item.slot] == item.answer and len(set(item.options)) == 4
        )
        starts = [film.shown[i].start for i in item.needles]
        assert starts == sorted(starts) and (bool(starts) == bool(item.options))
        # the question does not tell
        assert item.answer.lower() not in item.question.lower().replace("?", " ").split()


def test_needles_keep_apart_and_stand_at_their_depths() -> None:
    films, items = make.make(replace(GRID, minutes=(1.0, 10.0), films=(5,)))
    for film in films:
        assert all(
            b.start - a.end >= make.GAP_S - 2e-3
            for a, b in zip(film.shown, film.shown[1:], strict=False)
        )
        assert film.shown[0].start >= 0 and film.shown[-1].end <= film.seconds
    lone = [item for item in items if item.task == "retrieve"]
    asked = [(item.family, item.seconds, item.depth) for item in lone if item.depth is not None]
    off = [
        abs(score.grid_depth(depth, GRID.depths) - depth) / 100 * (seconds - 2)
        for _, seconds, depth in asked
    ]
    # seconds: the random phase, and a depth rounded to hundredths of ten minutes
    assert max(off) <= 0.54
    seen = Counter(
        (family, seconds, score.grid_depth(depth, GRID.depths)) for family, seconds, depth in asked
    )
    assert len(seen) == 5 * 5 * 2 and set(seen.values()) == {1}  # every kind of card at every depth


@pytest.mark.parametrize("room", [16, 40])  # of a minute, and of more needles than any sheet has
@pytest.mark.parametrize("task", TASKS)
def test_no_rule_over_the_options_beats_chance(task: str, room: int) -> None:
    """Every rank and letter holds a quarter of the right options, however much room there is. The
    seed is fixed and the tolerance is five standard errors.
    """
    drafts = [
        draft
        for seed in range(200)
        for draft in TASKS[task].sheet(np.random.default_rng((5, seed)), room).drafts
    ]
    asked = [draft for draft in drafts if draft.options]
    rows = [
        row
        for number, draft in enumerate(asked)
        for row in vnbench.tries(
            str(number), task, draft.question, draft.options, draft.slot, (), 60.0
        )
    ]
    for rule, share in vnbench_score.blind_rules(rows).items():
        assert share < 0.25 + 5 * (0.25 * 0.75 / len(asked)) ** 0.5, rule


def test_the_same_settings_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make.save(*make.make(GRID), tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["films.jsonl", "items.jsonl", "vnbench.json"]
    assert all(
        (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        for name in files
    )
    films, items = make.make(GRID)
    assert (
        read_films(tmp_path / "a" / "films.jsonl") == films
        and read_items(tmp_path / "a" / "items.jsonl") == items
    )
    assert vnbench.read(tmp_path / "a" / "vnbench.json")
    alone, _ = make.make(replace(GRID, tasks=("order",), films=(1,)))
    assert alone[0] in films  # a film does not change with the films around it
    assert make.make(replace(GRID, seed=1))[0] != films


def test_films_of_the_first_tasks_stay_what_they_were(tmp_path: Path) -> None:
    """Digests of commit fe241d8: rows of runs before it still belong to these films."""
    grid = replace(GRID, minutes=(1.0, 5.0), looks=looks.LOOKS)
    films, items = make.make(grid)
    make.save(films, items, tmp_path)
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in tmp_path.iterdir()
    }
    assert digests == {
        "films.jsonl": "2eeb1ee56c156bbe",
        "items.jsonl": "bb3bc513560c3059",
        "vnbench.json": "82f64d0095f07fce",
    }
    fingerprints = " ".join(fingerprint(film) for film in films)
    assert hashlib.sha256(fingerprints.encode()).hexdigest()[:16] == "088224bac0b4e020"


# ---- films


@pytest.mark.parametrize("look", looks.LOOKS)
def test_frames_differ_from_the_haystack_at_needles_alone(look: str) -> None:
    film = make.make(replace(GRID, tasks=("retrieve",), films=(1,), looks=(look,)))[0][0]
    seen = frames(film)
    behind = haystack_of(film)
    for t, pixels in zip(seen.times, seen.pixels, strict=True):
        plain = np.asarray(behind.at(source_second(film, float(t))).resize((96, 54), 2), dtype=int)
        changed = np.abs(pixels - plain).max(axis=2) > 8  # [54, 96]
        on = [one for one in film.shown if one.start <= t < one.end]
        assert bool(on) == bool(changed.any()), t
        if on:
            y, x = np.nonzero(changed)
            at = on[0].place
            box = (
                at.x * 96 - 1.5,
                (at.x + at.width) * 96 + 1.5,
                at.y * 54 - 1.5,
                (at.y + at.height) * 54 + 1.5,
            )
            assert (
                box[0] <= x.min() and x.max() <= box[1] and box[2] <= y.min() and y.max() <= box[3]
            )
            assert changed.mean() > 0.3 * at.width * at.height
    # two seconds are never missed at 1 frame a second
    assert all(is_sampled(film, i, 1.0) for i in range(len(film.shown)))


def test_spliced_needles_hold_the_footage_up() -> None:
    film = make.make(replace(GRID, tasks=("retrieve",), films=(1,), spliced=True))[0][0]
    first = film.shown[0]
    assert source_second(film, first.start - 0.1) == pytest.approx(first.start - 0.1)
    assert source_second(film, first.end - 1e-9) == pytest.approx(first.start)
    assert source_second(film, film.seconds) == pytest.approx(film.seconds - 2.0 * len(film.shown))
    assert source_second(replace(film, spliced=False), film.seconds) == film.seconds


@pytest.mark.parametrize("real", [False, True])
def test_no_two_seconds_are_equal_and_any_second_can_be_asked_for(
    tmp_path: Path, real: bool
) -> None:
    files: tuple[str, ...] = ()
    if real:
        write_video(tmp_path / "a.mp4", 4.0, 5)
        files = (str(tmp_path / "a.mp4"),)
    film = Film("f", 24 * 3600.0, 3, files, (), 96, 54)
    seen = join_frames(
        [
            part
            for part, _ in zip(
                FilmSource(film, 1.0, width=96, height=54).frames(), range(4), strict=False
            )
        ]
    )
    assert len({pixels.tobytes() for pixels in seen.pixels}) == len(seen) == 64
    late = next(iter(FilmSource(film, 1.0, width=96, height=54).frames(20.0)))
    assert np.array_equal(late.pixels[:16], seen.pixels[20:36]) and late.times[0] == 20.0
    end = next(iter(FilmSource(film, 1.0, width=96, height=54).frames(24 * 3600 - 3.0)))
    assert len(end) == 3  # of a day: nothing before it is rendered
    other = next(iter(FilmSource(replace(film, seed=4), 1.0, width=96, height=54).frames()))
    assert not np.array_equal(other.pixels[0], seen.pixels[0]) and fingerprint(film) != fingerprint(
        replace(film, seed=4)
    )


def test_a_written_film_shows_its_needles_when_the_plan_does(tmp_path: Path) -> None:
    card = Card("code", "4821")
    place = looks.place(np.random.default_rng(0), card, "card")
    film = Film("f", 8.0, 0, ("grey",), (Appearance(card, "card", place, 3.2, 5.2),), 192, 108)
    write(film, tmp_path / "f.mp4")
    seen = join_frames(list(FileSource(tmp_path / "f.mp4", 4.0, width=96, height=54).frames()))
    has_card = np.abs(seen.pixels.astype(int) - 128).mean(axis=(1, 2, 3)) > 8
    assert [float(t) for t in seen.times[has_card]] == [3.25, 3.5, 3.75, 4.0, 4.25, 4.5, 4.75, 5.0]


def test_controls_take_away_what_they_say() -> None:
    film = make.make(replace(GRID, tasks=("count",), films=(1,)))[0][0]
    empty, alone = make.without_needles(film), make.needles_alone(film)
    assert not empty.shown and (empty.seconds, empty.seed) == (film.seconds, film.seed)
    assert [one.card for one in alone.shown] == [one.card for one in film.shown]
    grey = [
        t for t in frames(alone).times if not any(one.start <= t < one.end for one in alone.shown)
    ]
    assert (
        all((frames(alone).pixels[int(t)] == 128).all() for t in grey) and len(grey) < alone.seconds
    )
    assert len({fingerprint(each) for each in (film, empty, alone)}) == 3


# ---- scores


def scored_row(**more: object) -> dict[str, object]:
    """A row of results.jsonl, as far as scores read it."""
    return {
        "arm": "bank", "control": "", "item": "1", "film": "a", "task": "printed", "kind": "",
        "question": "What was it built of?", "truth": "oak", "text": "oak", "right": True,
        "options": ["oak", "iron"], "choice": 0, "gt": ["A"], "needles": [[4, 8], [20, 24]],
        "cited": [[4, 6], [30, 31]], "recalled": [[0, 6]], "found": [True, False], "ranks": [],
        "shown": True,
    } | more  # fmt: skip


def test_the_table_of_evidence_is_what_the_scorers_of_a_batch_say() -> None:
    wrong = scored_row(item="2", right=False, text="iron", cited=[[50, 60]])
    head, _, line = score.evidence_table([scored_row(), wrong])
    cells = dict(
        zip(*([one.strip() for one in row.split("|")] for row in (head, line)), strict=True)
    )
    # of both answers, 2 of 8 seconds were read; what the wrong one cites does not count
    assert cells["seconds read"] == "25.0, n=2"
    assert (cells["citation precision"], cells["citation recall"]) == ("50.0, n=1", "50.0, n=1")
    assert cells["IoU"] == f"{100 * 2 / 9:.1f}, n=1"


def test_a_quote_is_right_if_it_states_the_answer() -> None:
    quote = '00:31 "The old pier was built of Oak-wood, or oak."'
    for text, cited_by, right, chose_right in (
        (quote, "quote", True, True),
        (quote, "attention", False, False),  # a model has to answer the question
        ('00:31 "It was built of oak, not iron."', "quote", True, False),  # names two options
        ('00:31 "It was built of soaked wood."', "quote", False, False),
    ):
        is_quote = cited_by == "quote"
        number = named_option(text, ("oak", "iron"), is_quote=is_quote)
        row = scored_row(text=text, cited_by=cited_by, choice=-1 if number is None else number)
        assert question_of(row).right is right, text
        assert question_of(row, chooses=True).right is chose_right, text

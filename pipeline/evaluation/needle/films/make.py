"""Settings -> films and items, on disk as films.jsonl, items.jsonl and vnbench.json.

The same settings give the same bytes. Knows no model.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from encoders.errors import UserError
from pipeline.config.parts import PartSettings, instantiate
from pipeline.config.parts import check as check_part
from pipeline.config.units import format_time
from pipeline.evaluation.needle.films import looks, vnbench
from pipeline.evaluation.needle.films.schema import Appearance, Film, Item, write_lines
from pipeline.evaluation.needle.films.sound import has_words
from pipeline.evaluation.needle.films.tasks.sheet import NeedleTask, Sheet, check, one_of

GAP_S = 1.5  # between needles, so that at 1 frame a second no two are neighbours
MARGIN_S = 1.0  # without needles at both ends


@dataclass(frozen=True, slots=True)
class Grid:
    """The settings of a benchmark."""

    minutes: tuple[float, ...]  # lengths of the films
    depths: tuple[float, ...]  # per cent of the film, for questions about one card
    tasks: tuple[str, ...]  # names in known_tasks
    films: tuple[int, ...]  # per task: one number for each length, or one for all
    looks: tuple[str, ...]
    needle_seconds: float
    seed: int
    haystack: tuple[str, ...]  # files; none = procedural
    spliced: bool
    width: int
    height: int
    known_tasks: Mapping[str, NeedleTask]

    def __post_init__(self) -> None:
        """UserError on what cannot be made."""
        check(self.tasks, self.known_tasks)
        for minutes in self.minutes:
            if not 0 < minutes <= 24 * 60:
                raise UserError(
                    f"minutes has {minutes:g}, which is no length from above 0 to 1440 minutes; "
                    "give others."
                )
        for depth in self.depths:
            if not 0 <= depth <= 100:
                raise UserError(
                    f"depths has {depth:g}, which is outside 0..100 per cent of the film; give "
                    "others."
                )
        for look in self.looks:
            if look not in looks.LOOKS:
                raise UserError(
                    f"looks has {look!r}, which is no look; use some of {', '.join(looks.LOOKS)}."
                )
        if not self.needle_seconds > 0:
            raise UserError(
                f"needle_seconds={self.needle_seconds:g} shows nothing; give seconds above 0."
            )
        for name in ("minutes", "depths", "tasks", "looks"):
            if not getattr(self, name):
                raise UserError(f"{name} is empty; give at least one.")
        if min(self.films, default=0) < 1 or len(self.films) not in (1, len(self.minutes)):
            numbers = ",".join(map(str, self.films))
            raise UserError(
                f"films=[{numbers}] does not fit; give one number from 1 for all lengths, or one "
                "for each."
            )
        for minutes in self.minutes:
            if 60 * minutes < self.needle_seconds + 2 * MARGIN_S:
                raise UserError(
                    f"A haystack of {60 * minutes:g} s is shorter than a needle of "
                    f"{self.needle_seconds:g} s with "
                    f"{MARGIN_S:g} s before and behind it; give more minutes, or fewer "
                    "needle_seconds."
                )


def known_tasks(nodes: Mapping[str, PartSettings]) -> dict[str, NeedleTask]:
    """The tasks of the group needle_task by name. UserError on settings that do not fit."""
    built = {}
    for name, node in nodes.items():
        task = instantiate(f"needle_task.{name}", node)
        if not isinstance(task, NeedleTask):
            raise UserError(
                f"needle_task.{name} names {node.get('_target_')}, which is no NeedleTask; derive "
                "its class from pipeline.evaluation.needle.films.tasks.sheet.NeedleTask."
            )
        check_part(f"needle_task.{name}", node)
        built[name] = task
    return built


def make(grid: Grid) -> tuple[list[Film], list[Item]]:
    """Films and items in the order of the grid. UserError when needles do not fit into a film."""
    films: list[Film] = []
    items: list[Item] = []
    for i, minutes in enumerate(grid.minutes):
        for task in grid.tasks:
            for number in range(grid.films[i % len(grid.films)]):
                film, own = _film(grid, 60.0 * minutes, task, number)
                films.append(film)
                items += own
    return films, items


def save(films: Sequence[Film], items: Sequence[Item], out: Path) -> None:
    """Write films.jsonl, items.jsonl and VNBench's annotation.

    The annotation names a file of its own for each question.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_lines(out / "films.jsonl", films)
    write_lines(out / "items.jsonl", items)
    by_name = {film.name: film for film in films}
    rows = [row for item in items if item.options for row in vnbench.rows(item, by_name[item.film])]
    vnbench.write(out / "vnbench.json", rows)


def _film(grid: Grid, seconds: float, name: str, number: int) -> tuple[Film, list[Item]]:
    """The film of one number for the task of this name."""
    task = grid.known_tasks[name]
    if task.needle_seconds:
        grid = replace(grid, needle_seconds=task.needle_seconds)
    film_name = f"{name}-{seconds / 60:g}min-{number:03d}"
    # the seed depends on the name alone, so a film does not change with the films around it
    digest = hashlib.sha256(f"{grid.seed} {film_name}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    room = int((seconds - 2 * MARGIN_S + GAP_S + 1e-9) // (grid.needle_seconds + GAP_S))
    sheet = task.sheet(rng, room)
    if len(sheet.cards) > room or not sheet.drafts:
        raise UserError(
            f"task {name} shows {max(len(sheet.cards), 6)} needles of {grid.needle_seconds:g} s, "
            f"and a film of {seconds:g} s "
            f"has room for {max(room, 0)}; give more minutes, or fewer needle_seconds."
        )
    starts = _starts(rng, grid, sheet, seconds, number)
    if sheet.dated:
        sheet = _dated(sheet, starts, grid.needle_seconds)
    appearances, place_of = _appearances(rng, grid, sheet, starts)
    film = Film(
        name=film_name,
        seconds=seconds,
        seed=int(rng.integers(1 << 31)),
        footage=grid.haystack,
        shown=appearances,
        width=grid.width,
        height=grid.height,
        spliced=grid.spliced,
        stitched=sheet.stitched,
    )
    items = []
    for i, draft in enumerate(sheet.drafts):
        needles = tuple(place_of[n] for n in draft.needles)
        depth = (
            round(100 * appearances[needles[0]].start / (seconds - grid.needle_seconds), 2)
            if len(needles) == 1
            else None
        )
        items.append(
            Item(
                id=f"{film_name}-{i}",
                film=film_name,
                task=draft.task or name,
                family=draft.family,
                question=draft.question,
                answer=draft.answer,
                options=draft.options,
                slot=draft.slot,
                needles=needles,
                seconds=seconds,
                depth=depth,
            )
        )
    return film, items


def _dated(sheet: Sheet, starts: Sequence[float], needle_seconds: float) -> Sheet:
    """A sheet whose texts say when its cards show."""
    times = {
        "middles": [start + needle_seconds / 2 for start in starts],
        # the gap between two cards holds a whole second
        "pauses": [format_time(math.ceil(start + needle_seconds)) for start in starts],
    }
    return replace(
        sheet,
        cards=tuple(replace(card, text=card.text.format(**times)) for card in sheet.cards),
        drafts=tuple(
            replace(draft, question=draft.question.format(**times)) for draft in sheet.drafts
        ),
    )


def _starts(
    rng: np.random.Generator, grid: Grid, sheet: Sheet, seconds: float, number: int
) -> list[float]:
    """When each card begins.

    Cards with a question of their own go to the depths of the grid, rotated from film to film.
    """
    last = seconds - grid.needle_seconds
    if sheet.spread:
        part = (last - 2 * MARGIN_S) / len(sheet.cards)
        shares = np.arange(len(sheet.cards)) + rng.uniform(0.3, 0.7, len(sheet.cards))
        return [round(MARGIN_S + float(share) * part, 3) for share in shares]
    fixed: dict[int, float] = {}
    for i, card in enumerate(sheet.at_depths):
        depth = grid.depths[(i + number) % len(grid.depths)]
        # a random phase: needles that begin on whole seconds would all be sampled alike
        target = float(np.clip(last * depth / 100 + rng.uniform(-0.5, 0.5), 0, last))
        fixed[card] = _nearest(target, list(fixed.values()), grid.needle_seconds, last)
    if not fixed:
        free = (
            seconds
            - 2 * MARGIN_S
            - len(sheet.cards) * grid.needle_seconds
            - (len(sheet.cards) - 1) * GAP_S
        )
        cuts = np.sort(rng.uniform(0, max(free, 0.0), len(sheet.cards)))
        step = grid.needle_seconds + GAP_S
        return [round(MARGIN_S + float(cut) + i * step, 3) for i, cut in enumerate(cuts)]
    for card in range(len(sheet.cards)):
        if card not in fixed:
            fixed[card] = _nearest(
                float(rng.uniform(0, last)), list(fixed.values()), grid.needle_seconds, last
            )
    return [round(fixed[card], 3) for card in range(len(sheet.cards))]


def _nearest(target: float, others: list[float], needle_seconds: float, last: float) -> float:
    """The moment nearest to the wanted one that keeps its distance from the taken ones."""
    step = needle_seconds + GAP_S
    options = [target, 0.0, last, *(t - step for t in others), *(t + step for t in others)]
    fits = [
        t
        for t in options
        if 0 <= t <= last and all(abs(t - other) >= step - 1e-6 for other in others)
    ]
    if not fits:
        raise UserError(
            f"Needles at these depths do not fit side by side into {last + needle_seconds:g} s; "
            "give more minutes."
        )
    return min(fits, key=lambda t: abs(t - target))


def _appearances(
    rng: np.random.Generator, grid: Grid, sheet: Sheet, starts: Sequence[float]
) -> tuple[tuple[Appearance, ...], dict[int, int]]:
    """The cards in time order, and the position of each of the sheet's cards among them."""
    appearances = []
    for number, (card, start) in enumerate(zip(sheet.cards, starts, strict=True)):
        look = one_of(rng, grid.looks)
        style = sheet.styles.get(number)
        place = looks.place(rng, card, look) if style is None else style.place
        end = round(start + grid.needle_seconds, 3)
        appearances.append(
            Appearance(card, look, place, start, end)
            if style is None
            else Appearance(card, style.look, place, start, end, style.to)
        )
    order = sorted(range(len(appearances)), key=lambda i: appearances[i].start)
    return tuple(appearances[i] for i in order), {card: place for place, card in enumerate(order)}


def without_needles(film: Film) -> Film:
    """The same haystack without needles: a control."""
    return replace(film, name=f"{film.name}-haystack", shown=(), file="")


def needles_alone(film: Film) -> Film:
    """The same needles in the same order on grey, one after another: a control.

    Their numbers in the film stay. Moments of the footage show as pictures.
    """
    appearances, at = [], MARGIN_S
    for one in film.shown:
        length = one.end - one.start
        appearances.append(replace(one, start=round(at, 3), end=round(at + length, 3)))
        at += length + GAP_S
    name, seconds = f"{film.name}-needles", round(at + MARGIN_S, 3)
    has_moments = any(one.card.kind in ("footage", "thumbnails") for one in film.shown)
    path = PurePosixPath(film.file)
    return replace(
        film,
        name=name,
        seconds=seconds,
        footage=("grey", *film.footage) if has_moments else ("grey",),
        shown=tuple(appearances),
        spliced=False,
        # words are read from files, so that the control of a film with words is one as well
        file=str(path.with_stem(f"{path.stem}-needles")) if film.file and has_words(film) else "",
        stitched=1,
    )

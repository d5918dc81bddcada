"""Training sequences for the embedded language model, laid out as inference lays them out.

An episode is a short film: cards that show for one to three sampled frames, footage between them,
time tags with gaps of seconds to minutes. Many questions share one film; the attention mask lets
each question see the film and itself only.

Two layouts are drawn, because there are two readers. Tokens: everything is prefilled again,
causally. KV: a frame saw only a window of frames before it when it was encoded, and the question
sees only some of the frames.

Knows no pixels and no model; a frame is a row of the pool.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pipeline.needle_world.cards import COLORS, KINDS, Needle
from pipeline.needle_world.questions import FAMILIES, NeedleQuestion, ask_one


def mix(*weights: float) -> dict[str, float]:
    """Weight of each question family, in the order of FAMILIES.

    code, name, color, shape, icon, order, count, not_shown
    """
    return dict(zip(FAMILIES, weights, strict=True))


# Order and counting are learned last.
WEIGHTS = mix(1.0, 0.8, 1.0, 1.0, 0.8, 2.2, 2.4, 1.4)
LATE_WEIGHTS = mix(0.5, 0.4, 0.5, 1.8, 0.4, 5.5, 3.0, 1.8)
FINAL_WEIGHTS = mix(1.5, 0.8, 1.2, 1.5, 0.8, 4.0, 3.0, 1.8)
GUIDED_WEIGHTS = mix(1.5, 0.6, 1.0, 1.6, 0.6, 4.0, 3.5, 2.2)
ORDER_WEIGHTS = mix(1.2, 0.5, 1.0, 1.6, 0.5, 6.0, 3.2, 2.2)
LAST_WEIGHTS = mix(1.2, 0.4, 0.7, 3.5, 0.4, 6.0, 3.0, 2.2)
HALF_ORDER_WEIGHTS = mix(1.2, 0.4, 0.7, 2.0, 0.4, 10.0, 3.2, 2.1)
HARD_WEIGHTS = mix(1.4, 0.4, 0.7, 3.2, 0.8, 8.0, 2.8, 3.4)
APART_WEIGHTS = mix(1.6, 0.5, 2.0, 6.0, 0.8, 5.0, 3.4, 3.2)
CLUTTER_WEIGHTS = mix(2.0, 0.5, 1.0, 3.2, 0.8, 6.5, 3.6, 3.8)
# owner of the preamble's tokens: answers that rest on nothing in the video attend to it
SINK = -2
# of each film, the token ids of its (question, answer) pairs
Texts = list[list[tuple[list[int], list[int]]]]


@dataclass(frozen=True, slots=True)
class Episode:
    """One film with its questions."""

    scene: tuple[Needle, ...]
    rows: np.ndarray  # [F] int64 frames of the pool
    owner: np.ndarray  # [F] needle index of each frame, -1 for footage
    times: np.ndarray  # [F] seconds, rising
    questions: tuple[NeedleQuestion, ...]
    # [F] int64: change of the colour of a frame's card, see `recoloured`
    shift: np.ndarray


class Pool:
    """Which rows show which needle: rows of event e are e * per_event + i.

    `lookalikes`: the events of footage that resemble cards most, as a retriever would pick them.
    Empty until code that sees pixels or tokens fills it.
    """

    def __init__(self, needles: list[Needle | None], per_event: int) -> None:
        self.per_event = per_event
        self.blank = [i for i, n in enumerate(needles) if n is None]
        self.by_kind = {
            kind: [i for i, n in enumerate(needles) if n is not None and n.kind == kind]
            for kind in KINDS
        }
        self.by_shape: dict[str, list[int]] = {}
        for i in self.by_kind["shape"]:
            needle = needles[i]
            assert needle is not None
            self.by_shape.setdefault(needle.text, []).append(i)
        self.needles = needles
        self.lookalikes: list[int] = []


def _how_many(rng: np.random.Generator, most: int) -> int:
    if most == 0 or rng.random() < 0.3:
        return 0
    return 1 if rng.random() < 0.45 else int(rng.integers(1, most + 1))


def _events(rng: np.random.Generator, pool: Pool, room: int) -> list[int]:
    """Events of one scene: no needle twice, so that every count is a number of different cards."""
    chosen: list[int] = []
    for kind in KINDS:
        if kind == "shape":
            continue
        chosen += [int(i) for i in rng.choice(pool.by_kind[kind], _how_many(rng, 6))]
    if rng.random() < 0.5:  # several of one shape, so that counting goes beyond one
        shape = str(rng.choice(sorted(pool.by_shape)))
        chosen += [int(i) for i in rng.choice(pool.by_shape[shape], int(rng.integers(2, 7)))]
    chosen += [int(i) for i in rng.choice(pool.by_kind["shape"], int(rng.integers(0, 6)))]
    drawn: set[Needle | None] = set()
    distinct = []
    for i in rng.permutation(chosen):
        if pool.needles[int(i)] not in drawn:
            drawn.add(pool.needles[int(i)])
            distinct.append(int(i))
    return distinct[:room]


def draw_episode(
    rng: np.random.Generator,
    pool: Pool,
    frames: int,
    questions: int,
    family_weights: Mapping[str, float] = WEIGHTS,
    lookalikes: float = 0.0,
    recolour: float = 0.0,
) -> Episode:
    """A film of exactly `frames` frames with `questions` questions.

    lookalikes: share of the films whose footage is only what resembles cards.
    recolour: share of the films whose shapes get new random colours (`train_lm.Recolour`).
    """
    blank = pool.lookalikes if lookalikes and rng.random() < lookalikes else pool.blank
    events = _events(rng, pool, room=max(1, frames // 2))
    rows, owner = _lay_frames(rng, pool, events, blank, frames)
    scale = float(rng.choice((0.0, 3.0, 30.0, 90.0)))
    steps = [
        1.0 if i and owner[i] == owner[i - 1] >= 0 else 1.0 + np.floor(rng.exponential(scale))
        for i in range(frames)
    ]
    shown_as = [pool.needles[e] for e in events]
    shifts = np.full(len(events) + 1, -1)  # the last one: footage
    if recolour and rng.random() < recolour:
        shown_as, shifts[:-1] = recoloured(rng, shown_as)
    scene = tuple(n for n in shown_as if n is not None)
    weights = np.array([family_weights[f] for f in FAMILIES])
    drawn: list[NeedleQuestion] = []
    while len(drawn) < questions:
        one = ask_one(
            rng, scene, FAMILIES[int(rng.choice(len(FAMILIES), p=weights / weights.sum()))]
        )
        if one is not None:
            drawn.append(one)
    times = np.minimum(np.cumsum(steps) + rng.integers(0, 600) - 1, 5999)
    return Episode(
        scene, np.array(rows), np.array(owner), times, tuple(drawn), shifts[np.array(owner)]
    )


def _lay_frames(
    rng: np.random.Generator, pool: Pool, events: list[int], blank: list[int], frames: int
) -> tuple[list[int], list[int]]:
    """Pool row and owner of each frame. Drops the last events until the others fit."""
    lengths = [int(rng.choice((1, 2, 3), p=(0.25, 0.6, 0.15))) for _ in events]
    while sum(lengths) > frames:
        events.pop(), lengths.pop()
    gaps = np.zeros(len(events) + 1, int)
    for _ in range(frames - sum(lengths)):
        gaps[int(rng.integers(len(gaps)))] += 1
    rows: list[int] = []
    owner: list[int] = []
    for slot in range(len(gaps)):
        rows += [
            int(rng.choice(blank)) * pool.per_event + int(rng.integers(pool.per_event))
            for _ in range(gaps[slot])
        ]
        owner += [-1] * int(gaps[slot])
        if slot < len(events):
            order = rng.permutation(pool.per_event)
            rows += [
                events[slot] * pool.per_event + int(order[i % pool.per_event])
                for i in range(lengths[slot])
            ]
            owner += [slot] * lengths[slot]
    return rows, owner


def recoloured(
    rng: np.random.Generator, needles: list[Needle | None]
) -> tuple[list[Needle | None], list[int]]:
    """The same cards with shapes in other colours, where no card then comes twice.

    Second result, for each card: own colour * 8 + new colour, or -1 where nothing changes. Colours
    are numbered as in cards.COLORS.
    """
    colors = list(COLORS)
    cards, shifts = list(needles), [-1] * len(needles)
    for i, needle in enumerate(needles):
        if needle is not None and needle.kind == "shape":
            other = replace(needle, color=colors[int(rng.integers(len(colors)))])
            if other not in cards:
                cards[i], shifts[i] = (
                    other,
                    colors.index(needle.color) * len(colors) + colors.index(other.color),
                )
    return cards, shifts


@dataclass(frozen=True, slots=True)
class Batch:
    """B episodes as one tensor batch of length S: preamble, frames * (tag + visual), questions."""

    ids: Tensor  # [B, S] int64 token ids; 0 where a visual token or newline goes
    visual: Tensor  # [B, F] int64 pool rows
    shift: Tensor  # [B, F] int64: Episode.shift
    # [F * per_frame] int64 places of the visual tokens in S (the same for all episodes)
    visual_at: Tensor
    newline_at: Tensor  # [n, 2] int64 (episode, place)
    positions: Tensor  # [B, S] int64
    mask: Tensor  # [B, 1, S, S] bool, True = may attend
    labels: Tensor  # [B, S] int64 next token to predict at each place, -100 elsewhere
    # [B, S] int64 needle that a token's frame shows; -1 = footage or question, SINK = preamble
    owner: Tensor
    # [n, 3] int64 (episode, place, owner): the token predicted here rests on this owner's frames
    gaze: Tensor
    gaze_weight: Tensor  # [n] float32; a place's weights sum to 1


@dataclass(frozen=True, slots=True)
class Prompt:
    """Pieces of the chat template that `collate` lays out."""

    encode: Callable[[str], list[int]]  # text -> ids
    preamble: list[int]  # everything before the video
    tail: Callable[[str], list[int]]  # question -> ids up to the assistant's turn
    end: int  # end of turn


@dataclass(frozen=True, slots=True)
class _Places:
    """Layout of a sequence of `total` tokens: preamble, frames of `block` tokens, questions."""

    frames: int
    block: int  # tokens of a frame: two of the time tag, then the visual ones
    start: int  # of the questions
    total: int
    frame_of: Tensor  # [S] int64 frame of each place; -1 = preamble and questions
    is_frame: Tensor  # [S] bool
    is_question: Tensor  # [S] bool

    def frame(self, number: int) -> int:
        """Where this frame's time tag begins."""
        return self.start + (number - self.frames) * self.block


@dataclass(frozen=True, slots=True)
class _Questions:
    """The questions of all films, one after another."""

    newline_at: list[tuple[int, int]]  # (episode, place)
    gaze: list[tuple[int, int, int]]  # (episode, place, owner)
    gaze_weight: list[float]
    number: Tensor  # [B, S] int64 question that each place belongs to, -1 elsewhere


def rests_on(question: NeedleQuestion, answer: list[int], comma: int) -> list[tuple[int, ...]]:
    """Owners that each answer token rests on; () where a token rests on none in particular.

    The needle named in an order, all counted needles together, SINK where nothing shows.
    """
    if question.family == "order":
        items = np.cumsum([token == comma for token in answer])
        return [
            () if token == comma else (question.needles[item],)
            for token, item in zip(answer, items.tolist(), strict=True)
        ]
    return [question.needles or (SINK,)] * len(answer)


def collate(
    rng: np.random.Generator, episodes: list[Episode], prompt: Prompt, per_frame: int
) -> Batch:
    """Lay the episodes out; per_frame: visual tokens of a frame. All films have as many frames."""
    texts = [
        [
            (prompt.tail(q.text), [*prompt.encode(" " + q.answer), prompt.end])
            for q in film.questions
        ]
        for film in episodes
    ]
    places = _places(len(episodes[0].rows), 2 + per_frame, len(prompt.preamble), texts)
    size = len(episodes)
    ids = torch.zeros(size, places.total, dtype=torch.int64)
    labels = torch.full((size, places.total), -100, dtype=torch.int64)
    positions = torch.arange(places.total).repeat(size, 1)
    owner = torch.full((size, places.total), -1)
    ids[:, : len(prompt.preamble)] = torch.tensor(prompt.preamble)
    owner[:, : len(prompt.preamble)] = SINK
    for b, film in enumerate(episodes):
        owner[b, places.is_frame] = torch.from_numpy(film.owner)[places.frame_of[places.is_frame]]
        for f, t in enumerate(film.times):
            tag = prompt.encode(f"[{int(t) // 60:02d}:{int(t) % 60:02d}]")
            ids[b, places.frame(f) : places.frame(f) + 2] = torch.tensor(tag)
    (comma,) = prompt.encode(",")
    questions = _lay_questions(episodes, texts, places, ids, labels, positions, comma)
    masks = [
        _mask(rng, film, places, number)
        for film, number in zip(episodes, questions.number, strict=True)
    ]
    first = torch.tensor([places.frame(f) + 2 for f in range(places.frames)])
    return Batch(
        ids=ids,
        visual=torch.from_numpy(np.stack([e.rows for e in episodes])),
        shift=torch.from_numpy(np.stack([e.shift for e in episodes])),
        visual_at=(first[:, None] + torch.arange(per_frame)).flatten(),
        newline_at=torch.tensor(questions.newline_at),
        positions=positions,
        mask=torch.stack(masks)[:, None],
        labels=labels,
        owner=owner,
        gaze=torch.tensor(questions.gaze),
        gaze_weight=torch.tensor(questions.gaze_weight),
    )


def _places(frames: int, block: int, preamble: int, texts: Texts) -> _Places:
    start = preamble + frames * block
    longest = max(sum(1 + len(q) + len(a) for q, a in film) for film in texts)
    total = -(-(start + longest) // 32) * 32  # a multiple of 32: few different shapes
    frame_of = torch.full((total,), -1)
    frame_of[preamble:start] = torch.arange(frames).repeat_interleave(block)
    is_question = torch.arange(total) >= start
    return _Places(frames, block, start, total, frame_of, frame_of >= 0, is_question)


def _lay_questions(
    episodes: list[Episode],
    texts: Texts,
    places: _Places,
    ids: Tensor,
    labels: Tensor,
    positions: Tensor,
    comma: int,
) -> _Questions:
    """Write questions and answers into ids, labels and positions (all [B, S])."""
    laid = _Questions([], [], [], torch.full(ids.shape, -1))
    for b, film in enumerate(episodes):
        at = places.start
        for q, (question, answer) in enumerate(texts[b]):
            length = 1 + len(question) + len(answer)
            laid.newline_at.append((b, at))
            ids[b, at + 1 : at + length] = torch.tensor(question + answer)
            # the assistant's turn begins: predicts the answer's first token
            first = at + len(question)
            labels[b, first : first + len(answer)] = torch.tensor(answer)
            owners_of = rests_on(film.questions[q], answer[:-1], comma)
            for place, owners in enumerate(owners_of, start=first):
                laid.gaze.extend((b, place, o) for o in owners)
                laid.gaze_weight.extend(1 / len(owners) for _ in owners)
            laid.number[b, at : at + length] = q
            positions[b, at : at + length] = places.start + torch.arange(length)
            at += length
    return laid


def _mask(rng: np.random.Generator, film: Episode, places: _Places, question: Tensor) -> Tensor:
    """[S, S] bool: which places each place may attend to, in one of the two layouts."""
    window, visible = places.frames, torch.ones(places.frames, dtype=torch.bool)
    if rng.random() < 0.5:  # the KV layout
        window = int(rng.choice((1, 2, 4, 8, 16, 32)))
        hidden = (film.owner < 0) & (rng.random(places.frames) < rng.choice((0.0, 0.3, 0.7)))
        visible = torch.from_numpy(~hidden)
    near = (places.frame_of[:, None] - places.frame_of[None, :]) <= window
    both_frames = places.is_frame[:, None] & places.is_frame[None, :]
    both_questions = places.is_question[:, None] & places.is_question[None, :]
    allowed = torch.ones(places.total, places.total, dtype=torch.bool).tril()
    allowed &= ~both_frames | near  # a frame sees a window of frames
    allowed &= ~both_questions | (question[:, None] == question[None, :])
    is_visible = torch.ones(places.total, dtype=torch.bool)
    is_visible[places.is_frame] = visible[places.frame_of[places.is_frame]]
    return allowed & (~places.is_question[:, None] | is_visible[None, :])

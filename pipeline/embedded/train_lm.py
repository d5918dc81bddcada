"""Stage 2 of the embedded model: teach the language model to answer, on visual tokens of the trained, frozen tower.

The tower's output is computed once for a pool of rendered frames; films and questions are then assembled from the pool
without end. Resumes from its checkpoint; the films of a step depend on its number alone. Knows no video files.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.embedded import data, model
from pipeline.embedded.episodes import (
    APART_WEIGHTS,
    CLUTTER_WEIGHTS,
    FINAL_WEIGHTS,
    GUIDED_WEIGHTS,
    HALF_ORDER_WEIGHTS,
    HARD_WEIGHTS,
    LAST_WEIGHTS,
    LATE_WEIGHTS,
    ORDER_WEIGHTS,
    WEIGHTS,
    Batch,
    Pool,
    collate,
    draw_episode,
)
from pipeline.embedded.log import Curve
from pipeline.needle_world.cards import COLORS, ICON0, SHAPE0, SHAPES, Needle

from transformers import AttentionInterface  # isort: skip  (after model.py declared torchvision's operators)
from transformers.integrations.sdpa_attention import sdpa_attention_forward  # isort: skip
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask  # isort: skip

FILMS, QUESTIONS = 8, 16  # of a step
PER_EVENT = 3
VALIDATION_SEED = 8_000_009
# layer and heads (one of each KV group) whose attention is guided: late, with one layer left to use it
GAZE = (3, [0, 2])
EVERY = 50  # steps between checkpoints; divides every cycle


class Recolour:
    """Gives a shape's frames another colour by moving their visual tokens, so that the language model meets shapes in colours
    that no picture of its training shows, and must read colour and shape apart: with pictures alone it learns which shapes a
    colour comes with. (After feature-space composition in zero-shot learning; no picture of a held-out pair is made.)

    The direction from colour a to b: mean over shapes, of those that both colours have, of the difference of the mean tokens;
    one for tokens that show some of the shape and one for the others.
    """

    def __init__(self, pool: Pool, tokens: Tensor, on_shape: Tensor) -> None:
        """tokens [rows, 16, D]; on_shape [rows, 16] bool."""
        self.on_shape = on_shape
        colors, shapes = list(COLORS), list(SHAPES)
        sums = torch.zeros(2, len(colors), len(shapes), tokens.shape[2])
        counts = torch.zeros(2, len(colors), len(shapes), 1)
        for event in pool.by_kind["shape"]:
            needle = pool.needles[event]
            assert needle is not None
            at = colors.index(needle.color), shapes.index(needle.text)
            rows = slice(event * pool.per_event, (event + 1) * pool.per_event)
            for part in (0, 1):
                found = tokens[rows][on_shape[rows] == bool(part)].float()
                sums[part, *at] += found.sum(0)
                counts[part, *at] += len(found)
        means, there = sums / counts.clamp_min(1), counts > 0  # [2, colours, shapes, D]
        both = (there[:, :, None] & there[:, None]).float()  # [2, from, to, shapes, 1]
        apart = (means[:, None] - means[:, :, None]) * both
        # [2, from * 8 + to, D]
        self.moves = (apart.sum(3) / both.sum(3).clamp_min(1)).flatten(1, 2)

    def __call__(self, seen: Tensor, rows: Tensor, shift: Tensor) -> Tensor:
        """seen [B, F, 16, D] of these rows [B, F], with the shifts [B, F] of `episodes.recoloured` applied."""
        move = self.moves[:, shift.clamp_min(0)] * (shift >= 0)[..., None]  # [2, B, F, D]
        return seen + torch.where(
            self.on_shape[rows][..., None], move[1][:, :, None], move[0][:, :, None]
        ).to(seen.dtype)


@torch.inference_mode()
def make_pool(
    video_llm: Any, footage: Path | None, shards: int, seed: int, events: int = 1024
) -> tuple[Pool, Tensor, "Recolour"]:
    """Pool of shards * events events, its visual tokens [rows, 16, WIDTH] bf16, and how they change colour."""
    needles: list[Needle | None] = []
    tokens: list[Tensor] = []
    shows: list[Tensor] = []
    for shard in data.shards(seed, range(shards), events, PER_EVENT, footage):
        needles += shard.needles
        for i in range(0, len(shard.pixels), 128):
            with torch.autocast("cpu", torch.bfloat16):
                seen = model.visual_tokens(video_llm, torch.from_numpy(shard.pixels[i : i + 128]))
            tokens.append(seen.to(torch.bfloat16))
        # [n, patches, patches]
        dense = torch.from_numpy((shard.dense >= SHAPE0) & (shard.dense < ICON0)).float()
        shows.append(
            F.adaptive_max_pool2d(dense, round(model.TOKENS_PER_FRAME**0.5)).flatten(1) > 0
        )
    pool, found = Pool(needles, PER_EVENT), torch.cat(tokens)
    pool.lookalikes = lookalikes(pool, found)
    return pool, found, Recolour(pool, found, torch.cat(shows))


def lookalikes(pool: Pool, tokens: Tensor, share: float = 0.2) -> list[int]:
    """Events of footage with a frame whose mean token is nearest (cosine) to the mean of a kind of card: the top `share`."""
    # [events, per_event, D]
    means = F.normalize(tokens.float().mean(1), dim=-1).unflatten(0, (-1, pool.per_event))
    blank = means[pool.blank]
    middle = blank.mean((0, 1))
    cards = F.normalize(
        torch.stack([means[kind].mean((0, 1)) - middle for kind in pool.by_kind.values() if kind]),
        dim=-1,
    )
    nearness = (F.normalize(blank - middle, dim=-1) @ cards.T).amax((1, 2))  # [blank events]
    most = nearness.topk(max(1, round(share * len(pool.blank)))).indices
    return sorted(pool.blank[i] for i in most.tolist())


def _guided(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **kwargs: Any
) -> tuple[Tensor, None]:
    """torch's fused attention, which hands out no weights, but in the guided layer: there they go to the list `kept`."""
    kept: list[Tensor] = kwargs.pop("kept")
    layer, heads = GAZE
    if module.layer_idx != layer:
        out: Tensor = sdpa_attention_forward(module, query, key, value, mask, **kwargs)[0]
        return out, None
    group = query.shape[1] // key.shape[1]
    scores = query @ key.repeat_interleave(group, 1).transpose(2, 3) * kwargs["scaling"] + mask
    share = scores.softmax(-1, dtype=torch.float32)
    kept.append(share[:, heads])
    return (share.to(value.dtype) @ value.repeat_interleave(group, 1)).transpose(
        1, 2
    ).contiguous(), None


AttentionInterface.register("guided", _guided)
AttentionMaskInterface.register("guided", sdpa_mask)


class Layout:
    """Text pieces of the chat template, cached."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        self.known: dict[str, list[int]] = {}
        before, self.after = self._split("?")
        self.preamble = self.encode(before)

    def _split(self, question: str) -> tuple[str, str]:
        parts = [{"type": "video"}, {"type": "text", "text": question}]
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True
        )
        before, after = text.split("<video>")
        return before, after

    def encode(self, text: str) -> list[int]:
        if text not in self.known:
            self.known[text] = self.tokenizer.encode(text, add_special_tokens=False)
        return self.known[text]

    def tail(self, question: str) -> list[int]:
        return self.encode(self._split(question)[1])


def make_batch(
    seed: int, step: int, pool: Pool, layout: Layout, frames: int, cycle: "Cycle"
) -> Batch:
    """The films of this step: the same for the same seed, step and pool."""
    rng = np.random.default_rng((seed, step))
    films = cycle.films if frames <= 12 else FILMS
    questions = FILMS * QUESTIONS // films
    options = (cycle.weights, cycle.lookalikes, cycle.recolour)
    drawn = [draw_episode(rng, pool, frames, questions, *options) for _ in range(films)]
    # Pooled frames cost a third of the time and teach the same; they also make the model fit for compressor=pool.
    per_frame = 4 if rng.random() < 0.6 else model.TOKENS_PER_FRAME
    return collate(rng, drawn, layout.encode, layout.preamble, layout.tail, layout.end, per_frame)


def pooled(seen: Tensor, per_frame: int) -> Tensor:
    """[B, F, n, D] -> [B, F, per_frame, D]: what the `pool` compressor makes of each frame's grid."""
    side, target = round(seen.shape[2] ** 0.5), round(per_frame**0.5)
    if side == target:
        return seen
    grid = seen.unflatten(2, (target, side // target, target, side // target))
    return grid.mean((3, 5)).flatten(2, 3)


def forward(
    video_llm: Any, batch: Batch, tokens: Tensor, recolour: Recolour
) -> tuple[Tensor, Tensor, Tensor]:
    """-> logits [n, vocabulary] at the n places that have a label, labels [n], attention [B, 2, S, S] of GAZE."""
    embed = video_llm.get_input_embeddings()
    inputs = embed(batch.ids)
    # [B, F, 16, D]
    seen = recolour(tokens[batch.visual].to(inputs.dtype), batch.visual, batch.shift)
    per_frame = len(batch.visual_at) // batch.visual.shape[1]
    inputs = inputs.index_copy(1, batch.visual_at, pooled(seen, per_frame).flatten(1, 2))
    newline = video_llm.model.image_newline.to(inputs.dtype).expand(len(batch.newline_at), -1)
    inputs = inputs.index_put(tuple(batch.newline_at.T), newline)
    mask = torch.zeros(batch.mask.shape, dtype=torch.bfloat16).masked_fill_(
        ~batch.mask, float("-inf")
    )
    kept: list[Tensor] = []
    out = video_llm.model.language_model(
        inputs_embeds=inputs,
        attention_mask=mask,
        position_ids=batch.positions,
        use_cache=False,
        kept=kept,
    )
    wanted = batch.labels != -100
    return F.linear(out.last_hidden_state[wanted], embed.weight), batch.labels[wanted], kept[0]


def gaze_loss(attention: Tensor, batch: Batch) -> Tensor:
    """Mean over the guided places of -sum_o w_o log(attention mass on owner o's frames).

    Least when the mass lies on the right frames and is spread over several needles evenly: which frames an answer token
    rests on is known here, and a language model this small needs very long to find out by itself for order and count.
    """
    episode, place, wanted = batch.gaze.T
    rows = attention[episode, :, place].float().mean(1)  # [n, S]
    mass = (rows * (batch.owner[episode] == wanted[:, None])).sum(1)
    return -(batch.gaze_weight * mass.clamp_min(1e-4).log()).sum() / batch.gaze_weight.sum()


@dataclass(frozen=True, slots=True)
class Cycle:
    """A rise and fall of the learning rate over a pool of its own."""

    steps: int
    rate: float
    fall: float  # share of the cycle over which the rate falls
    pool_seed: int
    # (up to this share of the cycle, film lengths in frames)
    lengths: tuple[tuple[float, tuple[int, ...]], ...]
    weights: Mapping[str, float]  # of the question families
    end: float = 0.0  # share of the rate that is left at the end of the cycle
    gaze: float = 0.0  # weight of the loss that guides attention to the frames an answer rests on
    biases: float = 1.0  # learning rate of the biases, in rates
    # of a step with films of up to 12 frames; FILMS * QUESTIONS questions in any case
    films: int = FILMS
    lookalikes: float = 0.0  # share of the films whose footage resembles cards
    recolour: float = 0.0  # share of the films whose shapes are given other colours

    def rate_at(self, step: int) -> float:
        """Learning rate of the cycle's step."""
        left = (self.steps - step) / (self.fall * self.steps)
        return self.rate * min(1.0, (step + 1) / 50, self.end + (1 - self.end) * left)

    def frames_at(self, step: int) -> int:
        """Film length: short ones teach reading fast, long ones are what inference lays out."""
        choices = next(lengths for until, lengths in self.lengths if step < until * self.steps)
        return choices[step % len(choices)]


CYCLES = (
    Cycle(
        1800,
        3e-3,
        0.67,
        1_000_003,
        ((0.36, (8, 12, 16)), (0.6, (12, 16, 24)), (1.0, (16, 24, 40))),
        WEIGHTS,
    ),
    # Short films of more variety, a third of the questions about order: with the first cycle's mix order stays at chance.
    Cycle(
        1000,
        2.5e-3,
        0.44,
        1_000_033,
        ((0.84, (8, 8, 12)), (1.0, (12, 16, 24, 40))),
        LATE_WEIGHTS,
        end=0.476,
        films=16,
    ),
    # The mix again, so that codes come back, at a rate that falls to nothing.
    Cycle(500, 1.2e-3, 1.0, 1_000_037, ((1.0, (8, 16, 40)),), FINAL_WEIGHTS, films=16),
    # Attention guided to the frames each answer token rests on: what three cycles had not found out about order and count.
    # Lengths up to what an answer reads.
    Cycle(700, 2e-3, 0.6, 1_000_039, ((1.0, (8, 12, 16, 24)),), GUIDED_WEIGHTS, gaze=0.3, films=16),
    # At half the rate, and faster biases, order is learnt in a tenth of the steps. "Which came first" is a lean of attention
    # towards earlier frames, which rotary embedding makes from the biases of queries and keys; they move too slowly.
    Cycle(
        950,
        1e-3,
        1.0,
        1_000_081,
        ((0.95, (8, 8, 12)), (1.0, (8, 12, 16, 24))),
        ORDER_WEIGHTS,
        1.0,
        0.3,
        10.0,
        16,
    ),
    # The second of three names and shapes by colour (yellow or orange) come last.
    Cycle(
        2600,
        1.2e-3,
        0.65,
        1_000_099,
        ((1.0, (8, 12, 16, 8, 12, 24)),),
        LAST_WEIGHTS,
        0.0,
        0.3,
        10.0,
        16,
    ),
    # Order alone still lags when the rate has fallen: half of the questions.
    Cycle(
        900, 1e-3, 1.0, 1_000_117, ((1.0, (8, 12, 16, 24)),), HALF_ORDER_WEIGHTS, 0.0, 0.3, 10.0, 16
    ),
    # Long videos: what is recalled of footage is what resembles cards, so films of just that, beside more order and shapes.
    # (Run with the nearest tenth as lookalikes; the two below with a fifth.)
    Cycle(
        2000, 1e-3, 1.0, 1_000_133, ((1.0, (8, 12, 16, 24)),), HARD_WEIGHTS, 0.0, 0.3, 10.0, 16, 0.6
    ),
    # One held-out clip, a concert full of straight edges, made six of the eight errors that were left on long videos: 806 more
    # pictures and eight more clips (screenshots, diagrams, landscapes, textures) for the footage, none of concerts.
    Cycle(
        1500,
        8e-4,
        1.0,
        1_000_151,
        ((1.0, (8, 12, 16, 24)),),
        CLUTTER_WEIGHTS,
        0.0,
        0.3,
        10.0,
        16,
        0.6,
    ),
    # Shapes of the pairs that training shows were all read rightly by now, those of unseen pairs in 42 % (n=826 and 164).
    Cycle(
        450,
        6e-4,
        1.0,
        1_000_159,
        ((1.0, (8, 12, 16, 24)),),
        APART_WEIGHTS,
        0.0,
        0.3,
        10.0,
        16,
        0.5,
        0.7,
    ),
)


@torch.inference_mode()
def accuracy(
    video_llm: Any,
    pool: Pool,
    tokens: Tensor,
    recolour: Recolour,
    layout: Layout,
    frames: int,
    batches: int = 4,
) -> dict[str, float]:
    """Share of answers whose every token is the most likely one (teacher forced), over all and per family."""
    right: dict[str, list[bool]] = {}
    for number in range(batches):
        rng = np.random.default_rng((VALIDATION_SEED, number))
        films = [draw_episode(rng, pool, frames, QUESTIONS) for _ in range(FILMS)]
        batch = collate(
            rng,
            films,
            layout.encode,
            layout.preamble,
            layout.tail,
            layout.end,
            model.TOKENS_PER_FRAME,
        )
        with torch.autocast("cpu", torch.bfloat16):
            scores, labels, _ = forward(video_llm, batch, tokens, recolour)
        hit = scores.argmax(-1) == labels
        at = 0
        for film in films:
            for asked in film.asked:
                n = len(layout.encode(" " + asked.answer)) + 1
                right.setdefault(asked.family, []).append(bool(hit[at : at + n].all()))
                at += n
    every = [r for family in right.values() for r in family]
    return {"all": sum(every) / len(every)} | {f: sum(r) / len(r) for f, r in sorted(right.items())}


def train(
    video_llm: Any, tokenizer: Any, out: Path, footage: Path | None, pool_shards: int, seed: int = 0
) -> None:
    """Train the language model in place; out/lm.pt is the checkpoint, out/lm.csv the curve."""
    layout = Layout(tokenizer)
    for part in (video_llm.model.vision_tower, video_llm.model.multi_modal_projector):
        part.requires_grad_(False)
    language = video_llm.model.language_model
    video_llm.set_attn_implementation({"text_config": "guided"})
    matrices = [p for n, p in language.named_parameters() if p.ndim == 2 and "embed" not in n]
    chosen = {id(p) for p in matrices}
    biases = [p for n, p in language.named_parameters() if n.endswith("bias")]
    chosen |= {id(p) for p in biases}
    rest = [p for p in language.parameters() if id(p) not in chosen] + [
        video_llm.model.image_newline
    ]
    opts: list[torch.optim.Optimizer] = [
        torch.optim.Muon(
            matrices, lr=CYCLES[0].rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, lr=CYCLES[0].rate, weight_decay=0.0, betas=(0.9, 0.98)),
        torch.optim.AdamW(biases, lr=CYCLES[0].rate, weight_decay=0.0, betas=(0.9, 0.98)),
    ]
    done, checkpoint = 0, out / "lm.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        video_llm.load_state_dict(saved["model"])
        for opt, state in zip(opts, saved["optimizers"], strict=True):
            opt.load_state_dict(state)
        done = saved["step"]
    curve = Curve(out / "lm.csv", keep=done // EVERY)
    check = make_pool(video_llm, footage, 1, VALIDATION_SEED, events=768)
    first, started = 0, time.time()
    for cycle in CYCLES:
        last = first + cycle.steps
        if done < last:
            pool, tokens, recolour = make_pool(video_llm, footage, pool_shards, cycle.pool_seed)
            print(f"lm: pool of {len(tokens)} frames, {time.time() - started:.0f} s", flush=True)
        recent: list[tuple[float, float]] = []
        for step in range(max(first, done), last):
            batch = make_batch(seed, step, pool, layout, cycle.frames_at(step - first), cycle)
            with torch.autocast("cpu", torch.bfloat16):
                scores, labels, attention = forward(video_llm, batch, tokens, recolour)
            loss = F.cross_entropy(scores.float(), labels)
            recent.append((loss.item(), 0.0))
            if cycle.gaze:
                guided = gaze_loss(attention, batch)
                recent[-1] = (loss.item(), guided.item())
                loss = loss + cycle.gaze * guided
            for opt, factor in zip(opts, (1.0, 1.0, cycle.biases), strict=True):
                for group in opt.param_groups:
                    group["lr"] = cycle.rate_at(step - first) * factor
                opt.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_([*matrices, *rest, *biases], 1.0)
            for opt in opts:
                opt.step()
            if (step + 1) % EVERY == 0:
                row = {
                    "step": step + 1,
                    "loss": mean(r[0] for r in recent),
                    "gaze": mean(r[1] for r in recent),
                }
                row |= accuracy(video_llm, *check, layout, 16, batches=2)
                recent.clear()
                curve.add(row)
                state = {
                    "model": video_llm.state_dict(),
                    "optimizers": [o.state_dict() for o in opts],
                    "step": step + 1,
                }
                torch.save(state, checkpoint.with_suffix(".tmp"))
                checkpoint.with_suffix(".tmp").replace(checkpoint)
                figures = " ".join(f"{k}={v:.3f}" for k, v in row.items())
                print(f"lm {step + 1} {time.time() - started:.0f} s {figures}", flush=True)
        first = last

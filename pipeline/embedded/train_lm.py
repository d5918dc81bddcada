"""Stage 2: teach the language model to answer, on visual tokens of the trained, frozen tower.

The tower's output is computed once for a pool of rendered frames; films and questions are then
drawn from the pool without end. Resumes from its checkpoint; the films of a step depend on its
number alone. Knows no video files.
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

from memory.storage.atomic import replacing
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
    Prompt,
    collate,
    draw_episode,
)
from pipeline.embedded.training_curve import TrainingCurve
from pipeline.needle_world.cards import COLORS, ICON0, SHAPE0, SHAPES, Needle

from transformers import (  # isort: skip  (after model.py declared torchvision's operators)
    AttentionInterface,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward  # isort: skip
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask  # isort: skip

FILMS, QUESTIONS = 8, 16  # of a step
PER_EVENT = 3
VALIDATION_SEED = 8_000_009
# layer and heads (one of each KV group) with guided attention: late, one layer left to use it
GAZE = (3, [0, 2])
EVERY = 50  # steps between checkpoints; divides every cycle


class Recolour:
    """Gives a shape's frames another colour by moving their visual tokens.

    The language model then meets colour and shape pairs that no training picture shows, and must
    read the two apart. From pictures alone it learns which shapes a colour comes with. (After
    feature-space composition in zero-shot learning; no picture of a held-out pair is made.)

    The direction from colour a to b is the difference of the mean tokens, averaged over the shapes
    that both colours have. There are two: for tokens that show some of the shape, and for the
    others.
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
                part_tokens = tokens[rows][on_shape[rows] == bool(part)].float()
                sums[part, *at] += part_tokens.sum(0)
                counts[part, *at] += len(part_tokens)
        means, there = sums / counts.clamp_min(1), counts > 0  # [2, colours, shapes, D]
        both = (there[:, :, None] & there[:, None]).float()  # [2, from, to, shapes, 1]
        apart = (means[:, None] - means[:, :, None]) * both
        # [2, from * 8 + to, D]
        self.moves = (apart.sum(3) / both.sum(3).clamp_min(1)).flatten(1, 2)

    def __call__(self, visual: Tensor, rows: Tensor, shift: Tensor) -> Tensor:
        """The tokens with the shifts of `episodes.recoloured` applied.

        visual [B, F, 16, D]: tokens of rows [B, F]; shift [B, F].
        """
        move = self.moves[:, shift.clamp_min(0)] * (shift >= 0)[..., None]  # [2, B, F, D]
        return visual + torch.where(
            self.on_shape[rows][..., None], move[1][:, :, None], move[0][:, :, None]
        ).to(visual.dtype)


@torch.inference_mode()
def make_pool(
    video_llm: LlavaOnevisionForConditionalGeneration,
    footage: Path | None,
    shards: int,
    seed: int,
    events: int = 1024,
) -> tuple[Pool, Tensor, "Recolour"]:
    """A pool of shards * events events, its visual tokens and how they change colour.

    The tokens are [rows, 16, WIDTH] bf16.
    """
    needles: list[Needle | None] = []
    tokens: list[Tensor] = []
    shows: list[Tensor] = []
    for shard in data.shards(seed, range(shards), events, PER_EVENT, footage):
        needles += shard.needles
        for i in range(0, len(shard.pixels), 128):
            with torch.autocast("cpu", torch.bfloat16):
                visual = model.visual_tokens(video_llm, torch.from_numpy(shard.pixels[i : i + 128]))
            tokens.append(visual.to(torch.bfloat16))
        # [n, patches, patches]
        dense = torch.from_numpy((shard.dense >= SHAPE0) & (shard.dense < ICON0)).float()
        shows.append(
            F.adaptive_max_pool2d(dense, round(model.TOKENS_PER_FRAME**0.5)).flatten(1) > 0
        )
    pool, all_tokens = Pool(needles, PER_EVENT), torch.cat(tokens)
    pool.lookalikes = lookalikes(pool, all_tokens)
    return pool, all_tokens, Recolour(pool, all_tokens, torch.cat(shows))


def lookalikes(pool: Pool, tokens: Tensor, share: float = 0.2) -> list[int]:
    """The top `share` of footage events by resemblance to cards.

    Resemblance: largest cosine of a frame's mean token with the mean of a kind of card.
    """
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
    """torch's fused attention, except in the guided layer, whose weights go to the list `kept`.

    Fused attention returns no weights.
    """
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


class ChatLayout:
    """Text pieces of the chat template; encoded texts are cached."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._ids: dict[str, list[int]] = {}
        before, _ = self._split("?")
        end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        self.prompt = Prompt(self.encode, self.encode(before), self.tail, end)

    def _split(self, question: str) -> tuple[str, str]:
        parts = [{"type": "video"}, {"type": "text", "text": question}]
        text = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True
        )
        before, after = text.split("<video>")
        return before, after

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens of its own."""
        if text not in self._ids:
            self._ids[text] = self._tokenizer.encode(text, add_special_tokens=False)
        return self._ids[text]

    def tail(self, question: str) -> list[int]:
        """Token ids from behind the video to the assistant's turn."""
        return self.encode(self._split(question)[1])


def make_batch(
    seed: int, step: int, pool: Pool, layout: ChatLayout, frames: int, cycle: "LanguageCycle"
) -> Batch:
    """The films of this step: the same for the same seed, step and pool."""
    rng = np.random.default_rng((seed, step))
    films = cycle.films if frames <= 12 else FILMS
    questions = FILMS * QUESTIONS // films
    options = (cycle.weights, cycle.lookalikes, cycle.recolour)
    drawn = [draw_episode(rng, pool, frames, questions, *options) for _ in range(films)]
    # Pooled frames cost a third of the time and teach the same; they also make the model usable
    # with compressor=pool.
    per_frame = 4 if rng.random() < 0.6 else model.TOKENS_PER_FRAME
    return collate(rng, drawn, layout.prompt, per_frame)


def pooled(tokens: Tensor, per_frame: int) -> Tensor:
    """[B, F, n, D] -> [B, F, per_frame, D], pooled as the `pool` compressor does."""
    side, target = round(tokens.shape[2] ** 0.5), round(per_frame**0.5)
    if side == target:
        return tokens
    grid = tokens.unflatten(2, (target, side // target, target, side // target))
    return grid.mean((3, 5)).flatten(2, 3)


def forward(
    video_llm: LlavaOnevisionForConditionalGeneration,
    batch: Batch,
    tokens: Tensor,
    recolour: Recolour,
) -> tuple[Tensor, Tensor, Tensor]:
    """One pass over the batch.

    -> logits [n, vocabulary] at the n places that have a label, labels [n], attention [B, 2, S, S]
    of the heads in GAZE.
    """
    embed = video_llm.get_input_embeddings()
    inputs = embed(batch.ids)
    # [B, F, 16, D]
    visual = recolour(tokens[batch.visual].to(inputs.dtype), batch.visual, batch.shift)
    per_frame = len(batch.visual_at) // batch.visual.shape[1]
    inputs = inputs.index_copy(1, batch.visual_at, pooled(visual, per_frame).flatten(1, 2))
    newline = video_llm.model.image_newline.to(inputs.dtype).expand(len(batch.newline_at), -1)
    inputs = inputs.index_put(tuple(batch.newline_at.T), newline)
    mask = torch.zeros(batch.mask.shape, dtype=torch.bfloat16).masked_fill_(
        ~batch.mask, float("-inf")
    )
    shares: list[Tensor] = []
    out = video_llm.model.language_model(
        inputs_embeds=inputs,
        attention_mask=mask,
        position_ids=batch.positions,
        use_cache=False,
        kept=shares,
    )
    labeled = batch.labels != -100
    return F.linear(out.last_hidden_state[labeled], embed.weight), batch.labels[labeled], shares[0]


def gaze_loss(attention: Tensor, batch: Batch) -> Tensor:
    """Mean over the guided places of -sum_o w_o log(attention mass on owner o's frames).

    Least when the mass lies on the right frames, evenly over several needles. The frames that an
    answer token rests on are known here; a model this small needs very long to find out by itself
    for order and count.
    """
    episode, place, owner = batch.gaze.T
    rows = attention[episode, :, place].float().mean(1)  # [n, S]
    mass = (rows * (batch.owner[episode] == owner[:, None])).sum(1)
    return -(batch.gaze_weight * mass.clamp_min(1e-4).log()).sum() / batch.gaze_weight.sum()


@dataclass(frozen=True, slots=True)
class LanguageCycle:
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
        """Learning rate at the cycle's step."""
        left = (self.steps - step) / (self.fall * self.steps)
        return self.rate * min(1.0, (step + 1) / 50, self.end + (1 - self.end) * left)

    def frames_at(self, step: int) -> int:
        """Film length: short films teach reading fast, long ones are what inference lays out."""
        choices = next(lengths for until, lengths in self.lengths if step < until * self.steps)
        return choices[step % len(choices)]


CYCLES = (
    LanguageCycle(
        1800,
        3e-3,
        0.67,
        1_000_003,
        ((0.36, (8, 12, 16)), (0.6, (12, 16, 24)), (1.0, (16, 24, 40))),
        WEIGHTS,
    ),
    # Short films of more variety, a third of the questions about order: with the first cycle's mix,
    # order stays at chance.
    LanguageCycle(
        1000,
        2.5e-3,
        0.44,
        1_000_033,
        ((0.84, (8, 8, 12)), (1.0, (12, 16, 24, 40))),
        LATE_WEIGHTS,
        end=0.476,
        films=16,
    ),
    # The mix again, so that codes come back, at a rate that falls to zero.
    LanguageCycle(500, 1.2e-3, 1.0, 1_000_037, ((1.0, (8, 16, 40)),), FINAL_WEIGHTS, films=16),
    # Attention guided to the frames each answer token rests on: three cycles had not learned order
    # and count. Lengths up to what an answer reads.
    LanguageCycle(
        700, 2e-3, 0.6, 1_000_039, ((1.0, (8, 12, 16, 24)),), GUIDED_WEIGHTS, gaze=0.3, films=16
    ),
    # At half the rate, and with faster biases, order is learned in a tenth of the steps. "Which
    # came first" needs attention that leans to earlier frames. Rotary embedding makes that from the
    # biases of queries and keys, which move too slowly at the common rate.
    LanguageCycle(
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
    LanguageCycle(
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
    LanguageCycle(
        900, 1e-3, 1.0, 1_000_117, ((1.0, (8, 12, 16, 24)),), HALF_ORDER_WEIGHTS, 0.0, 0.3, 10.0, 16
    ),
    # Long videos: the footage that is recalled resembles cards, so films of just that, besides more
    # order and shapes. (Run with the nearest tenth as lookalikes; the two below with a fifth.)
    LanguageCycle(
        2000, 1e-3, 1.0, 1_000_133, ((1.0, (8, 12, 16, 24)),), HARD_WEIGHTS, 0.0, 0.3, 10.0, 16, 0.6
    ),
    # One held-out clip, a concert full of straight edges, caused six of the eight errors left on
    # long videos. So 806 more pictures and eight more clips (screenshots, diagrams, landscapes,
    # textures) went into the footage, none of concerts.
    LanguageCycle(
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
    # By now all shapes of trained pairs were read right (n=826), those of unseen pairs in 42 %
    # (n=164).
    LanguageCycle(
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
    video_llm: LlavaOnevisionForConditionalGeneration,
    pool: Pool,
    tokens: Tensor,
    recolour: Recolour,
    layout: ChatLayout,
    frames: int,
    batches: int = 4,
) -> dict[str, float]:
    """Share of answers whose every token is the most likely one (teacher forced).

    Over all questions and per family.
    """
    right: dict[str, list[bool]] = {}
    for number in range(batches):
        rng = np.random.default_rng((VALIDATION_SEED, number))
        films = [draw_episode(rng, pool, frames, QUESTIONS) for _ in range(FILMS)]
        batch = collate(rng, films, layout.prompt, model.TOKENS_PER_FRAME)
        with torch.autocast("cpu", torch.bfloat16):
            scores, labels, _ = forward(video_llm, batch, tokens, recolour)
        hit = scores.argmax(-1) == labels
        at = 0
        for film in films:
            for question in film.questions:
                n = len(layout.encode(" " + question.answer)) + 1
                right.setdefault(question.family, []).append(bool(hit[at : at + n].all()))
                at += n
    every = [r for family in right.values() for r in family]
    return {"all": sum(every) / len(every)} | {f: sum(r) / len(r) for f, r in sorted(right.items())}


class _Trainer:
    """The language model's parameters in three groups, their optimizers and the checkpoint file."""

    def __init__(
        self, video_llm: LlavaOnevisionForConditionalGeneration, checkpoint: Path, rate: float
    ) -> None:
        self._video_llm, self._checkpoint = video_llm, checkpoint
        language = video_llm.model.language_model
        named = list(language.named_parameters())
        matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
        biases = [p for name, p in named if name.endswith("bias")]
        grouped = {id(p) for p in (*matrices, *biases)}
        rest = [p for p in language.parameters() if id(p) not in grouped]
        rest.append(video_llm.model.image_newline)
        self._parameters = [*matrices, *rest, *biases]
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=rate, weight_decay=0.0, betas=(0.9, 0.98)),
            torch.optim.AdamW(biases, lr=rate, weight_decay=0.0, betas=(0.9, 0.98)),
        ]

    def resume(self) -> int:
        """Load the checkpoint if there is one; -> number of finished steps."""
        if not self._checkpoint.exists():
            return 0
        saved = torch.load(self._checkpoint, weights_only=True)
        self._video_llm.load_state_dict(saved["model"])
        for optimizer, state in zip(self._optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        return int(saved["step"])

    def save(self, step: int) -> None:
        """Write the checkpoint after so many steps."""
        state = {
            "model": self._video_llm.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "step": step,
        }
        with replacing(self._checkpoint) as temporary:
            torch.save(state, temporary)

    def step(
        self,
        batch: Batch,
        tokens: Tensor,
        recolour: Recolour,
        cycle: "LanguageCycle",
        rate: float,
    ) -> tuple[float, float]:
        """One step; -> (loss of the answers, loss of the guided attention or 0)."""
        with torch.autocast("cpu", torch.bfloat16):
            scores, labels, attention = forward(self._video_llm, batch, tokens, recolour)
        loss = F.cross_entropy(scores.float(), labels)
        losses = loss.item(), 0.0
        if cycle.gaze:
            guided = gaze_loss(attention, batch)
            losses = loss.item(), guided.item()
            loss = loss + cycle.gaze * guided
        for optimizer, factor in zip(self._optimizers, (1.0, 1.0, cycle.biases), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
        return losses


def train(
    video_llm: LlavaOnevisionForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    out: Path,
    footage: Path | None,
    pool_shards: int,
    seed: int = 0,
) -> None:
    """Train the language model in place; out/lm.pt is the checkpoint, out/lm.csv the curve."""
    layout = ChatLayout(tokenizer)
    for part in (video_llm.model.vision_tower, video_llm.model.multi_modal_projector):
        part.requires_grad_(False)
    AttentionInterface.register("guided", _guided)
    AttentionMaskInterface.register("guided", sdpa_mask)
    video_llm.set_attn_implementation({"text_config": "guided"})
    trainer = _Trainer(video_llm, out / "lm.pt", CYCLES[0].rate)
    done = trainer.resume()
    curve = TrainingCurve(out / "lm.csv", keep=done // EVERY)
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
            rate = cycle.rate_at(step - first)
            recent.append(trainer.step(batch, tokens, recolour, cycle, rate))
            if (step + 1) % EVERY == 0:
                row = {
                    "step": step + 1,
                    "loss": mean(loss for loss, _ in recent),
                    "gaze": mean(guided for _, guided in recent),
                }
                row |= accuracy(video_llm, *check, layout, 16, batches=2)
                recent.clear()
                curve.add(row)
                trainer.save(step + 1)
                values = " ".join(f"{k}={v:.3f}" for k, v in row.items())
                print(f"lm {step + 1} {time.time() - started:.0f} s {values}", flush=True)
        first = last

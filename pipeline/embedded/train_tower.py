"""Stage 1 of the embedded model: teach the vision tower and projector to read cards, without the language model.

End to end from scratch stalls: colour is learned, shape and code stay at chance. So the tower is supervised directly, by
heads that are thrown away afterwards: what lies under each patch, and, linearly from the mean of a frame's 16 visual
tokens, the card's kind, code, name, shape, colour and icon. A linear head on a mean leaves the language model an easy
job: any attention to the frame's tokens reads the same attributes.

Resumes from its checkpoint; the data of a step depends on its number alone. Knows no questions.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.embedded import data, model
from pipeline.embedded.log import Curve
from pipeline.needle_world.cards import CLASSES, COLORS, ICONS, KINDS, NAMES, SHAPES, Needle

BATCH = 128
EVENTS, PER_EVENT = 1024, 2  # of a shard
PASSES = 2  # each shard is seen twice: rendering costs a third of a training step
VALIDATION_SEED = 7_000_001


@dataclass(frozen=True, slots=True)
class Cycle:
    """A rise and fall of the learning rate."""

    shards: int
    rate: float
    fall: float  # share of the cycle over which the rate falls
    codes: float  # share of the cards that are codes


# After the first cycle everything but digits was read at 97 % or more; the second shows codes on half of the cards. The
# third was trained with photographs among the footage: with the clips alone, cards were seen in other clips' textures.
CYCLES = (Cycle(64, 2e-3, 0.4, 0.34), Cycle(32, 1.5e-3, 0.85, 0.5), Cycle(32, 1.2e-3, 0.9, 0.4))
IGNORE = -100
SIZES = {
    "kind": len(KINDS) + 1,
    "name": len(NAMES),
    "shape": len(SHAPES),
    "color": len(COLORS),
    "icon": len(ICONS),
} | {f"digit{i}": 10 for i in range(4)}


class Heads(nn.Module):
    """The throw-away classifiers."""

    def __init__(self, tower_width: int, token_width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(tower_width, CLASSES)
        self.pooled = nn.ModuleDict(
            {name: nn.Linear(token_width, size) for name, size in SIZES.items()}
        )

    def forward(self, patches: Tensor, tokens: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """patches [n, 64, tower], tokens [n, 16, D] -> dense logits [n, 64, CLASSES], pooled logits by name."""
        mean = tokens.mean(1)
        return self.dense(patches), {name: head(mean) for name, head in self.pooled.items()}


def targets(needles: tuple[Needle | None, ...], per_event: int) -> dict[str, Tensor]:
    """Class of each head for each frame, IGNORE where the card has no such attribute."""
    out = {name: torch.full((len(needles),), IGNORE) for name in SIZES}
    for i, needle in enumerate(needles):
        out["kind"][i] = 0 if needle is None else 1 + KINDS.index(needle.kind)
        if needle is None:
            continue
        if needle.kind == "code":
            for d in range(4):
                out[f"digit{d}"][i] = int(needle.text[d])
        elif needle.kind == "name":
            out["name"][i] = NAMES.index(needle.text)
        elif needle.kind == "icon":
            out["icon"][i] = ICONS.index(needle.text)
        else:
            out["shape"][i] = SHAPES.index(needle.text)
            out["color"][i] = list(COLORS).index(needle.color)
    return {name: labels.repeat_interleave(per_event) for name, labels in out.items()}


def forward(video_llm: Any, heads: Heads, pixels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """pixels [n, SIDE, SIDE, 3] uint8 -> head logits, through the model class's own tower, projector and pooling."""
    caught: list[Tensor] = []
    projector = video_llm.model.multi_modal_projector
    hook = projector.register_forward_pre_hook(lambda _module, args: caught.append(args[0]))
    try:
        tokens = model.visual_tokens(video_llm, pixels)
    finally:
        hook.remove()
    return heads(caught[0], tokens)


def optimizers(video_llm: Any, heads: Heads, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the tower and projector, AdamW for everything else."""
    body = [
        *video_llm.model.vision_tower.parameters(),
        *video_llm.model.multi_modal_projector.parameters(),
    ]
    matrices = [p for p in body if p.ndim == 2 and min(p.shape) > 64]
    chosen = {id(p) for p in matrices}
    rest = [p for p in body if id(p) not in chosen] + list(heads.parameters())
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=rate, weight_decay=0.01, betas=(0.9, 0.98)),
    ]


def rate_at(shard: int, share: float) -> float:
    """Learning rate inside a shard (share of it done): each cycle warms up, stays, and falls to zero at its end."""
    first = 0
    for cycle in CYCLES:
        if shard < first + cycle.shards:
            at = (shard - first + share) / cycle.shards
            return cycle.rate * min(1.0, (shard - first + share + 0.03) / 3, (1 - at) / cycle.fall)
        first += cycle.shards
    return 0.0


@torch.inference_mode()
def accuracy(
    video_llm: Any, heads: Heads, footage: Path | None, events: int = 1000
) -> dict[str, float]:
    """Share right per head on a shard of another seed (training backgrounds, training pairs)."""
    shard = data.render_shard(VALIDATION_SEED, 0, events, 1, data.load_footage(footage))
    truth, right = targets(shard.needles, 1), {name: [0, 0] for name in SIZES}
    for i in range(0, events, BATCH):
        with torch.autocast("cpu", torch.bfloat16):
            _, pooled = forward(video_llm, heads, torch.from_numpy(shard.pixels[i : i + BATCH]))
        for name, logits in pooled.items():
            wanted = truth[name][i : i + BATCH]
            used = wanted != IGNORE
            right[name][0] += int((logits.argmax(-1)[used] == wanted[used]).sum())
            right[name][1] += int(used.sum())
    return {name: hit / max(1, n) for name, (hit, n) in right.items()}


def train(video_llm: Any, out: Path, footage: Path | None, seed: int = 0) -> None:
    """Train the tower in place; out/tower.pt is the checkpoint, out/tower.csv the curve."""
    torch.manual_seed(seed)
    heads = Heads(
        video_llm.config.vision_config.hidden_size, video_llm.config.text_config.hidden_size
    )
    per_shard = EVENTS * PER_EVENT * PASSES // BATCH
    count = sum(cycle.shards for cycle in CYCLES)
    opts = optimizers(video_llm, heads, CYCLES[0].rate)
    done, checkpoint = 0, out / "tower.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        video_llm.load_state_dict(saved["model"]), heads.load_state_dict(saved["heads"])
        for opt, state in zip(opts, saved["optimizers"], strict=True):
            opt.load_state_dict(state)
        done = saved["shards"]
    curve = Curve(out / "tower.csv", keep=done)
    started = time.time()
    codes = [cycle.codes for cycle in CYCLES for _ in range(cycle.shards)]
    source = data.shards(
        seed, range(done, count), EVENTS, PER_EVENT, footage, easy_until=6, codes=codes
    )
    for number, shard in enumerate(source, start=done):
        pixels, dense = (
            torch.from_numpy(shard.pixels),
            torch.from_numpy(shard.dense).flatten(1).long(),
        )
        truth = targets(shard.needles, PER_EVENT)
        rows = torch.cat(
            [
                torch.randperm(
                    len(pixels), generator=torch.Generator().manual_seed(number * 10 + p)
                )
                for p in range(PASSES)
            ]
        )
        losses: list[float] = []
        for i in range(per_shard):
            rate = rate_at(number, i / per_shard)
            batch = rows[i * BATCH : (i + 1) * BATCH]
            with torch.autocast("cpu", torch.bfloat16):
                patch_logits, pooled = forward(video_llm, heads, pixels[batch])
            weight = torch.ones(CLASSES)
            weight[:2] = 0.2  # most patches show no content
            loss = F.cross_entropy(
                patch_logits.float().flatten(0, 1), dense[batch].flatten(), weight=weight
            )
            for name, logits in pooled.items():
                wanted = truth[name][batch]
                if bool((wanted != IGNORE).any()):
                    loss = loss + F.cross_entropy(logits.float(), wanted, ignore_index=IGNORE) * (
                        0.5 if name.startswith("digit") else 1.0
                    )
            for opt in opts:
                for group in opt.param_groups:
                    group["lr"] = rate
                opt.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(
                [p for o in opts for g in o.param_groups for p in g["params"]], 5.0
            )
            for opt in opts:
                opt.step()
            losses.append(loss.item())
        row: dict[str, float] = {"shard": number + 1, "loss": sum(losses) / len(losses)}
        if (number + 1) % 8 == 0 or number + 1 == count:
            row |= accuracy(video_llm, heads, footage)
            torch.save(
                {
                    "model": video_llm.state_dict(),
                    "heads": heads.state_dict(),
                    "optimizers": [opt.state_dict() for opt in opts],
                    "shards": number + 1,
                },
                checkpoint.with_suffix(".tmp"),
            )
            checkpoint.with_suffix(".tmp").replace(checkpoint)
        curve.add(row)
        print(
            f"tower {number + 1}/{count} {time.time() - started:.0f} s "
            + " ".join(f"{k}={v:.3f}" for k, v in row.items()),
            flush=True,
        )

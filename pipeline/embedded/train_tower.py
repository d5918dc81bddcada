"""Stage 1: teach the vision tower and projector to read cards, without the language model.

End to end from scratch stalls: colour is learned, shape and code stay at chance. So the tower is
supervised directly, by heads that are thrown away afterwards. They read the content of each patch
and, linearly from the mean of a frame's 16 visual tokens, the card's kind, code, name, shape,
colour and icon. A linear head on a mean makes the language model's job easy: any attention to the
frame's tokens reads the same attributes.

Resumes from its checkpoint; the data of a step depends on its number alone. Knows no questions.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memory.storage.atomic import replacing
from pipeline.embedded import data, model
from pipeline.embedded.training_curve import TrainingCurve
from pipeline.needle_world.cards import CLASSES, COLORS, ICONS, KINDS, NAMES, SHAPES, Needle

from transformers import LlavaOnevisionForConditionalGeneration  # isort: skip  (after model.py declared torchvision's operators)

BATCH = 128
EVENTS, PER_EVENT = 1024, 2  # of a shard
PASSES = 2  # over each shard: rendering costs a third of a training step
VALIDATION_SEED = 7_000_001


@dataclass(frozen=True, slots=True)
class TowerCycle:
    """A rise and fall of the learning rate."""

    shards: int
    rate: float
    fall: float  # share of the cycle over which the rate falls
    codes: float  # share of the cards that are codes


# After the first cycle all but digits were read at 97 % or more; the second shows codes on half of
# the cards. The third had photographs among the footage: with the clips alone, the tower saw cards
# in other clips' textures.
CYCLES = (
    TowerCycle(64, 2e-3, 0.4, 0.34),
    TowerCycle(32, 1.5e-3, 0.85, 0.5),
    TowerCycle(32, 1.2e-3, 0.9, 0.4),
)
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
        """Dense logits [n, 64, CLASSES] and pooled logits by name.

        patches [n, 64, tower], tokens [n, 16, D].
        """
        mean = tokens.mean(1)
        return self.dense(patches), {name: head(mean) for name, head in self.pooled.items()}


def targets(needles: tuple[Needle | None, ...], per_event: int) -> dict[str, Tensor]:
    """Class of each head for each frame; IGNORE where the card has no such attribute."""
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


def forward(
    video_llm: LlavaOnevisionForConditionalGeneration, heads: Heads, pixels: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Head logits of pixels [n, SIDE, SIDE, 3] uint8.

    Through the model class's own tower, projector and pooling.
    """
    caught: list[Tensor] = []
    projector = video_llm.model.multi_modal_projector
    hook = projector.register_forward_pre_hook(lambda _module, args: caught.append(args[0]))
    try:
        tokens = model.visual_tokens(video_llm, pixels)
    finally:
        hook.remove()
    return heads(caught[0], tokens)


def optimizers(
    video_llm: LlavaOnevisionForConditionalGeneration, heads: Heads, rate: float
) -> list[torch.optim.Optimizer]:
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
    """Learning rate inside a shard; share: how much of the shard is done.

    Each cycle warms up, stays, and falls to zero at its end.
    """
    first = 0
    for cycle in CYCLES:
        if shard < first + cycle.shards:
            at = (shard - first + share) / cycle.shards
            return cycle.rate * min(1.0, (shard - first + share + 0.03) / 3, (1 - at) / cycle.fall)
        first += cycle.shards
    return 0.0


@torch.inference_mode()
def accuracy(
    video_llm: LlavaOnevisionForConditionalGeneration,
    heads: Heads,
    footage: Path | None,
    events: int = 1000,
) -> dict[str, float]:
    """Share right per head on a shard of another seed (training backgrounds and pairs)."""
    shard = data.render_shard(VALIDATION_SEED, 0, events, 1, data.load_footage(footage))
    truth, right = targets(shard.needles, 1), {name: [0, 0] for name in SIZES}
    for i in range(0, events, BATCH):
        with torch.autocast("cpu", torch.bfloat16):
            _, pooled = forward(video_llm, heads, torch.from_numpy(shard.pixels[i : i + BATCH]))
        for name, logits in pooled.items():
            labels = truth[name][i : i + BATCH]
            used = labels != IGNORE
            right[name][0] += int((logits.argmax(-1)[used] == labels[used]).sum())
            right[name][1] += int(used.sum())
    return {name: hit / max(1, n) for name, (hit, n) in right.items()}


@dataclass(frozen=True, slots=True)
class _Trainer:
    """The tower with its heads, their optimizers and the checkpoint file."""

    video_llm: LlavaOnevisionForConditionalGeneration
    heads: Heads
    optimizers: list[torch.optim.Optimizer]
    checkpoint: Path

    def resume(self) -> int:
        """Load the checkpoint if there is one; -> number of finished shards."""
        if not self.checkpoint.exists():
            return 0
        saved = torch.load(self.checkpoint, weights_only=True)
        self.video_llm.load_state_dict(saved["model"])
        self.heads.load_state_dict(saved["heads"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        return int(saved["shards"])

    def save(self, shards: int) -> None:
        """Write the checkpoint after so many shards."""
        state = {
            "model": self.video_llm.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "shards": shards,
        }
        with replacing(self.checkpoint) as temporary:
            torch.save(state, temporary)

    def step(self, pixels: Tensor, dense: Tensor, truth: dict[str, Tensor], rate: float) -> float:
        """One step on a batch; -> its loss."""
        with torch.autocast("cpu", torch.bfloat16):
            patches, pooled = forward(self.video_llm, self.heads, pixels)
        loss = loss_of(patches, pooled, dense, truth)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 5.0)
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.item()


def loss_of(
    patches: Tensor, pooled: dict[str, Tensor], dense: Tensor, truth: dict[str, Tensor]
) -> Tensor:
    """Sum of the cross-entropies of all heads.

    patches [n, 64, CLASSES] and pooled [n, size] are logits; dense [n, 64] and truth [n] classes.
    """
    weight = torch.ones(CLASSES)
    weight[:2] = 0.2  # most patches show no content
    loss = F.cross_entropy(patches.float().flatten(0, 1), dense.flatten(), weight=weight)
    for name, logits in pooled.items():
        labels = truth[name]
        if bool((labels != IGNORE).any()):
            loss = loss + F.cross_entropy(logits.float(), labels, ignore_index=IGNORE) * (
                0.5 if name.startswith("digit") else 1.0
            )
    return loss


def _train_shard(trainer: _Trainer, shard: data.Shard, number: int) -> float:
    """PASSES passes over a shard; -> its mean loss."""
    pixels = torch.from_numpy(shard.pixels)
    dense = torch.from_numpy(shard.dense).flatten(1).long()
    truth = targets(shard.needles, PER_EVENT)
    seeds = [number * 10 + p for p in range(PASSES)]
    orders = [
        torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seed)) for seed in seeds
    ]
    rows, losses = torch.cat(orders), []
    per_shard = EVENTS * PER_EVENT * PASSES // BATCH
    for i in range(per_shard):
        batch = rows[i * BATCH : (i + 1) * BATCH]
        labels = {name: classes[batch] for name, classes in truth.items()}
        rate = rate_at(number, i / per_shard)
        losses.append(trainer.step(pixels[batch], dense[batch], labels, rate))
    return sum(losses) / len(losses)


def train(
    video_llm: LlavaOnevisionForConditionalGeneration,
    out: Path,
    footage: Path | None,
    seed: int = 0,
) -> None:
    """Train the tower in place; out/tower.pt is the checkpoint, out/tower.csv the curve."""
    torch.manual_seed(seed)
    heads = Heads(
        video_llm.config.vision_config.hidden_size, video_llm.config.text_config.hidden_size
    )
    trainer = _Trainer(
        video_llm, heads, optimizers(video_llm, heads, CYCLES[0].rate), out / "tower.pt"
    )
    count = sum(cycle.shards for cycle in CYCLES)
    done, started = trainer.resume(), time.time()
    curve = TrainingCurve(out / "tower.csv", keep=done)
    codes = [cycle.codes for cycle in CYCLES for _ in range(cycle.shards)]
    source = data.shards(
        seed, range(done, count), EVENTS, PER_EVENT, footage, easy_until=6, codes=codes
    )
    for number, shard in enumerate(source, start=done):
        row: dict[str, float] = {
            "shard": number + 1,
            "loss": _train_shard(trainer, shard, number),
        }
        if (number + 1) % 8 == 0 or number + 1 == count:
            row |= accuracy(video_llm, heads, footage)
            trainer.save(number + 1)
        curve.add(row)
        values = " ".join(f"{k}={v:.3f}" for k, v in row.items())
        seconds = time.time() - started
        print(f"tower {number + 1}/{count} {seconds:.0f} s {values}", flush=True)

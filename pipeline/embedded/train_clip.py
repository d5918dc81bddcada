"""Stage 3: the small open_clip model that finds the frames a question is about.

Its image tower starts as a copy of the trained SigLIP tower (same widths; open_clip adds a class
token and folds the patch bias into the positions); its text tower is new. Trained with SigLIP's
pairwise sigmoid loss (arXiv 2303.15343) on questions and frames: a question's positives are all
frames of the needles it asks about. The only stage that imports open_clip. Resumes from its
checkpoint.
"""

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from memory.storage.atomic import replacing
from pipeline.embedded import data
from pipeline.embedded.training_curve import TrainingCurve
from pipeline.needle_world.cards import COLORS, ICONS, NAMES, SHAPES, Needle
from pipeline.needle_world.questions import (
    CODE,
    COLOR,
    COUNT,
    ICON,
    NAME,
    ORDER_GIVEN,
    ORDER_ICONS,
    ORDER_NAMES,
    SHAPE,
    listed,
    plural,
)  # fmt: skip

import encoders.models.torchvision_ops  # noqa: F401  isort: skip
import open_clip  # isort: skip

BATCH, TEXTS = 256, 96
EVENTS = 2048
VALIDATION_SEED = 9_000_011
EMBED = 128
CONFIG: dict[str, Any] = {
    "embed_dim": EMBED,
    "vision_cfg": {
        "image_size": data.SIDE, "patch_size": 12, "width": 192, "layers": 5, "head_width": 64,
        "mlp_ratio": 2.6667, "no_ln_pre": True, "pool_type": "avg",
        "act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 1e-6},
    },
    "text_cfg": {"context_length": 40, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3},
    "custom_text": False,
}  # fmt: skip
PREPROCESS = {
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "interpolation": "bicubic",
    "resize_mode": "squash",
}
# a question, or a bare description, and whether it is about a needle
DrawnText = tuple[str, Callable[[Needle], bool]]


def build() -> open_clip.CLIP:
    """The untrained model, of open_clip's own class."""
    config = copy.deepcopy(CONFIG)  # open_clip takes values out of it
    return open_clip.model.CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"])


def copy_tower(clip: open_clip.CLIP, tower: nn.Module) -> None:
    """Start the image tower from a trained SigLIP tower of transformers."""
    source = {k.removeprefix("vision_model."): v for k, v in tower.state_dict().items()}
    target = clip.visual.state_dict()
    patch = source["embeddings.patch_embedding.bias"]
    target["conv1.weight"] = source["embeddings.patch_embedding.weight"]
    places = source["embeddings.position_embedding.weight"] + patch
    target["positional_embedding"] = torch.cat([torch.zeros(1, places.shape[1]), places])
    target["class_embedding"] = torch.zeros_like(target["class_embedding"])
    for i in range(CONFIG["vision_cfg"]["layers"]):
        old, new = f"encoder.layers.{i}.", f"transformer.resblocks.{i}."
        for a, b in _SAME_LAYERS:
            for kind in ("weight", "bias"):
                target[f"{new}{b}.{kind}"] = source[f"{old}{a}.{kind}"]
        for kind in ("weight", "bias"):
            target[f"{new}attn.in_proj_{kind}"] = torch.cat(
                [source[f"{old}self_attn.{p}_proj.{kind}"] for p in "qkv"]
            )
    clip.visual.load_state_dict(target)


_SAME_LAYERS = (  # name in transformers, name in open_clip
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
    ("self_attn.out_proj", "attn.out_proj"),
)


def draw_text(rng: np.random.Generator) -> DrawnText:
    """A question, or a bare description, and which needles it is about."""

    def pick(options: tuple[str, ...]) -> str:
        return options[int(rng.integers(len(options)))]

    way = int(rng.integers(9))
    if way == 0:
        return pick(
            (*CODE, COUNT[0].format(items="codes"), COUNT[1].format(items="codes"))
        ), lambda n: n.kind == "code"
    if way == 1:
        counted = tuple(c.format(items=i) for c in COUNT for i in ("secret words", "names"))
        return pick((*NAME, *ORDER_NAMES, *counted)), lambda n: n.kind == "name"
    if way == 2:
        return pick(
            (*ICON, *ORDER_ICONS, *(c.format(items="icons") for c in COUNT))
        ), lambda n: n.kind == "icon"
    shape, color = pick(SHAPES), pick(tuple(COLORS))
    if way in (3, 4):
        text = pick((*COLOR, *COUNT)).format(shape=shape, items=plural(shape))
        return text, lambda n: n.kind == "shape" and n.text == shape
    if way == 5:
        return pick(SHAPE).format(color=color), lambda n: n.kind == "shape" and n.color == color
    if way in (6, 7):
        chosen = [str(s) for s in rng.choice(SHAPES, int(rng.integers(2, 5)), replace=False)]
        return pick(ORDER_GIVEN).format(
            items=listed(chosen)
        ), lambda n: n.kind == "shape" and n.text in chosen
    kind = int(rng.integers(3))
    if kind == 0:
        return (
            f"a {color} {shape}",
            lambda n: n.kind == "shape" and (n.text, n.color) == (shape, color),
        )
    word = pick(NAMES if kind == 1 else ICONS)
    return (word if kind == 1 else f"a {word}"), lambda n: n.text == word


def relevance(texts: list[DrawnText], needles: list[Needle | None]) -> Tensor:
    """[texts, frames] +1 where the frame shows what the text is about, else -1."""
    return torch.tensor(
        [[1.0 if n is not None and about(n) else -1.0 for n in needles] for _, about in texts]
    )


def pixels_of(pixels: np.ndarray) -> Tensor:
    """[n, SIDE, SIDE, 3] uint8 -> [n, 3, SIDE, SIDE] normalized."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


@torch.inference_mode()
def recall(
    clip: open_clip.CLIP, tokenizer: Callable[[list[str]], Tensor], footage: Path | None
) -> float:
    """Mean R-precision over questions, on another seed.

    For a question with R relevant frames: the share of them among its first R hits.
    """
    clip.eval()
    shard = data.render_shard(VALIDATION_SEED, 0, 1024, 1, data.load_footage(footage))
    rng = np.random.default_rng(VALIDATION_SEED)
    texts = [draw_text(rng) for _ in range(200)]
    with torch.autocast("cpu", torch.bfloat16):
        images = torch.cat(
            [clip.encode_image(pixels_of(shard.pixels[i : i + 128])) for i in range(0, 1024, 128)]
        )
        words = clip.encode_text(tokenizer([t for t, _ in texts]))
    scores = F.normalize(words.float(), dim=-1) @ F.normalize(images.float(), dim=-1).T
    right = relevance(texts, list(shard.needles)) > 0
    recalls = [
        float(r[s.topk(int(r.sum())).indices].float().mean())
        for s, r in zip(scores, right, strict=True)
        if r.any()
    ]
    clip.train()
    return sum(recalls) / len(recalls)


@dataclass(frozen=True, slots=True)
class _Trainer:
    """The model with its loss's bias, the optimizer and the checkpoint file."""

    clip: open_clip.CLIP
    bias: nn.Parameter  # of the pairwise loss
    optimizer: torch.optim.Optimizer
    tokenizer: Callable[[list[str]], Tensor]
    checkpoint: Path

    def resume(self) -> int:
        """Load the checkpoint if there is one; -> number of finished shards."""
        if not self.checkpoint.exists():
            return 0
        saved = torch.load(self.checkpoint, weights_only=True)
        self.clip.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.bias.data.fill_(saved["bias"])
        return int(saved["shards"])

    def save(self, shards: int) -> None:
        """Write the checkpoint after so many shards."""
        state = {
            "model": self.clip.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "bias": float(self.bias),
            "shards": shards,
        }
        with replacing(self.checkpoint) as temporary:
            torch.save(state, temporary)

    def step(
        self, texts: list[DrawnText], pixels: np.ndarray, needles: list[Needle | None], rate: float
    ) -> float:
        """One step; rate: factor on the groups' base rates. -> the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * rate
        target = relevance(texts, needles)
        with torch.autocast("cpu", torch.bfloat16):
            images = self.clip.encode_image(pixels_of(pixels))
            words = self.clip.encode_text(self.tokenizer([text for text, _ in texts]))
        scores = F.normalize(words.float(), dim=-1) @ F.normalize(images.float(), dim=-1).T
        pairs = -F.logsigmoid(target * (self.clip.logit_scale.exp() * scores + self.bias))
        positive = target > 0
        # positives are 6 % of the pairs
        loss = 0.5 * pairs[positive].mean() + 0.5 * pairs[~positive].mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        groups = self.optimizer.param_groups
        nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
        self.optimizer.step()
        return loss.item()


def _trainer(tower: nn.Module, rate: float, checkpoint: Path) -> _Trainer:
    clip = build()
    copy_tower(clip, tower)
    clip.logit_scale.data.fill_(np.log(10.0))
    bias = nn.Parameter(torch.tensor(-3.0))
    tokenizer = open_clip.get_tokenizer(
        "ViT-B-32", context_length=CONFIG["text_cfg"]["context_length"]
    )
    copied = {
        name
        for name, _ in clip.named_parameters()
        if name.startswith("visual.") and name != "visual.proj"
    }
    new = [p for name, p in clip.named_parameters() if name not in copied] + [bias]
    old = [p for name, p in clip.named_parameters() if name in copied]
    optimizer = torch.optim.AdamW(
        [{"params": new, "base": rate}, {"params": old, "base": rate * 0.2}], weight_decay=0.02
    )
    return _Trainer(clip, bias, optimizer, tokenizer, checkpoint)


def train(
    tower: nn.Module,
    out: Path,
    footage: Path | None,
    shards: int,
    rate: float = 1e-3,
    seed: int = 0,
) -> open_clip.CLIP:
    """Train; out/clip.pt is the checkpoint, out/clip.csv the curve. Returns the model."""
    torch.manual_seed(seed)
    trainer = _trainer(tower, rate, out / "clip.pt")
    done, started = trainer.resume(), time.time()
    curve = TrainingCurve(out / "clip.csv", keep=done)
    per_shard = EVENTS // BATCH
    steps = shards * per_shard
    source = data.shards(seed + 77, range(done, shards), EVENTS, 1, footage)
    for number, shard in enumerate(source, start=done):
        rng = np.random.default_rng((seed, number))
        losses = []
        for i in range(per_shard):
            step = number * per_shard + i
            factor = min(1.0, (step + 1) / 40, (steps - step) / (0.5 * steps))
            texts = [draw_text(rng) for _ in range(TEXTS)]
            rows = slice(i * BATCH, (i + 1) * BATCH)
            needles = list(shard.needles[rows])
            losses.append(trainer.step(texts, shard.pixels[rows], needles, factor))
        row = {"shard": number + 1, "loss": sum(losses) / len(losses)}
        if (number + 1) % 4 == 0 or number + 1 == shards:
            row["recall"] = recall(trainer.clip, trainer.tokenizer, footage)
            trainer.save(number + 1)
        curve.add(row)
        values = " ".join(f"{k}={v:.3f}" for k, v in row.items())
        print(f"clip {number + 1}/{shards} {time.time() - started:.0f} s {values}", flush=True)
    return trainer.clip


def save(clip: open_clip.CLIP, folder: Path) -> None:
    """Write the folder that open_clip loads as local-dir, with float16 weights (half the bytes)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": CONFIG, "preprocess_cfg": PREPROCESS}, indent=2)
    )
    weights = {
        k: v.half().contiguous() if v.is_floating_point() else v
        for k, v in clip.state_dict().items()
    }
    save_file(weights, folder / "open_clip_model.safetensors")

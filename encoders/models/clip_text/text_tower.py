"""The text side of a plain CLIP model (arXiv 2103.00020), read from a folder of open_clip's.

Search needs no more of a frame embedder, and open_clip takes two seconds to import. Built of
torch's own layers; the rows are those of open_clip to the last bit
(tests/unit/encoders/models/test_clip_text.py). What is not plain has no TextTower, and open_clip
computes it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.models.clip_text.tokenizer import ClipTokenizer

_CONFIG, _WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
# what may be said about the text side; any other word means another architecture
_KEYS = {"context_length", "vocab_size", "width", "heads", "layers"}
_MODEL_KEYS = {"embed_dim", "vision_cfg", "text_cfg", "custom_text"}
_BLOCKS = "transformer.resblocks"


class TextTower(nn.Module):
    """Texts -> rows. W is the width of the tower, E that of the embeddings."""

    def __init__(self, shape: Mapping[str, int], weights: Mapping[str, Tensor]) -> None:
        """shape: text_cfg of open_clip. weights: by open_clip's names. RuntimeError or KeyError if
        they do not fit.
        """
        super().__init__()
        self.tokenizer = ClipTokenizer(shape["context_length"])
        with torch.device("meta"):  # nothing is drawn at random, as the weights come next
            self.blocks = nn.ModuleList(
                _Block(shape["width"], shape["heads"]) for _ in range(shape["layers"])
            )
            self.norm = nn.LayerNorm(shape["width"])
        self.token_embedding = weights["token_embedding.weight"]  # [V, W], of any float type
        self.positions = weights["positional_embedding"]  # [length, W]
        self.projection = weights["text_projection"]  # [W, E]
        own = {
            name.replace("resblocks", "blocks").removeprefix("transformer."): tensor
            for name, tensor in weights.items()
            if name.startswith(_BLOCKS)
        }
        own |= {f"norm.{name}": weights[f"ln_final.{name}"] for name in ("weight", "bias")}
        self.load_state_dict(own, assign=True)
        length = shape["context_length"]
        # [length, length]: a token attends to itself and to what stands before it
        self.mask = torch.full((length, length), -math.inf).triu_(1)
        self.eval().requires_grad_(False)

    @classmethod
    def of(cls, folder: Path) -> "TextTower | None":
        """The text side of the model in a folder, in float32 on the CPU; None where it is not a
        plain one, or cannot be read, which open_clip then says.
        """
        try:
            model = json.loads((folder / _CONFIG).read_text())["model_cfg"]
            if not _is_plain(model):
                return None
            with safe_open(folder / _WEIGHTS, "pt") as file:
                names = list(file.keys())
                texts = [name for name in names if not name.startswith("visual.")]
                weights = {name: file.get_tensor(name) for name in texts}
            # all but the table of the tokens, of which a text needs a few rows
            rest = {name: one.float() for name, one in weights.items() if "token_" not in name}
            return cls(model["text_cfg"], weights | rest)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError):
            return None

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """[B, E] float32, not yet of unit length."""
        ids = self.tokenizer(texts)
        x = F.embedding(ids, self.token_embedding).float() + self.positions
        for block in self.blocks:
            x = block(x, self.mask)
        x = self.norm(x)
        # the end token has the highest id
        return x[torch.arange(len(x)), ids.argmax(-1)] @ self.projection


class _Block(nn.Module):
    """A layer of the transformer that normalizes first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)}
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        normal = self.ln_1(x)
        x = x + self.attn(normal, normal, normal, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))


def _is_plain(model: Mapping[str, Any]) -> bool:
    """Whether this model has CLIP's own text side."""
    return (
        set(model) <= _MODEL_KEYS
        and not model.get("custom_text", False)
        and set(model["text_cfg"]) == _KEYS
    )

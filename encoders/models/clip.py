"""Frame and text embeddings by open_clip, for search and for scene cuts.

Knows no video, no index. Loads `local-dir:FOLDER`, `hf-hub:ID` or an architecture name with a
pretrained tag, all through open_clip's own factory. Importing it loads neither open_clip nor
transformers, and the text side of a plain model in a folder works without them.
"""

import hashlib
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from encoders.errors import UserError
from encoders.models.acceleration.device import check_device
from encoders.models.acceleration.jit_trace import JitTrace
from encoders.models.acceleration.onednn_linear import pack
from encoders.models.clip_text.text_tower import TextTower
from encoders.schema import Frames

_PRECISIONS = {"float32": "fp32", "bfloat16": "pure_bf16"}  # as open_clip calls them
_FOLDER = "local-dir:"


@dataclass(frozen=True, slots=True)
class _OpenClip:
    """A whole model, as open_clip loads it."""

    model: Any
    tokenizer: Any  # None where a TextTower reads texts
    image: JitTrace
    size: tuple[int, int]  # (height, width) of the frames in pixels
    mean: Tensor  # [1, 3, 1, 1]
    std: Tensor


class ClipEncoder:
    """An open_clip model as a DualEncoder."""

    def __init__(
        self,
        model: str,
        *,
        pretrained: str | None = None,
        device: str = "cpu",
        batch: int = 64,
        dtype: str = "float32",
    ) -> None:
        """dtype: of the computation, "float32" or "bfloat16"; embeddings are float32 either way.
        UserError if open_clip cannot load the model. Where a TextTower can read its texts, the rest
        is loaded with the first frame.
        """
        if dtype not in _PRECISIONS:
            raise UserError(f"clip.dtype={dtype} is not known; use one of {', '.join(_PRECISIONS)}")
        self.name, self.pretrained, self.batch = model, pretrained, batch
        self.device = check_device(device, "clip.device")
        self._dtype = dtype
        self._loaded: _OpenClip | None = None
        self._loading = threading.Lock()
        self._texts: TextTower | None = None
        if dtype == "float32" and self.device.type == "cpu" and model.startswith(_FOLDER):
            self._texts = TextTower.of(Path(model.removeprefix(_FOLDER)))
        if self._texts is None:
            self._whole()  # a mistake is told now

    @property
    def clip(self) -> Any:
        """The model of open_clip."""
        return self._whole().model

    @torch.inference_mode()
    def embed_frames(self, frames: Frames) -> Tensor:
        """[T, E] float32, unit rows. Frames are resized to the model's square, as for
        the backbone.
        """
        own = self._whole()
        rows: list[Tensor] = []
        for a in range(0, len(frames), self.batch):
            pixels = (
                torch.from_numpy(frames.pixels[a : a + self.batch])
                .to(self.device)
                .permute(0, 3, 1, 2)
                .float()
            )
            if pixels.shape[-2:] != own.size:
                pixels = F.interpolate(pixels, own.size, mode="bicubic", antialias=True).clamp_(
                    0, 255
                )
            scaled = pixels.div_(255.0).sub_(own.mean).div_(own.std)
            rows.append(own.image(scaled.to(getattr(torch, self._dtype))).float())
        return F.normalize(torch.cat(rows), dim=-1).cpu()

    def embed_text(self, text: str) -> Tensor:
        """[E] float32, unit length. Text beyond the model's context is cut."""
        return self.embed_texts([text])[0]

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """[B, E] float32, unit rows, in one pass."""
        if self._texts is not None:
            return F.normalize(self._texts.embed(texts), dim=-1)
        own = self._whole()
        rows = own.model.encode_text(own.tokenizer(list(texts)).to(self.device)).float()
        return F.normalize(rows, dim=-1).cpu()

    def fingerprint(self) -> str:
        """16 hex digits over name, tag and, for a local folder, weights; plus a suffix for dtypes
        other than float32.
        """
        return clip_fingerprint(self.name, self.pretrained, self._dtype)

    def _whole(self) -> _OpenClip:
        """The whole model; loaded at the first call. UserError if open_clip cannot load it."""
        with self._loading:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def _load(self) -> _OpenClip:
        import encoders.models.torchvision_ops  # noqa: F401  (first: open_clip imports torchvision)

        import open_clip  # isort: skip

        try:
            with _without_lines_of(open_clip.__name__):  # the error below says the same
                model, _, _ = open_clip.create_model_and_transforms(
                    self.name,
                    precision=_PRECISIONS[self._dtype],
                    pretrained=self.pretrained,
                    device=self.device,
                )
                # a TextTower has its own
                plain = self._texts is not None
                tokenizer = None if plain else open_clip.get_tokenizer(self.name)
        except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
            hub_id = _hub_id(self.name, self.pretrained or "")
            if hub_id and not has_weights(self.name, self.pretrained or ""):
                raise UserError(
                    f"the weights of clip.model={self.name} are not on this machine, and "
                    f"{hub_id} cannot be fetched now; `reelbank pull` fetches them where there is "
                    "a network, and clip=conse needs none"
                ) from error
            raise UserError(
                f"open_clip cannot load clip.model={self.name}: {str(error).splitlines()[0]}"
            ) from error
        model.eval().requires_grad_(False)
        pack(model)
        image = JitTrace(model.encode_image, model.visual)
        visual = model.visual
        _batch_last_where_faster(visual)
        size = visual.image_size
        return _OpenClip(
            model,
            tokenizer,
            image,
            (size, size) if isinstance(size, int) else (size[0], size[1]),
            torch.tensor(visual.image_mean, device=self.device).view(1, 3, 1, 1),
            torch.tensor(visual.image_std, device=self.device).view(1, 3, 1, 1),
        )


class NoFrameEmbedder:
    """A DualEncoder that tells nothing apart: one number, 1, for every frame and text. For banks
    whose frames are found in another way.
    """

    def __init__(self, *, device: str = "cpu", dtype: str = "float32") -> None:
        """device, dtype: as of other embedders. 1 is the same everywhere."""

    def embed_frames(self, frames: Frames) -> Tensor:
        """[T, 1] float32."""
        return torch.ones(len(frames), 1)

    def embed_text(self, text: str) -> Tensor:
        """[1] float32."""
        return torch.ones(1)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """[B, 1] float32."""
        return torch.ones(len(texts), 1)

    def fingerprint(self) -> str:
        """The same for all."""
        return "none"


def clip_fingerprint(model: str, pretrained: str | None, dtype: str) -> str:
    """The fingerprint of a ClipEncoder with these settings, without loading it."""
    digest = hashlib.sha256(f"{pretrained}".encode())
    folder = Path(model.removeprefix(_FOLDER))
    if folder.is_dir():
        for file in sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.json")):
            digest.update(file.read_bytes())
    else:
        digest.update(model.encode())
    return digest.hexdigest()[:16] + ("" if dtype == "float32" else f"-{dtype}")


def has_weights(model: str, pretrained: str) -> bool:
    """True if the hub's cache has the published weights of an architecture with this tag."""
    import encoders.models.torchvision_ops  # noqa: F401  (first: open_clip imports torchvision)

    import open_clip  # isort: skip
    from huggingface_hub import try_to_load_from_cache  # isort: skip

    hub_id = _hub_id(model, pretrained)
    names = (open_clip.constants.HF_SAFE_WEIGHTS_NAME, open_clip.constants.HF_WEIGHTS_NAME)
    return bool(hub_id) and any(
        isinstance(try_to_load_from_cache(hub_id, name), str) for name in names
    )


def _hub_id(model: str, pretrained: str) -> str:
    """The repository of an architecture with this tag; "" where open_clip knows none."""
    import open_clip

    config = open_clip.get_pretrained_cfg(model, pretrained)
    return str(config.get("hf_hub") or "").rstrip("/")


@contextmanager
def _without_lines_of(package: str) -> Iterator[None]:
    """Keep what a package writes by the root logger itself off the terminal."""

    def is_of_others(record: logging.LogRecord) -> bool:
        return package not in Path(record.pathname).parts

    root = logging.getLogger()
    root.addFilter(is_of_others)
    try:
        yield
    finally:
        root.removeFilter(is_of_others)


def _batch_last_where_faster(visual: Any) -> None:
    """Run a vision transformer with an odd number of heads as [L, B, D], by a switch of open_clip's
    and torch's own layers. torch's fused path takes even numbers only. Its other path first
    transposes [B, L, D]; the products after that take twice the time, and six times in bfloat16.
    The result is the same.
    """
    stack: Any = getattr(visual, "transformer", None)
    blocks = [getattr(block, "attn", None) for block in getattr(stack, "resblocks", [])]
    if blocks and all(
        isinstance(attn, torch.nn.MultiheadAttention) and attn.num_heads % 2 for attn in blocks
    ):
        for layer in (stack, *blocks):
            layer.batch_first = False

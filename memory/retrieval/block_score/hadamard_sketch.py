"""Two bits for each channel of a frame's mean key, behind a Hadamard transform (Adamas, arXiv
2510.18413).

    code(k)         = bucket of sqrt(P) (k H)_i / |k| for each channel i, one of four
    score(q, frame) = - sum over i of |code(q)_i - code(k)_i|               distance="manhattan"
                    = |k| / sqrt(P) * sum over i of (q H)_i level(code(k)_i)      distance="dot"

H is the orthonormal Hadamard matrix of P channels, Dh padded to a power of two. It spreads a loud
channel over all of them and keeps every product: (q H)(k H)^T = q k^T. The buckets are those of
Lloyd and Max for a normal distribution, so nothing is calibrated; the paper's are measured.
Adamas sketches every token; here it is the mean key, because a frame is what is read.
Cost: P / 4 + 2 bytes for a frame, layer and KV head, an eighth of a mean key in float16; the codes
are unpacked for every search, which takes longer than reading mean keys from RAM.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from encoders.errors import UserError
from memory.schema import SegmentIndex

# where a normal distribution of variance 1 is cut into four, and what stands for each part
_EDGES = torch.tensor([-0.9816, 0.0, 0.9816])
_LEVELS = np.array([-1.510, -0.4528, 0.4528, 1.510], np.float32)
# the four codes in a byte
_CODES = np.array([[byte >> shift & 3 for shift in (0, 2, 4, 6)] for byte in range(256)], np.uint8)


class HadamardSketch:
    """distance: "manhattan" as published, or "dot", which compares the sketch with the query as it
    is and counts the key's length.
    """

    reads = frozenset({"keys"})
    rows_name = "hadamard-2"
    dtype: type[np.generic] = np.uint8
    keep = 1.0

    def __init__(self, *, distance: str = "manhattan") -> None:
        if distance not in ("manhattan", "dot"):
            raise UserError(f"block_score.distance={distance} is not known; use manhattan or dot.")
        self._is_dot = distance == "dot"
        self.is_linear = self._is_dot

    def rows(self, segment: SegmentIndex) -> np.ndarray | None:
        """[T, L, H * (P / 4 + 2)] uint8: for each head its codes, then its length in float16."""
        if segment.keys is None:
            return None
        means = segment.keys.per_frame(lambda keys: keys.mean(2))  # [T, L, H, Dh]
        codes = _codes(transformed(means)).numpy().astype(np.uint8)
        packed = sum(codes[..., place::4] << (2 * place) for place in range(4))
        lengths = means.norm(dim=-1, keepdim=True).to(torch.float16).numpy().view(np.uint8)
        both = np.concatenate([packed, lengths], -1)
        return both.reshape(*both.shape[:2], -1)

    def numbers(self, head_width: int) -> int:
        return _channels(head_width) // 4 + 2

    def scores(self, rows: np.ndarray, queries: np.ndarray, *, coarse: bool = False) -> np.ndarray:
        layers, heads, group, width = queries.shape
        channels = _channels(width)
        parts = rows.reshape(len(rows), layers, heads, -1)
        codes = _CODES[parts[..., :-2]].reshape(len(rows), layers, heads, channels)
        rotated = transformed(torch.from_numpy(queries))  # [L, H, G, P]
        if self._is_dot:
            lengths = np.ascontiguousarray(parts[..., -2:]).view(np.float16).astype(np.float32)
            products = np.einsum("tlhd,lhgd->tlhg", _LEVELS[codes], rotated.numpy())
            return products * (lengths / np.float32(channels**0.5))
        own = _codes(rotated).numpy().astype(np.int8)
        distances = [
            np.abs(codes.view(np.int8) - own[:, :, number]).sum(-1, dtype=np.int32)
            for number in range(group)
        ]
        return -np.stack(distances, -1).astype(np.float32)


def transformed(vectors: Tensor) -> Tensor:
    """[..., Dh] -> [..., P]: behind the orthonormal Hadamard transform."""
    width = vectors.shape[-1]
    channels = _channels(width)
    matrix = torch.ones(1, 1)
    while len(matrix) < channels:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return pad(vectors, (0, channels - width)) @ matrix / channels**0.5


def _channels(head_width: int) -> int:
    """The least power of two that holds a head's channels, 4 at least."""
    return max(4, 1 << (head_width - 1).bit_length())


def _codes(rotated: Tensor) -> Tensor:
    """[..., P] int64 0..3: the bucket of each channel, relative to the length of its vector."""
    spread = rotated.norm(dim=-1, keepdim=True) / rotated.shape[-1] ** 0.5
    return torch.bucketize(rotated / spread.clamp(min=torch.finfo(torch.float32).tiny), _EDGES)

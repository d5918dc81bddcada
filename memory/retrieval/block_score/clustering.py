"""A few keys for many: points far from each other, and centroids. Deterministic; no random numbers.

Shapes: N sets of m points, D numbers of a point, c centroids.
"""

import torch
from torch import Tensor
from torch.nn.functional import one_hot


def farthest_first(points: Tensor, count: int) -> Tensor:
    """[N, c] int64: numbers of c points of each set [N, m, D], each as far as possible from those
    before it (Gonzalez 1985); the first is the farthest from the mean. c = min(count, m).
    """
    distance = (points - points.mean(1, keepdim=True)).square().sum(-1)  # [N, m]
    chosen: list[Tensor] = []
    for number in range(min(count, points.shape[1])):
        own = distance.argmax(1)
        chosen.append(own)
        center = points.gather(1, own[:, None, None].expand(-1, 1, points.shape[2]))
        to_it = (points - center).square().sum(-1)
        distance = to_it if number == 0 else torch.minimum(distance, to_it)
        # a point that was taken is not taken again, even where all others equal it
        distance = distance.scatter(1, torch.stack(chosen, 1), -1.0)
    return torch.stack(chosen, 1)


def k_means(points: Tensor, count: int, rounds: int) -> tuple[Tensor, Tensor]:
    """Centroids [N, c, D] and how many points each stands for [N, c], by Lloyd's rounds from the
    farthest points. With count >= m every point is its own centroid.
    """
    chosen = farthest_first(points, count)
    centroids = points.gather(1, chosen[..., None].expand(-1, -1, points.shape[2]))
    counts = torch.ones(chosen.shape)
    if count >= points.shape[1]:
        return centroids, counts
    for _ in range(rounds):
        distance = torch.cdist(
            points, centroids, compute_mode="donot_use_mm_for_euclid_dist"
        )  # [N, m, c]
        members = one_hot(distance.argmin(2), centroids.shape[1]).float()
        counts = members.sum(1)
        sums = members.transpose(1, 2) @ points
        has_any = (counts > 0)[..., None]
        centroids = torch.where(has_any, sums / counts.clamp(min=1)[..., None], centroids)
    return centroids, counts

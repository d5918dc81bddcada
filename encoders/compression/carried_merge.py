"""Near-duplicates of what earlier segments have shown."""

from dataclasses import dataclass, replace

import torch
from torch.nn.functional import normalize

from encoders.compressors import Merge, as_means, frame_means, near_duplicates
from encoders.schema import CarriedFrame, VisualTokens


@dataclass(frozen=True)
class CarriedMerge:
    """`Merge` over a stream: the last whole frame is carried from segment to segment, so that a
    still camera stores it once in `segments` segments.

    PVC (arXiv 2412.09613) encodes of each frame what earlier frames did not carry, with a trained
    encoder. Here a frame whose mean token has a cosine above `threshold` with that of the last
    whole frame, in this segment or an earlier one, is one token, the mean of its tokens:
        cos(mean(x_t), mean(x_w)) > threshold,   w = the last whole frame before t
    Any other frame stays whole, and is carried on in its place. T * D products.

    Every segment can be read alone: its first frame keeps its time tag and search rows of its own,
    also where it is one token. What it leans on is at most `segments` - 1 segments away, as a
    whole frame is stored once in so many. The state is [D] float16 and a number. It is stored with
    each segment (`Segment.carried`), so a resumed pass goes on with the same bytes.

    threshold: as of Merge. segments: 1 is Merge itself.
    """

    threshold: float = 0.95
    segments: int = 8

    def __post_init__(self) -> None:
        Merge(self.threshold)  # refuses what is no cosine
        if self.segments < 1:
            raise ValueError(
                f"segments={self.segments}: a whole frame serves at least its own segment; use 1 "
                "or more"
            )

    def __call__(self, visual: VisualTokens) -> VisualTokens:
        return self.carry(visual, None)[0]

    def carry(
        self, visual: VisualTokens, before: CarriedFrame | None
    ) -> tuple[VisualTokens, CarriedFrame]:
        """The next segment. before: the last whole frame, or None at a beginning."""
        means = frame_means(visual)
        if before is not None and before.segments >= self.segments:
            before = None
        features = means if before is None else torch.cat([_row(before, means), means])
        merged = near_duplicates(features, self.threshold)[len(features) - len(means) :]
        if visual.repeats is not None:
            merged |= visual.repeats.cpu()
        repeats = merged.clone()
        repeats[0] = False  # a segment can be read alone
        whole = (~merged).nonzero()[:, 0]
        if len(whole):
            direction = normalize(means[int(whole[-1])], dim=0).to("cpu", torch.float16)
            after = CarriedFrame(direction, 1)
        else:
            assert before is not None  # the first frame of all is whole
            after = replace(before, segments=before.segments + 1)
        place = visual.offsets.device
        own = as_means(visual, means, merged.to(place))
        return replace(own, repeats=repeats.to(place)), after


def _row(before: CarriedFrame, means: torch.Tensor) -> torch.Tensor:
    """[1, D] on the device of the means."""
    return before.direction.to(means.device, means.dtype)[None]

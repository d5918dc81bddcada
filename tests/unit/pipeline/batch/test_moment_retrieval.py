"""Ranked frames -> ranked stretches, and what a query is made of."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoders.errors import UserError
from memory.retrieval.fusion import Moment
from pipeline.batch.compute.moment_retrieval import join_frames, rank_candidates
from pipeline.moments.picture_query import CLIP_FRAMES, query_frames
from pipeline.scorers.moments.moment_ranking import MomentRanking
from pipeline.scorers.schema import AnsweredQuestion
from tests.support.videos import write_video


def frames(*scores: float, first: float = 0.0) -> list[Moment]:
    """A frame a second with these scores."""
    return [Moment("v", first + n, first + n + 1, one, ()) for n, one in enumerate(scores)]


def test_a_candidate_counts_by_its_best_frame() -> None:
    candidates = [(2.0, 4.0), (0.0, 2.0), (0.2, 0.8), (9.0, 12.0)]
    ranked = rank_candidates("v", frames(0.1, 0.9, 0.3, 0.9), candidates)
    assert [(one.start, one.end, one.score) for one in ranked] == [
        (0, 2, 0.9),
        (2, 4, 0.9),
        (0.2, 0.8, 0.1),
        (9, 12, -math.inf),
    ]


def test_frames_near_each_other_are_one_moment() -> None:
    some = [*frames(0.2, 0.8), *frames(0.9, first=3), *frames(0.5, first=20)]
    joined = join_frames(some, {"v": 2.0})
    assert [(one.start, one.end, one.score, one.at) for one in joined] == [
        (0.0, 4.0, 0.9, 0.0),
        (20.0, 21.0, 0.5, 0.0),
    ]
    assert join_frames([], {}) == []
    # frames of two films are never one moment
    films = [*some, *(replace(one, video_id="w") for one in some)]
    joined = join_frames(films, {"v": 2.0, "w": 0.5})
    assert [(one.video_id, one.start) for one in joined] == [
        ("v", 0.0), ("w", 3.0), ("w", 0.0), ("v", 20.0), ("w", 20.0)
    ]  # fmt: skip


def test_a_picture_and_a_clip_are_frames(tmp_path: Path) -> None:
    Image.new("RGBA", (1000, 500), "red").save(tmp_path / "q.png")
    picture = query_frames(tmp_path / "q.png")
    assert picture.pixels.shape == (1, 192, 384, 3) and tuple(picture.pixels[0, 0, 0]) == (
        255,
        0,
        0,
    )
    write_video(tmp_path / "q.mp4", 4, 5)
    clip = query_frames(tmp_path / "q.mp4")
    assert len(clip) == CLIP_FRAMES and np.all(np.diff(clip.times) > 0)


@pytest.mark.parametrize(("name", "data"), [("q.png", b"no"), ("q.mp4", b"no"), ("gone.png", None)])
def test_a_query_that_cannot_be_read_is_one_sentence(tmp_path: Path, name, data) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=name) as refused:
        query_frames(tmp_path / name)
    assert len(str(refused.value).splitlines()) == 1


def test_recall_and_precision_of_ranked_moments() -> None:
    """The numbers of MomentSeeker's code for this case, computed by hand: IoU with the hull 0-6 are
    0, 1/2 and 1/2, and the precisions at them 0, 1/4 and 1/3."""
    scorer = MomentRanking(at=[1, 2, 3], precision_at=5, overlap=1.0)
    question = AnsweredQuestion(
        "1", "v", "q", "", evidence=((3, 6), (0, 3)), found=((9, 12), (0, 3), (3, 6))
    )
    (score,) = scorer([question])
    assert score.numbers == pytest.approx(
        {"recall_at_1": 0, "recall_at_2": 1, "recall_at_3": 1, "ap_at_5": 1 / 8 + 1 / 6}
    )
    # a viewer who jumps to a second of the evidence has found it, however short the moment is
    hit = AnsweredQuestion("1", "v", "q", "", evidence=((3, 60),), found=(None, (59, 60)))
    for least, found_at_2 in ((0.0, 1.0), (0.5, 0.0)):
        (score,) = MomentRanking(at=[1, 2], precision_at=5, overlap=least)([hit])
        assert (score.numbers["recall_at_1"], score.numbers["recall_at_2"]) == (0, found_at_2)
    with pytest.raises(UserError, match="ranks from 1"):
        MomentRanking(at=[0], precision_at=5, overlap=1.0)

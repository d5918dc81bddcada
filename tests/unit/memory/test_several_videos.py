"""One question about several videos, or about several stretches of one: what recall may read."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from encoders.errors import UserError
from encoders.schema import Frames, Segment
from memory.bank import MemoryBank
from memory.retrieval.clip import ClipRetriever
from memory.schema import Evidence, FrameName, Question, SegmentIndex, Stretch, VideoSpan
from memory.timeline import Timeline
from tests.support.banks import opened, spent
from tests.support.records import Words, feed, make_video, same, write_video
from tests.support.retrievers import NAMES, PER_LAYER, built

SIZES = {"a": 10, "b": 6, "c": 8}  # segments of four frames


@pytest.fixture(scope="module", params=[*NAMES, PER_LAYER])
def library(request, tmp_path_factory) -> Iterator[tuple[MemoryBank, dict[str, list[Segment]]]]:
    """A bank of three videos for each retriever; frame 13 of `b` is planted."""
    videos = {
        name: make_video(name, segments=count, needle=13 if name == "b" else None)
        for name, count in SIZES.items()
    }
    with opened(tmp_path_factory.mktemp("bank"), built(request.param)) as bank:
        for video in videos.values():
            write_video(bank, video)
        yield bank, videos


def times_by_video(evidence: Evidence) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {}
    for run in evidence.runs:
        times.setdefault(run.video_id, []).extend(run.tokens.times.tolist())
    return times


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    order=st.permutations(list(SIZES)),
    moments=st.dictionaries(st.sampled_from("abc"), st.floats(0, 45)),
    spans=st.dictionaries(
        st.sampled_from("abc"),
        st.lists(st.floats(0, 45), min_size=2, max_size=4, unique=True)
        .filter(lambda ends: len(ends) % 2 == 0)
        .map(lambda ends: tuple(zip(*[iter(sorted(ends))] * 2, strict=True))),
    ),
    read_tokens=st.integers(5, 300),
)
def test_moments_spans_and_budget_hold_in_every_video(library, order, moments, spans, read_tokens):
    bank, videos = library
    question = Question("needle", order, 30.5, moments=moments, spans=spans)
    evidence = bank.recall(question, read_tokens=read_tokens)
    assert spent(evidence) <= read_tokens
    names = evidence.names
    assert len(set(names)) == len(names) == evidence.frame_count
    assert list(dict.fromkeys(run.video_id for run in evidence.runs)) == [
        each for each in order if each in {run.video_id for run in evidence.runs}
    ]
    for video_id, times in times_by_video(evidence).items():
        assert times == sorted(times) and max(times) <= moments.get(video_id, 30.5)
        own = spans.get(video_id, ((-math.inf, math.inf),))
        assert all(any(a < time + 1 and time < b for a, b in own) for time in times)
    for run in evidence.runs:  # the bytes are those of the named frame
        segment = videos[run.video_id][run.segment]
        at = run.first - 4 * run.segment
        assert same(run.tokens, segment.tokens.frames(at, at + len(run.ordinals)))
    again = bank.recall(question, read_tokens=read_tokens)
    assert again.names == names and torch.equal(again.hits.places, evidence.hits.places)


def test_the_needle_is_found_in_the_right_video(library):
    bank, _ = library
    if not bank._searchable.retriever.reads:
        pytest.skip("looks at no content")
    for order in (("a", "b", "c"), ("c", "b", "a")):
        evidence = bank.recall(Question("needle", order), read_tokens=16)
        assert FrameName("b", 13) in evidence.names
        assert evidence.hits.names[0] == FrameName("b", 13)
    early = bank.recall(Question("needle", tuple("abc"), moments={"b": 12.5}), read_tokens=16)
    assert FrameName("b", 13) not in early.names
    limited = Question("needle", tuple("abc"), spans={"b": ((0.0, 8.0), (13.2, 13.7))})
    assert FrameName("b", 13) in bank.recall(limited, read_tokens=16).names


def test_a_question_about_one_of_them_reads_as_if_it_were_alone(library, request, tmp_path):
    bank, videos = library
    with opened(tmp_path, built(request.node.callspec.params["library"])) as alone:
        write_video(alone, videos["c"])
        question = Question("needle", "c", 20.0)
        found, expected = (each.recall(question, read_tokens=24) for each in (bank, alone))
        assert found.names == expected.names and same(found.runs, expected.runs)


def test_questions_about_different_videos_share_one_recall(library):
    bank, _ = library
    questions = [
        Question("needle", ("a", "b")),
        Question("other", "b"),
        Question("other", ("c", "a"), 9.0),
    ]
    together = bank.recall_all(questions, read_tokens=24)
    for question, evidence in zip(questions, together, strict=True):
        alone = bank.recall(question, read_tokens=24)
        assert evidence.names == alone.names and same(evidence.runs, alone.runs)


def test_words_point_to_frames_of_their_own_video(library):
    bank, _ = library
    question = Question("other", ("a", "b"))
    near = [VideoSpan("b", 5.1, 5.4), VideoSpan("c", 5.1, 5.4), VideoSpan("a", 31.0, 31.5)]
    evidence = bank.recall(question, read_tokens=24, near=near)
    if evidence.hits.per_layer is None:
        assert {FrameName("b", 5), FrameName("a", 31)} <= set(evidence.names)
    kept = Question("other", ("a", "b"), keep=(FrameName("b", 2), FrameName("c", 2)))
    assert FrameName("b", 2) in bank.recall(kept, read_tokens=40).names


def test_pending_frames_of_several_videos_are_seen(tmp_path):
    videos = {name: make_video(name, segments=4, tokens=[2] * 4) for name in "ab"}
    with opened(tmp_path, built("clip")) as bank:
        for video in videos.values():
            write_video(bank, video[:3])
            bank.show(video[3])
        evidence = bank.recall(Question("needle", tuple("ab"), moments={"b": 13.0}), read_tokens=40)
        assert evidence.came_from["pending"] == 4 + 2
        assert evidence.names[-1] == FrameName("b", 13) and FrameName("a", 15) in evidence.names
        assert spent(evidence) <= 40


def test_joint_ranking_equals_that_of_one_long_video():
    """Two videos side by side are ranked as their frames in one video."""
    parts, whole = {"a": make_video("a"), "b": make_video("b", needle=5)}, built("kv")
    several = built("kv")
    for video in parts.values():
        feed(several, video)
    clip, keys = (
        torch.cat([getattr(segment, what) for video in parts.values() for segment in video])
        for what in ("clip", "key_means")
    )
    times = torch.arange(len(clip), dtype=torch.float64)
    whole.add(SegmentIndex("w", 0, 0, times, clip, keys))
    stretches = [Stretch("a", 0, 20), Stretch("b", 0, 20)]
    found = several.search(Question("needle", tuple("ab")), 12, stretches)
    expected = whole.search(Question("needle", "w"), 12, [Stretch("w", 0, 40)])
    assert found.places.tolist() == expected.places.tolist()
    assert torch.allclose(found.scores, expected.scores)
    assert found.names[0] == FrameName("b", 5)


def test_ranges_of_a_timeline():
    timeline = Timeline.empty().extended([(0, np.arange(10.0), np.ones(10, np.int64))])
    assert timeline.ranges([(-math.inf, math.inf)], 1.0, 6.5) == [range(7)]
    assert timeline.ranges([(2.0, 4.0), (6.2, 6.4)], 1.0, math.inf) == [range(2, 4), range(6, 7)]
    assert timeline.ranges([(2.5, 3.5), (3.5, 5.0)], 1.0, math.inf) == [range(2, 4), range(4, 5)]
    assert timeline.ranges([(2.0, 4.0)], 1.0, 1.0) == [] == timeline.ranges([], 1.0, 9.0)
    # a frame that ends with the rounded end of a span is not part of what follows
    assert timeline.ranges([(3.9996, 6.0)], 1.0, math.inf) == [range(4, 6)]


def test_a_question_names_each_video_once():
    assert Question("q", "film").videos == ("film",) and Question("q", ["a", "b"]).videos == (
        "a",
        "b",
    )
    with pytest.raises(ValueError, match="each once"):
        Question("q", ("a", "a"))
    with pytest.raises(ValueError, match="each once"):
        Question("q", ())


class Pictures(Words):
    """Embeds pictures by their first pixel: the number of a direction."""

    def embed_frames(self, frames: Frames) -> torch.Tensor:
        return torch.stack([self.embed_text(str(each[0, 0, 0])) for each in frames.pixels])


def test_a_picture_is_searched_for():
    retriever, video = ClipRetriever(embedder=Pictures()), make_video("v")
    video[2].clip[1] = Pictures().embed_text("7")
    video[3].clip[1] = normalize(Pictures().embed_text("7") + Pictures().embed_text("red"), dim=-1)
    feed(retriever, video)
    picture = Frames("query", np.full((2, 4, 4, 3), 7, np.uint8), np.arange(2.0))
    everything = [Stretch("v", 0, 20)]
    assert retriever.search(Question("", "v", picture=picture), 1, everything).frames[0] == 9
    composed = Question("red", "v", picture=picture)
    assert retriever.search(composed, 1, everything).frames[0] == 13
    with pytest.raises(UserError, match="picture_weight"):
        ClipRetriever(embedder=Pictures(), picture_weight=2.0)


def test_the_nearest_frame_of_a_clip_counts(tmp_path):
    """In one film and in many. A frame that is near to the mean of a clip looks like none of it."""
    films = {name: make_video(name) for name in "ab"}
    first, second, red = (Pictures().embed_text(each) for each in ("7", "8", "red"))
    films["a"][1].clip[2] = normalize(first + second, dim=-1)
    films["a"][3].clip[0], films["b"][2].clip[3] = second, first
    films["b"][4].clip[1] = normalize(second + red, dim=-1)
    pixels = np.repeat(np.array([7, 8], np.uint8), 48).reshape(2, 4, 4, 3)
    clip = Frames("query", pixels, np.arange(2.0))
    with opened(tmp_path, ClipRetriever(embedder=Pictures())) as bank:
        for film in films.values():
            write_video(bank, film)

        def best(text: str, count: int) -> set[tuple[str, int]]:
            question = Question(text, ("a", "b"), picture=clip)
            moments = bank.library.rank_frames(question, count)
            one_search = {(each.video_id, round(each.at)) for each in moments}
            stretches = [Stretch(each, 0, 20) for each in films]
            hits = feed(feed(ClipRetriever(embedder=Pictures()), films["a"]), films["b"])
            found = hits.search(question, count, stretches).names
            assert {(each.video_id, each.ordinal) for each in found} == one_search
            return one_search

        assert best("", 2) == {("a", 12), ("b", 11)}
        assert best("red", 1) == {("b", 17)}  # each frame of the clip is weighed with the words


def test_what_comes_after_the_moments_changes_nothing(library, request, tmp_path):
    """A bank that holds only what came before the moments gives the same evidence."""
    bank, videos = library
    ends = {"a": 24.0, "b": 16.0, "c": 32.0}
    with opened(tmp_path, built(request.node.callspec.params["library"])) as earlier:
        for name, video in videos.items():
            write_video(earlier, [each for each in video if each.end <= ends[name]])
        moments = {name: end - 0.5 for name, end in ends.items()}
        for text in ("needle", "other"):
            found = bank.recall(Question(text, tuple(ends), moments=moments), read_tokens=24)
            expected = earlier.recall(Question(text, tuple(ends)), read_tokens=24)
            assert found.names == expected.names and same(found.runs, expected.runs)


def test_the_best_videos_of_many(tmp_path):
    """One search over all frames of the bank names the videos; later frames and spans count."""
    videos = {f"v{i:02d}": make_video(f"v{i:02d}", segments=3) for i in range(30)}
    videos["v17"] = make_video("v17", segments=3, needle=5)
    names = tuple(videos)
    with opened(tmp_path, built("fused")) as bank:
        for video in videos.values():
            write_video(bank, video[:2])
        assert "v17" in bank.library.best_videos(Question("needle", names), (), 3)
        assert "v17" not in bank.library.best_videos(Question("needle", names, 4.5), (), 3)
        limited = Question("needle", names, spans={"v17": ((6.0, 9.0),)})
        assert "v17" not in bank.library.best_videos(limited, (), 3)
        others = tuple(each for each in names if each != "v17")
        assert "v17" not in bank.library.best_videos(Question("needle", others), (), 3)
        near = [VideoSpan("v03", 1.0, 2.0)]
        assert {"v03", "v17"} <= set(bank.library.best_videos(Question("needle", names), near, 3))
        late = make_video("late", segments=3, needle=10)
        write_video(bank, late[:1])
        assert "late" not in bank.library.best_videos(Question("needle", (*names, "late")), (), 1)
        for segment in late[1:]:
            bank.write(segment)
        later = Question("needle", (*others, "late"))
        assert bank.library.best_videos(later, (), 1) == ("late",)
        bank.discard("v17", [1])
        assert "v17" not in bank.library.best_videos(Question("needle", names), (), 3)
    with opened(tmp_path, built("fused")) as again:  # from the saved rows
        assert again.library.best_videos(later, (), 1) == ("late",)
    with opened(tmp_path, built("kv")) as bank:
        assert bank.library.best_videos(later, (), 1) == ("late",)


def test_one_search_over_all_videos_ranks_as_one_for_each(tmp_path):
    videos = {f"v{i}": make_video(f"v{i}", segments=4) for i in range(6)}
    with opened(tmp_path, built("clip retriever.per_segment=4")) as bank:
        for video in videos.values():
            write_video(bank, video)
        for spans in ({}, {"v2": ((3.0, 9.0),), "v4": ()}):
            question = Question("needle", tuple(videos), 12.5, spans=spans)
            found = bank.library.rank_frames(question, 10)
            alone = [
                moment
                for each in videos
                for during in question.spans_of(each)
                for moment in bank.rank_frames(
                    "needle", each, during=during, asked_at=12.5, most=16
                )
            ]
            alone.sort(key=lambda moment: -moment.score)
            assert found == alone[:10]
    with opened(tmp_path, built("kv")) as bank:
        assert bank.library.rank_frames(Question("needle", tuple(videos)), 10) is None

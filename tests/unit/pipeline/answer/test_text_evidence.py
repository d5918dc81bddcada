"""Which lines of a video belong to a question."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from encoders.text.lines import TextLine
from memory.retrieval.fusion import fuse_ranked
from memory.schema import VideoTitle
from memory.text.bm25 import RankedLine
from pipeline.answer.text_evidence import name_of, prompt_line

lines = st.lists(
    st.builds(
        lambda video, start, kind, text, score: RankedLine(
            TextLine(video, start, start + 1, kind, text, start), score, 1.0, start, start + 1
        ),
        st.sampled_from("vw"),
        st.integers(0, 4).map(float),
        st.sampled_from(["ocr", "subtitle"]),
        st.sampled_from("abc"),
        st.floats(0, 1),
    ),
    max_size=10,
)


@given(rankings=st.lists(lines, min_size=1, max_size=3))
def test_lines_are_fused_by_rank(rankings):
    """A line that a ranking names twice counts twice; the first one stands for all of its name."""
    scores: defaultdict[tuple[float, str, str, str], float] = defaultdict(float)
    first: dict[tuple[float, str, str, str], RankedLine] = {}
    for ranking in rankings:
        for rank, one in enumerate(ranking, start=1):
            name = (one.line.start, one.line.kind, one.line.text, one.line.video_id)
            scores[name] += 1 / (60.0 + rank)
            first.setdefault(name, one)
    expected = [first[name] for name in sorted(scores, key=lambda name: (-scores[name], name))]
    fused = fuse_ranked(rankings, lambda one: name_of(one.line))
    assert [id(one) for one in fused] == [id(one) for one in expected]


def test_lines_of_several_films_have_their_names():
    line = TextLine("v", 65.0, 66.0, "ocr", "to <let>", 65.0)
    assert prompt_line(line) == "[01:05] on screen: to  let \n"
    titles = {"v": VideoTitle("a|b.mp4"), "w": VideoTitle("c.mp4")}
    assert prompt_line(line, titles) == "[a b.mp4 01:05] on screen: to  let \n"

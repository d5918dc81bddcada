"""Which lines of a video belong to a question."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from encoders.text.lines import TextLine
from memory.text.bm25 import RankedLine
from pipeline.answer.text_evidence import _fused

lines = st.lists(
    st.builds(
        lambda start, kind, text, score: RankedLine(
            TextLine("v", start, start + 1, kind, text, start), score, 1.0, start, start + 1
        ),
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
    scores: defaultdict[tuple[float, str, str], float] = defaultdict(float)
    first: dict[tuple[float, str, str], RankedLine] = {}
    for ranking in rankings:
        for rank, one in enumerate(ranking, start=1):
            name = (one.line.start, one.line.kind, one.line.text)
            scores[name] += 1 / (60.0 + rank)
            first.setdefault(name, one)
    expected = [first[name] for name in sorted(scores, key=lambda name: (-scores[name], name))]
    assert [id(one) for one in _fused(*rankings)] == [id(one) for one in expected]

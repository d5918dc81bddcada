"""Scores of spans: worked examples, and random spans against masks of seconds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.errors import UserError
from pipeline.schema import Basis
from pipeline.scorers.citation_f1 import CitationF1
from pipeline.scorers.evidence_recall import EvidenceRecall
from pipeline.scorers.schema import AnsweredQuestion, Scorer
from pipeline.scorers.spans import Span, common, iou, length, union
from pipeline.scorers.statement_citation import StatementCitation
from pipeline.scorers.temporal_iou import TemporalIoU

EVIDENCE = ((10.0, 20.0), (40.0, 50.0))


def numbers(scorer: Scorer, **fields: object) -> dict[str, float]:
    question = AnsweredQuestion("1", "v", "q", "a", **({"evidence": EVIDENCE} | fields))  # type: ignore[arg-type]
    return dict(scorer([question])[0].numbers)


SPANS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 12)).map(
        lambda one: (float(one[0]), float(one[0] + one[1]))
    ),
    max_size=5,
)


def mask(spans: list[Span]) -> np.ndarray:
    """[80] bool: for each second whether a span has it."""
    seconds = np.zeros(80, bool)
    for start, end in spans:
        seconds[int(start) : int(end)] = True
    return seconds


@settings(max_examples=60, deadline=None)
@given(SPANS, SPANS)
def test_whole_seconds_are_counted_as_masks_count_them(one, other):
    own, theirs = mask(one), mask(other)
    assert length(one) == own.sum() and length(union(one)) == own.sum()
    assert common(one, other) == (own & theirs).sum()
    either = (own | theirs).sum()
    assert iou(one, other) == pytest.approx((own & theirs).sum() / either if either else 0)
    if theirs.any():  # precision, recall and F1 of sklearn's kind, over seconds
        found = numbers(CitationF1(unit="seconds"), cited=tuple(one), evidence=tuple(other))
        hits = (own & theirs).sum()
        precision = hits / own.sum() if own.any() else 0
        recall = hits / theirs.sum()
        assert found["precision"] == pytest.approx(precision)
        assert found["recall"] == pytest.approx(recall)
        total = own.sum() + theirs.sum()
        assert found["f1"] == pytest.approx(2 * hits / total)
        covered = numbers(EvidenceRecall(), cited=tuple(one), evidence=tuple(other))["cited"]
        assert covered == pytest.approx(recall)


def test_citations_as_l_citeeval_counts_them():
    """Three citations, two of them right, and one of two pieces of evidence found."""
    cited = ((12.0, 14.0), (18.0, 22.0), (30.0, 31.0))
    found = numbers(CitationF1(unit="spans"), cited=cited)
    assert found == pytest.approx({"precision": 2 / 3, "recall": 0.5, "f1": 4 / 7})
    assert set(numbers(CitationF1(unit="spans")).values()) == {0.0}  # cites nothing
    whole_film = ((0.0, 3600.0),)
    assert set(numbers(CitationF1(unit="spans"), cited=whole_film).values()) == {1.0}
    in_seconds = numbers(CitationF1(unit="seconds"), cited=whole_film)
    assert in_seconds["recall"] == 1 and in_seconds["precision"] == pytest.approx(20 / 3600)
    # neighbours share no time
    assert set(numbers(CitationF1(unit="spans"), cited=((20.0, 40.0),)).values()) == {0.0}


def test_statements_as_longcite_counts_them():
    """Four statements: two supported, one cites elsewhere, one cites nothing."""
    basis = (
        Basis("He enters.", ((11.0, 12.0),)),
        Basis("He sits.", ((15.0, 16.0), (60.0, 61.0))),
        Basis("It rains.", ((30.0, 32.0),)),
        Basis("So it ends.", ()),
    )
    found = numbers(StatementCitation(), basis=basis, cited=((0.0, 1.0),))
    assert found == pytest.approx({"precision": 0.5, "recall": 0.5, "f1": 0.5})
    alone = numbers(StatementCitation(), cited=((12.0, 14.0), (30.0, 31.0)))
    assert alone == pytest.approx({"precision": 0.5, "recall": 1.0, "f1": 2 / 3})


def test_the_best_span_against_the_part_that_fits_it():
    scorer = TemporalIoU(pick="best", thresholds=[0.3, 0.5, 0.7])
    found = numbers(scorer, best=(44.0, 50.0), cited=((0.0, 5.0), (44.0, 50.0)))
    assert found == {"mean": 0.6, "at_0.3": 1.0, "at_0.5": 1.0, "at_0.7": 0.0}
    assert set(numbers(scorer).values()) == {0.0}


def test_sets_of_spans_and_what_was_read():
    cited, recalled = ((15.0, 20.0), (40.0, 45.0)), ((0.0, 50.0),)
    both = {"cited": cited, "recalled": recalled}
    assert numbers(TemporalIoU(pick="all", thresholds=[0.5]), **both) == {"mean": 0.5, "at_0.5": 1}
    assert numbers(TemporalIoU(pick="recalled", thresholds=[]), **both) == {"mean": 20 / 50}
    assert numbers(EvidenceRecall(), **both) == {"recalled": 1.0, "cited": 0.5}


def test_evidence_of_moments_is_covered_moment_by_moment():
    moments = ((5.0, 5.0), (9.0, 9.0))
    found = numbers(
        EvidenceRecall(), evidence=moments, cited=((4.0, 6.0),), recalled=((0.0, 20.0),)
    )
    assert found == {"recalled": 1.0, "cited": 0.5}


@pytest.mark.parametrize("spans", [((3.0, 1.0),), ((-1.0, 1.0),), ((0.0, float("inf")),)])
def test_spans_that_are_none_are_refused(spans):
    with pytest.raises(UserError, match="is no start and end in seconds"):
        AnsweredQuestion("1", "v", "q", "a", evidence=spans)


def test_settings_that_cannot_work():
    with pytest.raises(UserError, match="pick=nix"):
        TemporalIoU(pick="nix", thresholds=[])
    with pytest.raises(UserError, match=r"thresholds=\[30\]"):
        TemporalIoU(pick="all", thresholds=[30])
    with pytest.raises(UserError, match="unit=nix"):
        CitationF1(unit="nix")

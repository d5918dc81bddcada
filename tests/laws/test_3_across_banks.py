"""Law 3 over several films and several banks: what comes after the moment, in any film of any bank,
changes no search of `find` and no evidence of `ask`.
"""

from pathlib import Path

import pytest

from memory.bank import MemoryBank
from memory.retrieval.clip import ClipRetriever
from memory.retrieval.fused import FusedRetriever
from memory.schema import Question
from memory.union.bank_union import open_banks
from pipeline.moments.finder import Finder
from tests.support.banks import PROVENANCE, opened
from tests.support.records import Words, make_video, same, write_video
from tests.support.text_blocks import block, line

T = 11.5  # the last frame before is the last of a segment of four
FILMS = {"first": ("a", "c"), "second": ("b", "d")}
SAID = {"a": "the harbour", "b": "bread and salt", "c": "a needle of granite", "d": "the needle"}


def fill(bank: MemoryBank, films: tuple[str, ...], end: float) -> None:
    """The films up to a second; the needle of `d` comes after T, that of `b` before."""
    for name in films:
        video = make_video(name, segments=5, needle={"b": 6, "d": 14}.get(name))
        write_video(bank, [segment for segment in video if segment.end <= end])
        lines = [
            line(1, SAID[name], name),
            line(6, "nothing of it", name),
            line(13, f"later the needle, {SAID[name]}", name),
            line(16, "needle needle needle", name),
        ]
        known = [each for each in lines if each.known <= end]
        bank.text.write(block(0, *known, video_id=name, last=True))


def pictures() -> FusedRetriever:
    return FusedRetriever({"picture": lambda **_: ClipRetriever(embedder=Words())})


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("banks")
    for kind, end in (("whole", 20.0), ("until", 12.0)):
        with opened(root / kind / "one") as one:
            for name, films in FILMS.items():
                fill(one, films, end)
                with opened(root / kind / name) as bank:
                    fill(bank, films, end)
    return root


@pytest.mark.parametrize("banks", [("one",), ("first", "second")])
def test_a_search_at_a_moment_is_that_of_banks_that_end_there(root, banks):
    for films in (tuple("abcd"), ("d", "b"), ("d",)):
        found = []
        for kind in ("whole", "until"):
            roots = [root / kind / name for name in banks]
            with open_banks(roots, PROVENANCE, pictures(), recent_frames=1) as bank:
                finder = Finder(bank, ("subtitle", "picture"))
                found.append(finder.find("needle", films, asked_at=T))
        assert found[0] == found[1] and found[0]
        assert {moment.video_id for moment in found[0]} <= set(films)
        assert max(moment.end for moment in found[0]) <= T + 1


@pytest.mark.parametrize("banks", [("one",), ("first", "second")])
def test_evidence_at_moments_is_that_of_banks_that_end_there(root, banks):
    for moments in (dict.fromkeys("abcd", T), {"d": T, "b": T}):
        question = Question("needle", tuple(moments), moments=moments)
        evidence = []
        for kind in ("whole", "until"):
            roots = [root / kind / name for name in banks]
            with open_banks(roots, PROVENANCE, pictures(), recent_frames=1) as bank:
                best = bank.library.best_videos(question, (), 1)
                evidence.append((best, bank.recall(question, read_tokens=20)))
        (one, whole), (other, until) = evidence
        assert one == other == ("b",)
        assert whole.names == until.names and same(whole.runs, until.runs)

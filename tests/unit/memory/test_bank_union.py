"""Two banks together equal one bank that holds both: rankings, evidence bit by bit, lines."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.errors import UserError
from memory.bank import MemoryBank
from memory.retrieval.clip import ClipRetriever
from memory.retrieval.uniform import UniformRetriever
from memory.schema import Question, Retriever
from memory.storage.manifest import WriterLock
from memory.text import tokenizer
from memory.text.bm25 import LineFilter
from memory.union.bank_union import open_banks
from tests.support.banks import PROVENANCE, opened
from tests.support.records import Words, info, make_segment, make_video, same, write_video
from tests.support.retrievers import NAMES, PER_LAYER, built
from tests.support.text_blocks import block, line

FILMS = ("c", "a", "e", "d", "b", "f")  # the first three are in the first bank
TEXTS = (
    "the harbour was rebuilt with granite",
    "bread needs salt",
    "the harbour again and again",
    "a red needle in the harbour",
    "salt and granite",
    "granite bread",
)
MODEL = "made up"
FURTHER = "b32-made-up"  # a second frame embedder


def fill(bank: MemoryBank, films: tuple[str, ...]) -> None:
    for name in films:
        number = sorted(FILMS).index(name)
        write_video(bank, make_video(name, segments=4, needle=6 if name == "d" else None))
        words = (line(1, TEXTS[number], name), line(5, f"{name} speaks of bread", name))
        bank.text.write(block(0, *words, video_id=name, last=True))
        for run, row in list(bank.text.missing_vectors(name)):
            vectors = [Words().embed_text(one.text).numpy() for one in bank.text.lines(run, row)]
            bank.text.write_vectors(run, row, np.stack(vectors), MODEL)
        for segment in bank.catalog.segments(name)[: 3 if name == "e" else 4]:
            texts = (f"{name} {number}" for number in range(segment.first, segment.stop))
            rows = torch.stack([Words().embed_text(text) for text in texts])
            bank.embeddings.write(name, segment.number, FURTHER, rows.half())


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("banks")
    for name, films in (("one", FILMS), ("first", FILMS[:3]), ("second", FILMS[3:])):
        with opened(root / name) as bank:
            fill(bank, films)
    return root


def union(root: Path, retriever: Retriever | None = None, *names: str) -> MemoryBank:
    return open_banks(
        [root / name for name in names or ("first", "second")],
        PROVENANCE,
        retriever or UniformRetriever(),
        recent_frames=2,
    )


@pytest.fixture(params=[*NAMES, PER_LAYER])
def both(root, request) -> Iterator[tuple[MemoryBank, MemoryBank]]:
    with (
        opened(root / "one", built(request.param)) as one,
        union(root, built(request.param)) as two,
    ):
        yield one, two


def test_evidence_is_that_of_one_bank_bit_by_bit(both):
    one, two = both
    assert [row.info for row in one.catalog.videos()] == [r.info for r in two.catalog.videos()]
    for question in (
        Question("needle", "a"),
        Question("needle", "d", 9.0),
        Question("needle", ("b", "c", "d")),
        Question("needle", tuple("abcdef"), moments={"d": 3.5}),
        Question("other", tuple("fedcba"), spans={"c": ((2.0, 5.0),), "d": ((1.0, 3.0),)}),
    ):
        expected, found = (each.recall(question, read_tokens=30) for each in both)
        assert found.names == expected.names and same(found.runs, expected.runs)
        assert found.hits.names == expected.hits.names
        assert torch.equal(found.hits.scores, expected.hits.scores)
        best = [each.library.best_videos(question, (), 2) for each in both]
        assert best[0] == best[1]
        ranked = [each.library.rank_frames(question, 9) for each in both]
        assert ranked[0] == ranked[1]


def test_rows_of_a_second_embedder_are_searched_in_both(root):
    """Also those of a film of which one segment has none."""
    with (
        opened(root / "one", ClipRetriever(embedder=Words(), rows=FURTHER)) as one,
        union(root, ClipRetriever(embedder=Words(), rows=FURTHER)) as two,
    ):
        for text, video_id in (("d 6", "d"), ("e 2", "e"), ("c 0", "c")):
            question = Question(text, tuple("fedcba"))
            ranked = [each.library.rank_frames(question, 9) for each in (one, two)]
            assert ranked[0] == ranked[1] and ranked[1][0].video_id == video_id
            hits = [each.recall(question, read_tokens=30).hits for each in (one, two)]
            assert hits[0].names == hits[1].names
            assert torch.equal(hits[0].scores, hits[1].scores)
        assert one.embeddings.nbytes("e") == two.embeddings.nbytes("e")


@pytest.mark.parametrize(
    "limits",
    [
        LineFilter(),
        LineFilter("d"),
        LineFilter(asked_at=4.0),
        LineFilter(within={"a": (0.0, 9.0), "d": (0.0, 9.0)}, moments={"a": 9.0, "d": 4.0}),
        LineFilter(kinds=("subtitle",), start=0.5, end=4.0),
    ],
)
def test_lines_have_the_scores_of_one_bank(root, limits):
    query = tokenizer.query("bread in the harbour, with salt")
    vector = Words().embed_text(TEXTS[0]).numpy()
    with opened(root / "one") as one, union(root) as two:
        ranked = [each.text.search(query, limits) for each in (one, two)]
        assert ranked[0] == ranked[1] and ranked[0]
        near = [each.text.nearest(vector, limits, 5, -1.0) for each in (one, two)]
        assert near[0] == near[1] and near[0]
        assert one.text.count_vectors() == two.text.count_vectors() == (12, 12)
        assert one.text.during("d", 0, 9) == two.text.during("d", 0, 9)
        assert one.text.vectors("d").keys() == two.text.vectors("d").keys()
        assert two.text.has_vectors and not list(two.text.missing_vectors("d"))
        with pytest.raises(UserError, match="by another model"):
            two.text.refuse_other_vectors("another")


def test_a_video_of_both_banks_comes_from_the_first_alone(root, tmp_path):
    with opened(tmp_path / "again") as bank:
        fill(bank, ("d",))
        write_video(bank, make_video("g", segments=2))
        bank.text.drop("d", "subtitles")
        other = replace(line(1, "nobody sees the harbour here"), video_id="d")
        bank.text.write(block(0, other, video_id="d", last=True))
    roots = [root / "second", tmp_path / "again"]
    query = tokenizer.query("nobody harbour")
    with open_banks(roots, None, built("clip"), recent_frames=2) as two:
        assert [row.info.video_id for row in two.catalog.videos()] == list("bdfg")
        found = two.text.search(query, LineFilter())
        assert found and all("nobody" not in one.line.text for one in found)
        near = two.text.nearest(Words().embed_text(other.text).numpy(), LineFilter(), 9, -1.0)
        assert {one.line.text for one in near}.isdisjoint({other.text})
        assert two.text.count_vectors() == (6, 6)
        with union(root, built("clip"), "second") as alone:
            question = Question("needle", ("b", "d"))
            parts = [each.recall(question, read_tokens=30) for each in (two, alone)]
            assert parts[0].names == parts[1].names and same(parts[0].runs, parts[1].runs)


def test_another_process_may_write_to_one_of_them(root, tmp_path):
    with opened(tmp_path / "growing") as bank:
        write_video(bank, make_video("g", segments=2))
    roots = [root / "first", tmp_path / "growing"]
    with open_banks(roots, None, built("fused"), recent_frames=2) as two:
        question = Question("needle", ("a", "g"))
        assert two.library.best_videos(question, (), 1) in (("a",), ("g",))
        assert "h" not in [row.info.video_id for row in two.catalog.videos()]
        with opened(tmp_path / "growing") as writer:
            writer.write(make_segment("g", 2, needle=1))
            write_video(writer, make_video("h", segments=1))
            assert two.library.best_videos(question, (), 1) == ("g",)
            assert two.recall(question, read_tokens=12).hits.names[0] == ("g", 9)
            assert "h" in [row.info.video_id for row in two.catalog.videos()]
        with pytest.raises(UserError, match="growing are read as one, and nothing is written"):
            two.record_video(info("z"), 1.0, finished=False)
        lock = WriterLock(tmp_path / "growing")  # the union holds none
        lock.release()


def test_findings_stay_in_the_bank_of_their_video(root):
    with union(root) as two:
        rows = two.catalog.segments("d")
        two.findings.write("d", "asked", 0, rows, [line(1, "a needle", "d", "finding")])
        assert len(two.findings.read("d", "asked", 0, rows) or ()) == 1
    assert list((root / "second" / "findings").rglob("*.jsonl"))
    with opened(root / "second") as bank:
        assert bank.findings.read("d", "asked", 0, bank.catalog.segments("d")) is not None


def test_frames_of_equal_embeddings_come_in_the_order_of_their_videos(tmp_path):
    """Whatever the order in which films were added, and in which bank each is."""
    video = make_video("a", segments=2)
    for folder, names in (("one", "abcd"), ("two", "dcba"), ("left", "db"), ("right", "ca")):
        with opened(tmp_path / folder) as bank:
            for name in names:
                write_video(bank, [replace(each, video_id=name) for each in video])
    question = Question("needle", tuple("abcd"))
    ranked = []
    for roots in (["one"], ["two"], ["left", "right"]):
        with union(tmp_path, built("clip"), *roots) as bank:
            ranked.append(bank.library.rank_frames(question, 7))
    assert ranked[0] == ranked[1] == ranked[2] and ranked[0]
    assert [one.video_id for one in ranked[0][:4]] == list("abcd")


def test_banks_that_do_not_fit_together_are_one_sentence(root, tmp_path):
    with opened(tmp_path / "other") as bank:
        write_video(bank, make_video("z", segments=1))
    other = PROVENANCE | {"model": "another", "fps": 2.0}
    with MemoryBank.open(tmp_path / "another", other, UniformRetriever(), recent_frames=1):
        pass
    for roots, words in (
        (["first", "first"], "is named twice; name each bank once"),
        (["first", str(tmp_path / "none")], "there is no bank at"),
        (["first", str(tmp_path / "another")],
         rf"was made with fps=1.0 \({tmp_path}/another: 2.0\), model=m \({tmp_path}/another: "),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            union(root, None, *roots)
    with pytest.raises(UserError, match=r"model=m \(this run: another\)"):
        open_banks([root / "first", root / "second"], other, UniformRetriever(), recent_frames=1)


def test_a_search_of_stretches_names_no_video_of_neither(root):
    with union(root, built("clip")) as two, pytest.raises(UserError, match="not in bank"):
        two.recall(Question("needle", "nowhere"), read_tokens=9)

"""Several questions at once: each is answered as if alone, and a bad one stops no other."""

import gc

import pytest

from encoders.errors import UserError
from memory.schema import Question
from pipeline.query.batched import BatchedQueries
from tests.support import banks
from tests.support import qa as toy_qa
from tests.support.banks import ordinals
from tests.support.records import make_video, same, write_video
from tests.support.retrievers import NEEDLE, built
from tests.support.toys import toy_backbone
from tests.support.videos import write_video as write_film


def test_several_questions_recall_what_each_recalls(tmp_path):
    asked = [
        NEEDLE,
        Question("other", "v"),
        Question("third", "v", asked_at=6.5),
        Question("needle", "v", asked_at=-1.0),
    ]
    with banks.opened(tmp_path, built("fused"), recent_frames=2) as bank:
        write_video(bank, make_video(segments=8, needle=10))
        alone = [bank.recall(question, read_tokens=20) for question in asked]
        counted: list[int] = []
        read = bank._frames.tiers.take
        bank._frames.tiers.take = lambda keys, *rest: counted.append(len(keys)) or read(keys, *rest)
        group = bank.recall_all(asked, read_tokens=20)
        assert [ordinals(one) for one in group] == [ordinals(one) for one in alone]
        assert all(
            same(a.runs, b.runs) and same(a.hits, b.hits) for a, b in zip(group, alone, strict=True)
        )
        assert max(ordinals(group[2])) <= 6 and not ordinals(group[3])
        union = set().union(*map(ordinals, group))
        assert counted == [len(union)] and len(union) < sum(map(len, map(ordinals, group)))


def test_frames_of_a_group_stay_until_the_last_of_it_is_let_go(tmp_path):
    with banks.opened(tmp_path, built("fused")) as bank:
        write_video(bank, make_video(segments=8, needle=10))
        group = bank.recall_all([NEEDLE, Question("other", "v")], read_tokens=20)

        def pins() -> set[int]:
            gc.collect()
            assert bank.in_memory()["ram"] > 0  # settles what was let go
            return {held.pins for held in bank._frames.tiers.ram._frames.values()}

        assert pins() == {1}
        group.pop()
        assert pins() == {1}
        group.pop()
        assert pins() == {0}


TEXTS = ("What is the code on the card?", "Which shape is red?", "How many stars appeared?")


@pytest.mark.parametrize("reader", ["kv", "tokens"])
def test_answers_are_those_of_one_at_a_time_and_errors_stay_with_their_question(tmp_path, reader):
    film = tmp_path / "a.mp4"
    write_film(film, 20, 5)
    with toy_qa.opened(
        film, tmp_path / "bank", f"reader={reader}", "retriever=fused", "read_tokens=40"
    ) as (qa, source):
        video = source.info.video_id
        qa.ingest(source)
        asked = [Question(text, video) for text in TEXTS] + [
            Question(TEXTS[0], video, asked_at=9.0)
        ]
        alone = [qa.ask(question) for question in asked]
        bad = [
            Question(" ", video),
            Question(TEXTS[0], "nobody"),
            Question(TEXTS[0], video, asked_at=-1.0),
        ]
        mixed = [asked[0], bad[0], asked[1], bad[1], asked[2], bad[2], asked[3]]
        found = qa.ask_all(mixed)
        answers = [answer for answer in found if not isinstance(answer, UserError)]
        assert [(a.text, a.spans, a.frames_read, a.asked_at) for a in answers] == [
            (a.text, a.spans, a.frames_read, a.asked_at) for a in alone
        ]
        assert all(a.seconds["total"] > 0 and "search" in a.seconds for a in answers)
        errors = [str(found[number]) for number in (1, 3, 5)]
        assert (
            "empty" in errors[0] and "nobody" in errors[1] and "before the first frame" in errors[2]
        )
        assert (
            all(isinstance(answer, UserError) for answer in qa.ask_all(bad))
            and qa.ask_all([]) == []
        )


def test_what_is_searched_for_is_prepared(tmp_path):
    """Not what the model reads, where that differs."""
    film = tmp_path / "a.mp4"
    write_film(film, 4, 2)
    with toy_qa.opened(film, tmp_path / "bank", "retriever=clip") as (qa, source):
        video = source.info.video_id
        qa.ingest(source)
        asked = [Question(f"What is said of it? {text}", video, query=text) for text in TEXTS]
        calls: list[list[str]] = []
        for query in qa.answerer.queries:
            embed = query._embed
            query._embed = lambda texts, embed=embed: calls.append(list(texts)) or embed(texts)
        qa.answerer.recall_all(asked)
        assert calls == [list(TEXTS)]


def test_texts_that_are_prepared_are_computed_once_and_together():
    calls: list[list[str]] = []

    def of_all(texts):
        calls.append(list(texts))
        return toy_backbone().language_model.queries_of(texts)

    queries = BatchedQueries(of_all)
    with queries.prepared([*TEXTS, TEXTS[0]]):
        assert not calls  # nobody has asked yet
        first, again = queries(TEXTS[0]), queries(TEXTS[0])
        queries(TEXTS[2]), queries("another")
    assert calls == [list(TEXTS), ["another"]] and same(first, again)
    queries(TEXTS[0])
    assert calls[2:] == [[TEXTS[0]]]  # forgotten

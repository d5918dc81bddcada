"""Law 6, bounded: no answer reads more visual tokens than read_tokens, whatever the length."""

import pytest

from tests.support.qa import ask, opened
from tests.support.toys import FRAME_TOKENS


@pytest.mark.parametrize("reader", ["kv", "tokens"])
@pytest.mark.parametrize("budget", [4, 23, 40])
def test_no_answer_reads_more_than_its_budget(film, long_film, tmp_path_factory, reader, budget):
    banks = tmp_path_factory.getbasetemp() / "bounded"
    for path, seconds in ((film, 20), (long_film, 42)):
        options = (f"read_tokens={budget}", "recent_frames=3", f"reader={reader}")
        with opened(path, banks / path.stem, *options) as (qa, source):
            qa.ingest(source)
            answer = ask(qa, source)
            assert answer["visual_tokens"] == budget // FRAME_TOKENS * FRAME_TOKENS
            assert answer["frames_read"] == budget // FRAME_TOKENS < seconds
            assert len(answer["cited"]) <= answer["frames_read"]


@pytest.mark.parametrize("options", [("resolution.ratio=4",), ("resolution=high_low",)])
def test_pooled_frames_keep_the_budget(film, long_film, tmp_path_factory, options):
    """The banks of the test above; pooled frames are more of them, in the same tokens."""
    banks = tmp_path_factory.getbasetemp() / "bounded"
    with opened(
        long_film, banks / long_film.stem, "read_tokens=20", "recent_frames=3", "reader=tokens",
        *options,
    ) as (qa, source):  # fmt: skip
        qa.ingest(source)
        answer = ask(qa, source)
        assert 20 // FRAME_TOKENS < answer["frames_read"] <= answer["visual_tokens"] <= 20
        cited = {frame["time"] for frame in answer["cited"]}
        read = [a <= time < b for time in cited for a, b in answer["recalled"]]
        assert cited and sum(read) == len(cited)


def test_per_layer_recall_keeps_the_budget(long_film, tmp_path_factory):
    bank = tmp_path_factory.getbasetemp() / "bounded" / "per-layer"
    with opened(long_film, bank, "retriever=kv", "retriever.per_layer=true", "read_tokens=40") as (
        qa,
        source,
    ):
        qa.ingest(source)
        assert 0 < ask(qa, source)["visual_tokens"] <= 40

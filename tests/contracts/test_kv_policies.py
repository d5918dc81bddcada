"""The contract of every option in conf/kv_policy/: with everything kept nothing changes, the same
numbers twice, and what comes later changes nothing."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor

from encoders.schema import FrameSource, KVBlock
from memory.schema import Question
from pipeline.answer.schema import local
from tests.support.kv_policies import saved_codebook, toy_settings
from tests.support.paths import ROOT
from tests.support.qa import TEXT, opened
from tests.support.records import files
from tests.support.videos import write_video

OPTIONS = sorted(path.stem for path in (ROOT / "conf" / "kv_policy").glob("*.yaml"))
# whatever their settings, but for rounding
LOSSLESS = frozenset({"none", "guessed_tokens", "host_part"})
UP_TO_ROUNDING = frozenset({"low_rank_keys"})
SECONDS, EARLY = 10, 6
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_video(path, SECONDS, 5)
    return path


def answered(film: Path, bank: Path, *overrides: str, until: int | None = None) -> list[Tensor]:
    """The logits of a question about the whole film, and about its beginning. until: the number of
    the last segment that is encoded."""
    with opened(film, bank, "segmenter.seconds=2", *overrides) as (qa, opened_film):
        source = cast(FrameSource, opened_film)
        qa.ingest(source, until=until)
        reader = local(qa.answerer.reader, "the contract")
        found = []
        for moment in (SECONDS, EARLY):
            asked = Question(TEXT, source.info.video_id, moment - 0.5)
            evidence = qa.bank.recall(asked, read_tokens=1000)
            found.append(reader.logits(evidence, lambda stage: nullcontext()))
        return found


def blocks_of(film: Path, bank: Path, *overrides: str) -> list[KVBlock]:
    with opened(film, bank, "segmenter.seconds=2", *overrides) as (qa, _):
        catalog = qa.bank.catalog
        (video,) = catalog.videos()
        video_id = video.info.video_id
        kept = [catalog.read_segment(video_id, row.number).kv for row in catalog.segments(video_id)]
    return [block for block in kept if block is not None]


def everything_kept(option: str, blocks: Sequence[KVBlock]) -> list[str]:
    """The settings with which an option loses nothing of these blocks."""
    if option == "product_quantization":
        width = blocks[0].keys.shape[-1]
        return [f"kv_policy.codebook={saved_codebook(list(blocks), width=width, bits=8)}"]
    if option in ("head_split", "streaming_heads", "frame_means"):
        return [*toy_settings(option), "kv_policy.share=1"]
    if option == "token_pruning":
        return ["kv_policy.share=1"]
    if option == "eviction":
        return ["kv_policy.budget_share=1"]
    if option == "low_rank_keys":
        return ["kv_policy.loss=0"]
    return []  # none, host_part of a large device, and span_profile without a profile


@pytest.mark.parametrize("option", OPTIONS)
def test_with_everything_kept_nothing_changes(film, tmp_path, option):
    # what is equal but for rounding is compared where rounding is small
    exact = () if option not in UP_TO_ROUNDING else ("prefill.dtype=float32",)
    plain = answered(film, tmp_path / "plain", *exact)
    settings = everything_kept(option, blocks_of(film, tmp_path / "plain", *exact))
    kept = answered(film, tmp_path / "kept", f"kv_policy={option}", *settings, *exact)
    for a, b in zip(plain, kept, strict=True):
        assert torch.allclose(a, b, atol=1e-4) if exact else torch.equal(a, b)
    if exact:
        plain = answered(film, tmp_path / "usual")
    lossy = answered(film, tmp_path / "lossy", f"kv_policy={option}", *toy_settings(option))
    assert torch.equal(plain[0], lossy[0]) == (option in ("none", "guessed_tokens"))
    assert torch.allclose(plain[0], lossy[0], atol=1e-4) == (option in LOSSLESS)


@pytest.mark.parametrize("option", OPTIONS)
def test_the_same_twice_and_what_comes_later_changes_nothing(film, tmp_path, option):
    settings = [f"kv_policy={option}", *toy_settings(option)]
    one = answered(film, tmp_path / "one", *settings)
    other = answered(film, tmp_path / "other", *settings)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert files(tmp_path / "one") == files(tmp_path / "other")
    early = answered(film, tmp_path / "early", *settings, until=EARLY // 2 - 1)
    assert torch.equal(early[1], one[1])

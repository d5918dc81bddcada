"""Policies from their files: which heads read what, and what is refused."""

import json
from pathlib import Path

import pytest
import torch

from encoders.errors import UserError
from encoders.models.eviction.accumulated_attention import AccumulatedAttention
from encoders.models.eviction.schema import EvictionScore
from encoders.models.kv_cache import KVShape
from encoders.schema import KVBlock
from memory.storage.segments.codebook import Codebook
from pipeline.build import _refuse_other_codebook
from pipeline.config.parts import call, check, instantiate
from pipeline.evaluation.profiles.kv_codebook import some_tokens
from pipeline.kv_policy.eviction import Eviction
from pipeline.kv_policy.frame_means import FrameMeans
from pipeline.kv_policy.head_profile import HeadProfile
from pipeline.kv_policy.head_split import HeadSplit
from pipeline.kv_policy.host_part import HostPart
from pipeline.kv_policy.low_rank_keys import LowRankKeys
from pipeline.kv_policy.no_policy import NoPolicy
from pipeline.kv_policy.product_quantization import ProductQuantization
from pipeline.kv_policy.schema import stores_otherwise
from pipeline.kv_policy.span_profile import SpanProfile
from pipeline.kv_policy.streaming_heads import StreamingHeads
from tests.support.kv_policies import saved_codebook, toy_codebook, toy_profile, toy_spans
from tests.support.toys import toy_backbone

SHAPE = KVShape(2, 2, 4)


def written(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_a_kv_head_has_the_score_of_its_best_query_head(tmp_path):
    scores = written(tmp_path / "a", {"scores": [[0.1, 0.9, 0.3, 0.2], [0.4, 0.4, 0.4, 0.5]]})
    profile = HeadProfile.read(scores, SHAPE)
    torch.testing.assert_close(profile.scores, torch.tensor([[0.9, 0.3], [0.4, 0.5]]))
    gates = written(tmp_path / "b", {"gates": [[1.0, 0.0], [0.5, 0.5]]})
    profile = HeadProfile.read(gates, SHAPE)
    # of equal gates, the earlier head; shares are rounded up
    assert profile.best(0.5).tolist() == [[True, False], [True, False]]
    assert [int(profile.best(share).sum()) for share in (0, 0.1, 0.25, 0.5, 1)] == [0, 1, 1, 2, 4]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"scores": [[0.1, 0.2]]}, "1 layers of 2 heads"),
        ({"gates": [[0.1] * 4, [0.2] * 4]}, "2 layers of 4 heads"),
        ({"scores": [[0.1, None], [0.1, 0.2]]}, "cannot be read as a profile"),
        ({"heads": []}, "cannot be read as a profile"),
    ],
)
def test_a_profile_that_does_not_fit_is_told(tmp_path, content, words):
    with pytest.raises(UserError, match=words):
        HeadProfile.read(written(tmp_path / "a", content), SHAPE)


def test_the_others_read_a_window_that_grows_with_the_context():
    """The toy's second KV heads lead: 3 of 6."""
    split = HeadSplit(toy_backbone(), profile=str(toy_profile()), window=10, window_share=0.25)
    for context, window in ((20, 10), (80, 20)):
        spans = split.context_attention(context, sink=4)
        assert spans.spans.tolist() == [[window, context]] * 3 and spans.compensates
    assert split.reads_otherwise and split.codebook is None
    assert "head_split 010101" in split.settings
    dropping = StreamingHeads(toy_backbone(), profile=str(toy_profile()))
    assert not dropping.context_attention(20, 4).compensates and dropping.settings != split.settings


def test_the_best_heads_are_stored_whole():
    """The toy's second KV heads lead, and a share is rounded up."""
    for share, told in ((0.5, "01.01.01"), (0.1, "01.00.00"), (1.0, "11.11.11")):
        policy = FrameMeans(toy_backbone(), profile=str(toy_profile()), share=share)
        assert str(policy.heads) == told and policy.stores and not policy.reads_otherwise
    with pytest.raises(UserError, match="share=0 stores no head whole"):
        FrameMeans(toy_backbone(), profile=str(toy_profile()), share=0)


def test_spans_are_evaluated_at_the_length_of_the_context():
    policy = SpanProfile(toy_backbone(), profile=str(toy_spans()))
    assert policy.context_attention(40, 4).spans.tolist() == [[5, 22]] * 3
    assert policy.context_attention(2, 1).spans.tolist() == [[2, 2]] * 3  # never beyond it
    everything = SpanProfile(toy_backbone())
    assert everything.context_attention(40, 4).spans.tolist() == [[40, 40]] * 3
    assert NoPolicy(toy_backbone()).context_attention(40, 4) is None


def test_budgets_grow_with_the_context_and_a_host_holds_what_a_device_does_not():
    eviction = Eviction(toy_backbone(), score=AccumulatedAttention(), budget=10, budget_share=0.25)
    assert [eviction.context_attention(n, 4).budget for n in (20, 80)] == [10, 20]
    assert eviction.reads_otherwise and not eviction.stores
    assert eviction.settings == "eviction accumulated_attention 10 0.25 256"
    host = HostPart(toy_backbone(), device_tokens=10)
    assert [host.host_tokens(context, 4) for context in (9, 14, 20)] == [0, 0, 6]
    assert LowRankKeys(toy_backbone(), loss=0).key_loss == 0.0


def test_an_outside_scorer_is_named_by_its_class():
    node = {"_target_": f"{Longest.__module__}.Longest"}
    policy = {"_target_": f"{Eviction.__module__}.Eviction", "_partial_": True, "score": node}
    check("kv_policy", policy)
    made = call("kv_policy", instantiate("kv_policy", policy), backbone=toy_backbone())
    assert made.settings == "eviction longest 128 0.5 256"


class Longest(EvictionScore):
    """A scorer that somebody else wrote: long keys stay."""

    settings = "longest"

    def __call__(self, shares, keys, values, layer):
        return keys.norm(dim=2)


def test_mistakes_are_told(tmp_path):
    backbone = toy_backbone()
    heavy = AccumulatedAttention()
    for make, words in (
        (lambda: Eviction(backbone, score=heavy, budget=-1), "kv_policy.budget=-1 .*too small"),
        (lambda: Eviction(backbone, score=heavy, chunk=0), "kv_policy.chunk=0 is too small"),
        (lambda: Eviction(backbone, score=heavy, budget_share=2.0), "budget_share=2.0 is no share"),
        (lambda: HostPart(backbone, device_tokens=-1), "device_tokens=-1 is negative"),
        (lambda: LowRankKeys(backbone, loss=1.0), "kv_policy.loss=1.0 is no share of the keys"),
    ):
        with pytest.raises(UserError, match=words):
            make()
    for settings, words in (
        ({"share": 1.5}, r"kv_policy.share=1.5 is no share"),
        ({"window_share": -1.0}, r"kv_policy.window_share=-1.0 is no share"),
        ({"window": -1}, r"kv_policy.window=-1 is negative"),
        ({}, r"has no retrieval_heads.json; make one with .*retrieval_heads`"),
    ):
        with pytest.raises(UserError, match=words):
            HeadSplit(backbone, **settings)
    with pytest.raises(UserError, match=r"has no head_gates.json; make one with .*head_gates`"):
        StreamingHeads(backbone)
    spans = written(tmp_path / "spans", {"spans": [[[1, 2]]]})
    with pytest.raises(UserError, match=r"cannot be read as spans of heads .*\(3, 2, 2\)"):
        SpanProfile(backbone, profile=str(spans))
    with pytest.raises(UserError, match=r"has no kv.codebook; make one"):
        ProductQuantization(backbone)
    with pytest.raises(UserError, match=r"spans cannot be read as a codebook"):
        ProductQuantization(backbone, codebook=str(spans))
    small = torch.zeros(1, 1, 4, 4)
    other = saved_codebook([KVBlock(small, small, torch.tensor([0, 4]))], width=2, bits=1)
    with pytest.raises(UserError, match=r"width\) \(1, 1, 4\), and .* has \(3, 2, 16\)"):
        ProductQuantization(backbone, codebook=str(other))


def test_a_codebook_of_other_weights_is_refused():
    book = ProductQuantization(toy_backbone(), codebook=str(toy_codebook())).codebook
    assert book is not None and book.model == ""
    _refuse_other_codebook(book, "ab12")  # of any model
    own = Codebook(book.keys, book.values, "ab12")
    _refuse_other_codebook(own, "ab12-no-time-tags")
    with pytest.raises(UserError, match="weights ab12, and this one has cd34"):
        _refuse_other_codebook(own, "cd34")
    assert own.digest != book.digest


def test_only_what_is_stored_otherwise_makes_another_bank():
    package = "pipeline.kv_policy"
    assert stores_otherwise({"_target_": f"{package}.product_quantization.ProductQuantization"})
    for name in ("no_policy.NoPolicy", "head_split.HeadSplit", "span_profile.SpanProfile"):
        assert not stores_otherwise({"_target_": f"{package}.{name}"})


def test_calibration_takes_evenly_spaced_tokens():
    keys = torch.arange(10.0).reshape(1, 1, 10, 1)
    blocks = [
        KVBlock(part, part, torch.tensor([0, 5])) for part in (keys[:, :, :5], keys[:, :, 5:])
    ]
    assert some_tokens(blocks, 4).keys.flatten().tolist() == [0, 3, 6, 9]
    assert torch.equal(some_tokens(blocks, 50).keys, keys)

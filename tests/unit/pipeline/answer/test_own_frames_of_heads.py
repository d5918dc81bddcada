"""Each query head reads frames of its own: what it attends to, and that all frames are dense."""

import json
from dataclasses import replace

import encoders.models.torchvision_ops  # noqa: F401

import numpy as np
import pytest
import torch

from encoders.errors import UserError
from encoders.prefill import WindowPrefill
from memory.frame_budget import FrameSelection, of_heads
from memory.retrieval.kv import KVRetriever
from memory.schema import Evidence, Hits, Question, Run, SegmentIndex, Stretch
from pipeline.answer.batched_reader import BatchedReader
from pipeline.answer.reader import KVReader, TokenReader
from pipeline.evaluation.question_attention import QuestionAttention, frames_mask
from pipeline.runtime.stage_timer import StageTimer
from tests.support.toys import toy_backbone, toy_frames

TEXT = "In what order did the star and the circle appear?"
FRAMES, LAYERS, HEADS = 6, 3, 4
ALL = torch.arange(FRAMES).expand(LAYERS, HEADS, -1)
# frame h of layer 0, and so on, and the last frame
OWN = torch.stack([torch.arange(LAYERS)[:, None].expand(-1, HEADS), torch.full((LAYERS, HEADS), 5)])
OWN = (OWN + torch.stack([torch.arange(HEADS) % 3, torch.zeros(HEADS).long()])[:, None]).permute(
    1, 2, 0
)


@pytest.fixture(scope="module")
def evidence():
    backbone = toy_backbone()
    seen = backbone.encode_frames(toy_frames(FRAMES))
    block = WindowPrefill(backbone, window_frames=1000)(seen)
    none = Hits(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    return Evidence(Question(TEXT, "toy"), (Run("toy", 0, 0, seen, block),), none, 0, 1.0)


def test_all_frames_of_every_head_are_dense_bit_by_bit(evidence):
    reader = KVReader(toy_backbone())
    timer = StageTimer()
    plain = reader.logits(evidence, timer)
    assert torch.equal(reader.logits(replace(evidence, per_head=ALL), timer), plain)
    own = reader.logits(replace(evidence, per_head=OWN), timer)
    assert not torch.allclose(own, plain, atol=1e-3)
    assert torch.equal(reader.logits(evidence, timer), plain)  # the cache keeps nothing of it


def test_a_head_attends_to_its_own_frames_alone(evidence):
    """The first layer against softmax over the frames of each head; its layers below are dense."""
    reader = KVReader(toy_backbone())
    want = next(QuestionAttention.of(reader, evidence)._outputs(frames_mask(OWN, FRAMES)))
    seen = {}
    layer = reader.language_model._decoder.layers[0].self_attn.o_proj
    hook = layer.register_forward_hook(lambda module, args, out: seen.update(x=args[0]))
    reader.logits(replace(evidence, per_head=OWN), StageTimer())
    hook.remove()
    torch.testing.assert_close(seen["x"][0], want, atol=1e-5, rtol=1e-4)


def test_citations_are_of_the_frames_that_heads_read(evidence):
    """All heads of all layers read frames 1 and 5: the others get no weight."""
    both = torch.tensor([1, 5]).expand(LAYERS, HEADS, -1)
    reader = KVReader(toy_backbone(), max_new_tokens=3)
    limited = replace(evidence, per_head=both)
    weights = reader.read(limited, StageTimer()).weights
    assert {name.ordinal for name, weight in weights.items() if weight > 0} == {1, 5}
    one, two = BatchedReader(reader).read([limited, evidence], StageTimer())
    assert one.weights == weights and two.weights != weights


def test_visual_tokens_have_no_heads(evidence):
    with pytest.raises(UserError, match="per_head=true need reader=kv"):
        TokenReader(toy_backbone()).logits(replace(evidence, per_head=OWN), StageTimer())


# ---- the search

L, H, HQ, DH, T = 2, 2, 6, 8, 12


def retriever(queries: torch.Tensor, means: torch.Tensor, **options) -> KVRetriever:
    made = KVRetriever(queries=lambda text: queries, **options)
    made.add(SegmentIndex("v", 0, 0, torch.arange(float(T)), None, means))
    return made


@pytest.fixture(scope="module")
def drawn():
    generator = torch.Generator().manual_seed(3)
    queries = torch.randn(3, L, HQ, DH, generator=generator)
    return queries, torch.randn(T, L, H * DH, generator=generator).half().float()


def products(queries: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    """[m, L, Hq, T]."""
    keys = means.unflatten(2, (H, DH)).repeat_interleave(HQ // H, 2)
    return torch.einsum("mlhd,tlhd->mlht", queries, keys) * DH**-0.5


def test_each_head_ranks_by_its_own_products(drawn):
    queries, means = drawn
    found = retriever(queries, means, per_head=True, top=2).search(
        Question("x", "v"), 5, [Stretch("v", 0, T)]
    )
    want = products(queries.mean(0, keepdim=True), means)[0].argsort(-1, descending=True)[..., :5]
    assert torch.equal(found.per_head, want)
    assert found.per_layer is None and found.head_frames == 2
    assert len({tuple(head) for layer in found.per_head.tolist() for head in layer}) > 6
    first = set(want[..., 0].flatten().tolist())  # what some head likes best comes first
    assert set(found.frames[: len(first)].tolist()) == first or len(first) > 5
    assert bool((found.scores.diff() <= 0).all())


def test_heads_read_the_newest_their_own_and_what_fills_up():
    selection = FrameSelection(recent=[8, 9], ranked=[3, 0, 5, 1], free_tokens=0)
    rankings = np.array([[5, 3, 7], [9, 1, 0], [7, 6, 4]])
    own = of_heads(selection, rankings, for_all=[0, 7], top=2)
    assert own.tolist() == [[0, 3, 5, 8, 9], [0, 1, 3, 8, 9], [0, 3, 5, 8, 9]]
    everything = of_heads(selection, rankings, (), top=10)
    assert everything.tolist() == [selection.ordinals] * 3


def test_chosen_heads_vote_alone_and_all_of_them_are_the_soft_vote(drawn, tmp_path):
    queries, means = drawn
    files = {}
    for name, heads in (
        ("all", [[n, h] for n in range(L) for h in range(HQ)]),
        ("two", [[0, 4], [1, 1]]),
    ):
        files[name] = tmp_path / f"{name}.json"
        files[name].write_text(json.dumps({"format": 1, "heads": heads, "least_on_frames": 0.0}))
    ask = (Question("x", "v"), T, [Stretch("v", 0, T)])
    soft = retriever(queries, means, normalize="softmax").search(*ask)
    every = retriever(queries, means, normalize="softmax", heads=str(files["all"])).search(*ask)
    assert torch.equal(soft.frames, every.frames)
    np.testing.assert_allclose(soft.scores, every.scores, atol=1e-6)
    two = retriever(queries, means, normalize="softmax", heads=str(files["two"])).search(*ask)
    each = products(queries.mean(0, keepdim=True), means)[0].softmax(-1)
    votes = (each[0, 4] + each[1, 1]) / 2
    assert two.frames.tolist() == votes.argsort(descending=True).tolist()
    np.testing.assert_allclose(two.scores, votes.sort(descending=True).values, atol=1e-5)
    files["two"].write_text(json.dumps({"format": 1, "heads": [[0, 6]], "least_on_frames": 0.0}))
    with pytest.raises(UserError, match="head 6 of layer 0, and the model has 2 layers of 6"):
        retriever(queries, means, heads=str(files["two"])).search(*ask)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"per_head": True}, "needs retriever.top="),
        ({"per_head": True, "top": 1, "per_layer": True}, "do not fit each other"),
        ({"per_head": True, "top": 1, "normalize": "layer"}, "sums up the heads"),
        ({"heads": "none.json"}, "none.json tells no retrieval heads"),
        ({"top": 2}, "per_layer=true or retriever.per_head=true"),
    ],
)
def test_what_does_not_fit_is_refused(options, says):
    with pytest.raises(UserError, match=says):
        KVRetriever(queries=lambda text: torch.zeros(0), **options)

"""The ruler of attention, against the eager attention weights of transformers' own class.

The reference is one plain forward over the whole context with output_attentions; masses are summed
frame by frame in Python, and a layer's output without some frames by renormalized weights.
"""

from itertools import combinations

import encoders.models.torchvision_ops  # noqa: F401

import pytest
import torch
from transformers import LlavaOnevisionForConditionalGeneration

from encoders.prefill import WindowPrefill
from memory.schema import Evidence, Hits, Question, Run
from pipeline.answer.reader import KVReader, TokenReader
from pipeline.evaluation.question_attention import QuestionAttention, frames_mask
from tests.support.families import FAMILIES, backbone_of, frames_for
from tests.support.toys import toy_backbone, toy_checkpoint, toy_frames

TEXT = "In what order did the star and the circle appear?"
FRAMES = 8


def evidence_of(backbone, frames) -> Evidence:
    """All frames, whole, a run each."""
    seen = backbone.encode_frames(frames)
    block = WindowPrefill(backbone, window_frames=1000)(seen)
    runs = [
        Run("toy", 0, t, seen.frames(t, t + 1), block.frames(t, t + 1))
        for t in range(len(seen.times))
    ]
    none = Hits(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    return Evidence(Question(TEXT, "toy"), tuple(runs), none, 0, 1.0)


@pytest.fixture(scope="module")
def evidence():
    return evidence_of(toy_backbone(), toy_frames(FRAMES))


@pytest.fixture(scope="module")
def attention(evidence):
    return QuestionAttention.of(KVReader(toy_backbone()), evidence)


@pytest.fixture(scope="module")
def eager():
    """Weights [L, Hq, n, S] and values [L, Hq, S, Dh] by transformers alone, and the number of each
    token's frame.
    """
    backbone, frames = toy_backbone(), toy_frames(FRAMES)
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(
        toy_checkpoint(), attn_implementation="eager"
    ).eval()
    video, prompt = model.config.video_token_id, backbone.prompt
    ids, owners = list(prompt.preamble_ids()), [-1] * len(prompt.preamble_ids())
    for number, seconds in enumerate(frames.times):
        own = prompt.time_tag_ids(seconds) + [video] * 4
        ids, owners = ids + own, owners + [number] * len(own)
    tail = [video, *prompt.suffix_ids(TEXT)]  # the library's features end with the newline
    pixels = (torch.from_numpy(frames.pixels).permute(0, 3, 1, 2).float() / 255.0 - 0.5) / 0.5
    with torch.inference_mode():
        out = model(
            input_ids=torch.tensor([ids + tail]), pixel_values_videos=pixels[None],
            output_attentions=True, use_cache=True,
        )  # fmt: skip
    weights = torch.stack([layer[0, :, -len(tail) :] for layer in out.attentions])
    group = weights.shape[1] // out.past_key_values.layers[0].values.shape[1]
    values = torch.stack(
        [layer.values[0].repeat_interleave(group, 0) for layer in out.past_key_values.layers]
    )
    return weights, values, owners + [-1] * len(tail)


def test_masses_and_recall_are_those_of_eager_attention(attention, eager):
    weights, _, owners = eager
    layers, heads, count, _ = weights.shape
    chosen = [1, 4, 5]
    recall = attention.recall(frames_mask(torch.tensor(chosen), FRAMES))
    assert attention.mass.shape == (layers, heads, FRAMES)
    for layer in range(layers):
        for head in range(heads):
            mass = [0.0] * FRAMES
            for row in weights[layer, head].tolist():
                for owner, weight in zip(owners, row, strict=True):
                    if owner >= 0:
                        mass[owner] += weight / count
            assert attention.mass[layer, head].tolist() == pytest.approx(mass, abs=1e-5)
            held = sum(mass[frame] for frame in chosen) / sum(mass)
            assert float(recall[layer, head]) == pytest.approx(held, abs=1e-5)
    # frames differ by far more than the tolerance: equal masses would prove nothing
    assert float(attention.mass.std(-1).min()) > 100 * 1e-5
    assert float((recall - 3 / 8).abs().max()) > 0.01


def test_outputs_and_errors_are_those_of_eager_attention(attention, eager):
    weights, values, owners = eager
    dense = torch.einsum("lhns,lhsd->lnhd", weights, values).flatten(2)
    torch.testing.assert_close(attention.outputs, dense, atol=1e-4, rtol=1e-4)
    reads = torch.tensor([owner < 0 or owner in (1, 4, 5) for owner in owners])
    part = weights * reads
    part = torch.einsum("lhns,lhsd->lnhd", part / part.sum(-1, keepdim=True), values).flatten(2)
    expected = [float((a - b).norm() / b.norm()) for a, b in zip(part, dense, strict=True)]
    errors = attention.errors(frames_mask(torch.tensor([1, 4, 5]), FRAMES))
    assert errors.tolist() == pytest.approx(expected, abs=1e-4)
    assert min(expected) > 0.01


def test_all_frames_hold_all_attention_and_change_no_output(attention, evidence):
    everything = torch.ones(FRAMES, dtype=torch.bool)
    assert torch.allclose(attention.recall(everything), torch.ones(()))
    assert float(attention.errors(everything).max()) == 0.0
    # law 1: laid out from stored keys, or prefilled again
    again = QuestionAttention.of(TokenReader(toy_backbone()), evidence)
    assert float(attention.errors_of(again).max()) < 1e-4


def test_no_other_frames_hold_more_than_the_best(attention):
    every = frames_mask(torch.tensor(list(combinations(range(FRAMES), 3))), FRAMES)  # [56, F]
    recalls = torch.stack([attention.recall(chosen) for chosen in every])  # [56, L, Hq]
    best = {per: attention.recall(attention.best(3, per)) for per in ("model", "layer", "head")}
    assert float(best["model"].mean()) == pytest.approx(float(recalls.mean((1, 2)).max()))
    assert torch.allclose(best["layer"].mean(1), recalls.mean(2).amax(0))
    assert torch.allclose(best["head"], recalls.amax(0))
    few, most = (attention.errors(attention.best(count, "head")).mean() for count in (1, 7))
    assert float(most) < float(few)


def test_a_qwen_shape_with_three_axes():
    """Keys are those of the layers, wherever positions put them."""
    backbone = backbone_of("qwen2_5_vl")
    assert "qwen2_5_vl" in FAMILIES
    whole = evidence_of(backbone, frames_for(backbone, 8))
    dense = QuestionAttention.of(KVReader(backbone), whole)
    assert dense.frames == len(whole.runs)
    total = dense.mass.sum(-1)
    assert bool(((total > 0) & (total < 1)).all())
    exact = QuestionAttention.of(TokenReader(backbone), whole)
    assert float(dense.errors_of(exact).max()) < 1e-4

"""What counts as attention of an answer: its content, by the heads that fetch it."""

import json

import encoders.models.torchvision_ops  # noqa: F401

import pytest
import torch

from encoders.errors import UserError
from encoders.models.loading.retrieval_heads import NAME, RetrievalHeads
from memory.schema import FrameName
from pipeline.answer.attention.attention_shares import AttentionShares
from pipeline.answer.reader import KVReader
from pipeline.config.task_settings import WEIGHTS
from tests.support.families import backbone_of

LAYERS, HEADS, KV_HEADS, WIDTH = 3, 4, 2, 8
FRAMES_OF = torch.tensor([-1, 0, 0, 1, 1, 2, -1]).expand(LAYERS, -1)  # 7 tokens of context
NAMES = [FrameName("v", ordinal) for ordinal in range(3)]
PROMPT = 2  # tokens of the question


def heard(steps: int, heads: RetrievalHeads | None, *, ended: bool, seed: int = 0):
    """Shares after a prompt and `steps` - 1 tokens, and plain attention [steps, L, Hq, 3] to
    frames.
    """
    generator = torch.Generator().manual_seed(seed)
    context = FRAMES_OF.shape[1]
    keys = torch.randn(LAYERS, 1, KV_HEADS, context + PROMPT + steps, WIDTH, generator=generator)
    shares, plain = AttentionShares(FRAMES_OF, heads=heads), torch.zeros(steps, LAYERS, HEADS, 3)
    for step in range(steps):
        length = context + PROMPT + step
        for layer in range(LAYERS):
            query = torch.randn(1, HEADS, PROMPT if step == 0 else 1, WIDTH, generator=generator)
            key = keys[layer, :, :, :length]
            shares(layer, query, key, 0.3)
            every = key.repeat_interleave(HEADS // KV_HEADS, 1)
            share = torch.softmax(0.3 * query[:, :, -1:] @ every.transpose(2, 3), -1)[0, :, 0]
            for frame in range(3):
                plain[step, layer, :, frame] = share[:, :context][:, FRAMES_OF[0] == frame].sum(1)
    shares.finish([ended])
    return shares, plain


@pytest.mark.parametrize("steps", [1, 4, 40])
def test_all_heads_count_and_the_last_step_only_if_it_is_content(steps):
    for ended in (False, True):
        shares, plain = heard(steps, None, ended=ended)
        content = plain[: max(1, steps - ended)]
        assert torch.allclose(shares.of_steps()[:, 1:], content.mean((1, 2)), atol=1e-6)
        expected = content.sum((0, 1, 2)) / content.sum()
        weights = shares.weights(NAMES)
        assert list(weights) == NAMES
        assert list(weights.values()) == pytest.approx(expected.tolist(), abs=1e-6)


def test_only_the_chosen_heads_count():
    heads = RetrievalHeads({0: (1, 3), 2: (2,)}, 0.0)
    shares, plain = heard(5, heads, ended=True)
    content = plain[:4]
    own = (content[:, 0, 1] + content[:, 0, 3] + content[:, 2, 2]) / 3  # [4, 3]
    assert torch.allclose(shares.of_steps()[:, 1:], own, atol=1e-6)
    strength = own.square().sum(0).sqrt()
    assert list(shares.weights(NAMES).values()) == pytest.approx(
        (strength / strength.sum()).tolist(), abs=1e-6
    )


def test_heads_that_look_at_no_frame_give_no_weight():
    most = float(
        heard(3, RetrievalHeads({1: (0,)}, 0.0), ended=True)[0].of_steps()[:, 1:].sum(1).max()
    )
    for least, is_empty in ((most - 1e-3, False), (most + 1e-3, True)):
        shares, _ = heard(3, RetrievalHeads({1: (0,)}, least), ended=True)
        assert (shares.weights(NAMES) == {}) == is_empty


def test_a_model_without_a_file_counts_all_heads(tmp_path):
    assert KVReader(backbone_of("llava_ov")).retrieval_heads is None


def test_the_file_is_read_or_refused_in_one_sentence(tmp_path):
    backbone = backbone_of("llava_ov")
    path = tmp_path / NAME
    heads = RetrievalHeads({0: (0, 1), 1: (1,)}, 0.25)
    path.write_text(json.dumps(heads.packed() | {"model": "toy"}))
    reader = KVReader(backbone, retrieval_heads=str(path))
    assert reader.retrieval_heads == heads
    path.write_text(json.dumps(RetrievalHeads({99: (0,)}, 0.25).packed()))
    with pytest.raises(UserError, match=r"layer 99 that .* has not"):
        KVReader(backbone, retrieval_heads=str(path))
    for text in ("", "{}", '{"format": 9}', '{"format": 1, "heads": [], "least_on_frames": 0}'):
        path.write_text(text)
        with pytest.raises(UserError, match="tells no retrieval heads"):
            KVReader(backbone, retrieval_heads=str(path))
    with pytest.raises(UserError, match="tells no retrieval heads"):
        KVReader(backbone, retrieval_heads=str(tmp_path / "absent.json"))


def test_the_embedded_model_has_them():
    file = json.loads((WEIGHTS / "video_llm" / NAME).read_text())
    scores = torch.tensor(file["scores"])  # [L, Hq]
    chosen = [tuple(place) for place in file["heads"]]
    best = scores.flatten().topk(len(chosen)).values
    assert sorted(float(scores[place]) for place in chosen) == pytest.approx(sorted(best.tolist()))
    assert best.min() > 0.8 and 0 < file["least_on_frames"] < 1

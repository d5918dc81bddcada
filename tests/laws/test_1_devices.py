"""The laws on a device: answers are those of the CPU, and no tensor of the one meets a tensor of
the other.

The device is a stand-in (tests/support/far_device.py) that computes on the CPU and mixes with
nothing. Tiny random models of every family; all readers, retrievers, tiers and ways to store.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from encoders.errors import UserError
from encoders.models.eviction.output_error import OutputError
from encoders.prefill import WindowPrefill
from encoders.schema import FrameSource
from memory.schema import Evidence, Hits, Question, Run
from pipeline.answer.batched_reader import BatchedReader
from pipeline.answer.reader import KVReader, TokenReader
from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config.compose import compose
from pipeline.kv_policy.eviction import Eviction
from pipeline.kv_policy.guessed_tokens import GuessedTokens
from pipeline.kv_policy.host_part import HostPart
from pipeline.qa import VideoQA
from tests.support.families import FAMILIES, FPS, backbone_of, folder, frames_for
from tests.support.far_device import FAR, FarTensor, far_device
from tests.support.more_families import MORE
from tests.support.toy_evidence import silent
from tests.support.toys import toy_parts
from tests.support.videos import write_video

QUESTION = "In what order did the star and the circle appear?"
OTHER = "What is the code on the card?"


# on a device, transformers runs experts in CUDA's own kernels, which a stand-in does not have
EVERY = FAMILIES | {name: one for name, one in MORE.items() if not name.endswith("_moe")}


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.slow if name in MORE else ()) for name in sorted(EVERY)
    ]
)
def family(request):
    chosen = EVERY[request.param]
    if chosen.needs:
        pytest.importorskip(chosen.needs)
    return chosen


def evidence_of(backbone, frames, per_layer=None) -> Evidence:
    """Three segments, read frame by frame as recall gives them. Without keys and values for a model
    whose keys cannot be recalled.
    """
    keeps = not backbone.language_model.other_layers
    prefill = WindowPrefill(backbone, window_frames=3) if keeps else None
    runs: list[Run] = []
    third = len(frames) // 3
    for number in range(3):
        seen = backbone.encode_frames(frames.part(third * number, third * (number + 1)))
        block = None if prefill is None else prefill(seen)
        for i in range(len(seen.times)):
            kv = None if block is None else block.frames(i, i + 1)
            runs.append(Run("toy", number, len(runs), seen.frames(i, i + 1), kv))
    none = Hits(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    return Evidence(Question(QUESTION, "toy"), tuple(runs), none, 0, 0.5, per_layer)


def read(backbone, reader_class, per_layer) -> list[Any]:
    """Everything that a reader computes of one evidence, and of two side by side."""
    frames = frames_for(backbone, 12)
    evidence = evidence_of(backbone, frames, per_layer)
    reader = reader_class(backbone, max_new_tokens=3)
    logits = reader.logits(evidence, silent)
    reading = reader.read(evidence, silent)
    answers = [backbone.prompt.ids(text) for text in ("yes", "no")]
    likelihoods = reader.log_likelihoods(evidence, OTHER, answers, silent)
    both = BatchedReader(reader)
    several = both.read([evidence, evidence], silent)
    scored = both.log_likelihoods([evidence] * 2, [QUESTION, OTHER], [answers] * 2, silent)
    queries = torch.zeros(0)
    if not backbone.language_model.other_layers:
        queries = torch.cat(backbone.language_model.queries_of([QUESTION, OTHER]))
    assert not isinstance(queries, FarTensor)
    return [
        logits.cpu(),
        queries,
        [reading.text, *(one.text for one in several)],
        [
            *(one.weights for one in (reading, likelihoods)),
            *(one.weights for one in several),
            *(one.weights for one in scored),
        ],
        [likelihoods.values, *(one.values for one in scored)],
    ]


@pytest.mark.parametrize("attention", ["sdpa", pytest.param("eager", marks=pytest.mark.slow)])
@pytest.mark.parametrize("way", ["tokens", "kv", "per layer"])
def test_readers_compute_on_a_device_what_they_compute_on_the_cpu(family, way, attention):
    if attention == "eager" and family.name not in ("llava_ov", "qwen3_vl"):
        pytest.skip("eager attention is read with one family of one axis and one of three")
    reader_class = TokenReader if way == "tokens" else KVReader
    near = family.load() if family.name in MORE else backbone_of(family.name)
    if near.language_model.other_layers and way != "tokens":
        pytest.skip("keys and values of this family are refused")
    per_layer = None
    if way == "per layer":  # on three axes, and with tags of unequal lengths, too
        last = 12 // near.temporal_patch - 1
        per_layer = torch.tensor([[0, 2], [1, last], [2, last]])
    expected = read(near, reader_class, per_layer)
    with far_device():
        far = family.load(device="cuda:0", attention=attention)
        assert all(isinstance(one, FarTensor) for one in far.model.parameters())
        found = read(far, reader_class, per_layer)
    for ours, theirs in zip(found[:2], expected[:2], strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)
    assert found[2] == expected[2] and any(found[2])
    for ours, theirs in zip(found[3], expected[3], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    for ours, theirs in zip(found[4], expected[4], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)


# -- whole commands --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_video(path, 12, 4)
    return path


@contextmanager
def opened(
    family, film: Path, bank: Path, device: str, *more: str
) -> Iterator[tuple[VideoQA, FrameSource]]:
    settings = {"path": folder(family.name), "dtype": "float32"} | family.settings
    yaml = {"llava_ov": "llava_ov_0p5b", "qwen3_vl": "qwen3_vl_2b"}[family.name]
    config = compose(
        "ask",
        [
            f"video={film}", f"bank={bank}", f"question={QUESTION}", f"fps={FPS}", toy_parts()[1],
            f"backbone={yaml}", "reader.max_new_tokens=3", f"backbone.device={device}",
            *(f"++backbone.{key}={value}" for key, value in settings.items()), *more,
        ],
    )  # fmt: skip
    backbone = build_backbone(config)
    source = build_source(config, backbone)
    qa = build_qa(config, backbone)
    with qa.bank:
        yield qa, source


def answers(family, film: Path, bank: Path, device: str, *more: str) -> list[dict]:
    """Two questions, the second about frames that a tier has, and both at once."""
    with opened(family, film, bank, device, *more) as (qa, source):
        per_frame = qa.backbone.tokens_per_frame
        qa.ingest(source)
        questions = [Question(text, source.info.video_id) for text in (QUESTION, OTHER)]
        found = [qa.ask(question) for question in questions]
        for answer in qa.ask_all(questions):
            assert not isinstance(answer, UserError)
            found.append(answer)
        assert all(answer.visual_tokens <= 7 * per_frame for answer in found)
    kept = ("text", "spans", "frames_read", "visual_tokens")
    return [{key: asdict(answer)[key] for key in kept} for answer in found]


WAYS = {
    "kv": ["retriever=kv"],
    "per layer": ["experiment=rekv", "retriever.top=2"],
    "clip": ["retriever=clip", "reader=tokens"],
    "fused": ["retriever=fused", "recent_frames=2"],
    "uniform": ["retriever=uniform", "reader=tokens", "prefill=none"],
    "int8": ["kv_dtype=int8", "token_dtype=int8", "compressor=framediff"],
    "no tiers": ["ram_mb=0", "device_mb=0", "segmenter=scene", "segmenter.warm_up=1"],
}


QUICK = {("llava_ov", "kv")}


@pytest.mark.parametrize(
    ("name", "way"),
    [
        pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow)
        for pair in product(("llava_ov", "qwen3_vl"), WAYS)
    ],
)
def test_asking_on_a_device_gives_the_answers_of_the_cpu(name, way, film, tmp_path):
    family = FAMILIES[name]
    budget = f"read_tokens={7 * backbone_of(name).tokens_per_frame}"
    expected = answers(family, film, tmp_path / "near", "cpu", *WAYS[way], budget)
    with far_device():
        found = answers(family, film, tmp_path / "far", "cuda:0", *WAYS[way], budget)
    assert found == expected and any(answer["text"] for answer in found)


# -- the stand-in itself ---------------------------------------------------------------------------


def test_the_stand_in_mixes_with_nothing():
    with far_device():
        far, near = torch.ones(3, device="cuda"), torch.ones(3)
        index = torch.tensor([0, 2])
        assert far.device == FAR and far.is_cuda and near.device.type == "cpu"
        assert isinstance(far[index], FarTensor) and isinstance(far + 1, FarTensor)
        assert isinstance(torch.cat([far, far]).chunk(2)[0], FarTensor)
        assert all(isinstance(one, FarTensor) for one in far)
        assert not isinstance(far.cpu() + near, FarTensor) and (far + torch.tensor(2.0)).sum() == 9
        mixtures = (
            lambda: far + near,
            lambda: near.mul_(far),
            lambda: torch.cat([far, near]),
            lambda: far.gather(0, index),
            lambda: near[far.long()],
            lambda: torch.nn.functional.linear(near, far[None]),
            lambda: far.masked_fill_(near > 0, 1.0),
            lambda: far.__setitem__(index, near[:2]),
        )
        for mixture in mixtures:
            with pytest.raises(RuntimeError, match="same device"):
                mixture()
        for conversion in (far.numpy, lambda: torch.from_numpy(far.__array__())):
            with pytest.raises(TypeError, match="numpy"):
                conversion()
        far[:2] = near[:2]  # a copy, as on a real device
        layer = torch.nn.Linear(3, 2).to("cuda")
        assert isinstance(layer(far), FarTensor)
        with pytest.raises(RuntimeError, match="same device"):
            layer(near)


def test_policies_read_on_a_device_what_they_read_on_the_cpu():
    """The evidence stays in RAM, as it does where a part of the context lies on the host."""
    family = EVERY["llava_ov"]
    near = backbone_of(family.name)
    evidence = evidence_of(near, frames_for(near, 12))

    def read_with_policies(backbone) -> list[Any]:
        found: list[Any] = []
        for policy in (
            Eviction(backbone, score=OutputError(), budget=24, budget_share=0.0, chunk=10),
            HostPart(backbone, device_tokens=20),
            GuessedTokens(backbone, frames=2, tokens=2),
        ):
            reader = KVReader(backbone, max_new_tokens=3, kv_policy=policy)
            logits = reader.logits(evidence, silent)
            reading = reader.read(evidence, silent)
            found += [logits.cpu(), (reading.text, reading.weights.keys())]
        return found

    expected = read_with_policies(near)
    with far_device():
        found = read_with_policies(family.load(device="cuda:0"))
    for ours, theirs in zip(found, expected, strict=True):
        if isinstance(ours, torch.Tensor):
            assert torch.allclose(ours, theirs, atol=1e-4)
        else:
            assert ours == theirs

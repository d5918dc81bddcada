"""Models with layers that are not full attention: refused as keys and values, exact as tokens.

The refusal is one sentence. The token reader equals the library's own forward and generate, also
for prompts longer than the sliding window. Float32, 1e-4.
"""

import functools
import json
import tempfile
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import encoders.models.torchvision_ops  # noqa: F401

import pytest
import torch

from encoders.errors import UserError
from encoders.models.families.llava_onevision import LlavaOneVision
from encoders.prefill import WindowPrefill
from encoders.schema import join_frames
from memory.schema import Evidence, FrameName, Hits, Question, Run
from pipeline import cli
from pipeline.answer.reader import KVReader, TokenReader
from pipeline.build import build_source
from pipeline.config.compose import compose
from pipeline.embedded import checkpoint, tokenizer
from pipeline.needle_world import questions
from tests.support.families import frames_for, ids_and_pixels, louder, text_config
from tests.support.toys import FRAME_TOKENS, SIDE, toy_parts
from tests.support.videos import write_video

import transformers as T  # isort: skip

QUESTION = "In what order did the star and the circle appear?"
WINDOW = 8  # tokens: less than two frames
LINEAR = dict(
    num_hidden_layers=4, head_dim=16, layer_types=["linear_attention"] * 3 + ["full_attention"],
    linear_num_key_heads=2,
    linear_num_value_heads=2, linear_key_head_dim=16, linear_value_head_dim=16,
    linear_conv_kernel_dim=4,
)  # fmt: skip
# name -> class, settings, layer types that the refusal names
TEXTS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "sliding": (
        T.Qwen2Config,
        dict(use_sliding_window=True, sliding_window=WINDOW, max_window_layers=0),
        "sliding_attention",
    ),
    "mixed": (
        T.Qwen2Config,
        dict(use_sliding_window=True, sliding_window=40, max_window_layers=1),
        "sliding_attention",
    ),
    "linear": (T.Qwen3_5TextConfig, LINEAR, "linear_attention"),
    "conv": (T.Lfm2Config, dict(layer_types=["conv", "full_attention", "conv"]), "conv"),
}
SINKS = dict(
    num_hidden_layers=2,
    head_dim=16,
    sliding_window=WINDOW,
    num_local_experts=2,
    num_experts_per_tok=1,
)
# learnt attention sinks, as of InternVL 3.5 20b
UNFUSED = {"sinks": (T.GptOssConfig, SINKS, "sliding_attention")}


def silent(stage: str):
    return nullcontext()


@functools.cache
def folder(name: str) -> Path:
    """A random LLaVA-OneVision over a text model of that kind."""
    made = tokenizer.build(questions.corpus())
    config_class, settings, _ = (TEXTS | UNFUSED)[name]
    config = T.LlavaOnevisionConfig(
        vision_config=T.SiglipVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            image_size=SIDE,
            patch_size=14, vision_use_head=False,
        ),
        text_config=config_class(**text_config(made) | settings),
        image_grid_pinpoints=[[SIDE, SIDE]],
        image_token_id=made.convert_tokens_to_ids("<image>"),
        video_token_id=made.convert_tokens_to_ids("<video>"),
        vision_feature_layer=-1, vision_feature_select_strategy="full", tie_word_embeddings=True,
    )  # fmt: skip
    target = Path(tempfile.mkdtemp(prefix=f"reelbank-{name}-"))
    checkpoint.save(louder(T.LlavaOnevisionForConditionalGeneration(config)), made, target)
    return target


@functools.cache
def backbone_of(name: str) -> LlavaOneVision:
    return LlavaOneVision(str(folder(name)), time_tags=True)


def evidence(backbone, frames, sizes) -> Evidence:
    """Tokens without keys and values, in segments of these sizes."""
    runs, at = [], 0
    for number, size in enumerate(sizes):
        seen = backbone.encode_frames(frames.part(at, at + size))
        runs.append(Run("toy", number, at, seen, None))
        at += size
    none = Hits(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    return Evidence(Question(QUESTION, "toy"), tuple(runs), none, 0, 0.5)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("part", [WindowPrefill, KVReader])
def test_keys_and_values_are_refused_by_layer_type(name, part):
    with pytest.raises(
        UserError,
        match=rf"layers of type {TEXTS[name][2]}, .*reader=tokens prefill=none retriever=clip",
    ):
        part(backbone_of(name))


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("sizes", [[12], [5, 4, 3]])
def test_token_reader_equals_the_librarys_forward_from_pixels(name, sizes):
    backbone = backbone_of(name)
    frames = frames_for(backbone, 12)
    expected, _ = ids_and_pixels(backbone, frames, QUESTION)
    assert len(expected) > 6 * WINDOW  # the prompt leaves the window many times over
    reader, chunked = TokenReader(backbone), TokenReader(backbone, chunk_frames=5)
    for each in (reader, reader, chunked):  # the second question finds no trace of the first
        got = each.logits(evidence(backbone, frames, sizes), silent)
        assert expected[-len(got) :].std() > 0.3
        assert torch.allclose(got, expected[-len(got) :], atol=1e-4), (
            (got - expected[-len(got) :]).abs().max()
        )


@pytest.mark.parametrize("name", TEXTS)
def test_token_reader_answers_like_the_librarys_generate(name):
    backbone = backbone_of(name)
    frames = frames_for(backbone, 12)
    _, inputs = ids_and_pixels(backbone, frames, QUESTION)
    with torch.inference_mode():
        out = backbone.model.generate(**inputs, max_new_tokens=12, do_sample=False)
    reading = TokenReader(backbone, max_new_tokens=12).read(
        evidence(backbone, frames, [8, 4]), silent
    )
    assert (
        reading.text
        == backbone.prompt.text_of(out[0, inputs["input_ids"].shape[1] :].tolist()).strip()
        != ""
    )


@pytest.mark.parametrize("name", TEXTS)
def test_weights_are_the_librarys_attention(name):
    """Sliding layers count for the frames that are still in their window. Linear layers do not
    count.
    """
    backbone = backbone_of(name)
    frames = frames_for(backbone, 12)
    _, inputs = ids_and_pixels(backbone, frames, QUESTION)
    plain = LlavaOneVision(str(folder(name)), attention="eager", time_tags=True).model
    with torch.inference_mode():
        attentions = plain(**inputs, use_cache=False, output_attentions=True).attentions
    # [S] over layers and heads
    mass = sum(layer[0, :, -1].sum(0) for layer in attentions if layer is not None)
    edges = backbone.frame_embeds(backbone.encode_frames(frames)).offsets + len(
        backbone.prompt.preamble_ids()
    )
    expected = torch.stack([mass[a:b].sum() for a, b in pairwise(edges.tolist())])
    weights = (
        TokenReader(backbone, max_new_tokens=1)
        .read(evidence(backbone, frames, [12]), silent)
        .weights
    )
    if name == "sliding":  # the question is longer than the window: no frame is in sight
        assert expected.sum() == 0 and weights == {}
        return
    got = torch.tensor([weights[FrameName("toy", ordinal)] for ordinal in range(12)])
    assert torch.allclose(got, expected / expected.sum(), atol=1e-5)


def test_a_text_model_without_fused_attention_is_read_with_eager():
    with pytest.raises(UserError, match=r"no fused attention .* use backbone\.attention=eager"):
        LlavaOneVision(str(folder("sinks")))
    backbone = LlavaOneVision(str(folder("sinks")), attention="eager", time_tags=True)
    frames = frames_for(backbone, 12)
    _, inputs = ids_and_pixels(backbone, frames, QUESTION)
    plain = (
        type(backbone.model).from_pretrained(folder("sinks"), attn_implementation="eager").eval()
    )
    with torch.inference_mode():
        expected = plain(**inputs, use_cache=False).logits[0]
    got = TokenReader(backbone).logits(evidence(backbone, frames, [12]), silent)
    assert torch.allclose(got, expected[-len(got) :], atol=1e-4)


SECONDS = 12


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_video(path, SECONDS, 5)
    return path


def arguments(name: str, film: Path, bank: Path) -> list[str]:
    return [
        f"video={film}", f"bank={bank}", f"question={QUESTION}", *toy_parts(),
        f"backbone.path={folder(name)}",
        "reader.max_new_tokens=12", "format=json",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["sliding", "mixed", "linear"])
@pytest.mark.parametrize("retriever", ["uniform", "clip"])
def test_ask_with_tokens_answers_like_the_library(capsys, tmp_path, film, name, retriever):
    call = [
        *arguments(name, film, tmp_path / "bank"),
        "reader=tokens",
        "prefill=none",
        f"retriever={retriever}",
    ]
    budget = f"read_tokens={SECONDS * FRAME_TOKENS}"  # everything is recalled
    for _ in range(2):  # encodes, then reads what is in the bank
        assert cli.run("ask", [*call, budget]) == 0
        told = json.loads(capsys.readouterr().out)
        backbone = backbone_of(name)
        frames = join_frames(list(build_source(compose("ask", call), backbone).frames()))
        _, inputs = ids_and_pixels(backbone, frames, QUESTION)
        with torch.inference_mode():
            out = backbone.model.generate(**inputs, max_new_tokens=12, do_sample=False)
        assert (
            told["text"]
            == backbone.prompt.text_of(out[0, inputs["input_ids"].shape[1] :].tolist()).strip()
            != ""
        )
        assert told["frames_read"] == SECONDS


@pytest.mark.parametrize("name", ["sliding", "linear"])
@pytest.mark.parametrize("extra", [[], ["reader=tokens"], ["prefill=none", "retriever=clip"]])
def test_ask_with_keys_and_values_is_refused_before_anything_is_made(tmp_path, film, name, extra):
    with pytest.raises(
        UserError, match=TEXTS[name][2] if "prefill=none" not in extra else "reader=tokens"
    ):
        cli.run("ask", [*arguments(name, film, tmp_path / "bank"), *extra])
    assert not (tmp_path / "bank").exists()

"""Random models at published shapes: what encoding and answers take on a device.

For tests/measure/gpu.py, which says what is covered. On a CPU the shapes are cut.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import encoders.models.torchvision_ops  # noqa: F401  (first: transformers imports torchvision)

import torch

from encoders.models.families.llava_onevision import LlavaOneVision
from encoders.models.families.qwen3_vl import Qwen3VL
from memory.schema import Question
from pipeline.build import build_local, build_qa, build_source
from pipeline.config.compose import compose
from pipeline.config.tasks.pipeline_settings import IngestSettings
from pipeline.evaluation.speed.model import make as make_llava
from pipeline.evaluation.throughput import encode
from tests.support.families import FAMILIES, QWEN_SPECIAL, QWEN_TEMPLATE, qwen_ids, words
from tests.support.toys import toy_clip
from tests.support.videos import write_video

import transformers as T  # isort: skip

TEXT = "In what order did the star, the circle and the heart appear?"
LLAVA, QWEN = "llava-hf/llava-onevision-qwen2-7b-ov-hf", "Qwen/Qwen3-VL-8B-Instruct"
_SMALL: dict[str, dict[str, Any]] = {
    "vision": dict(
        image_size=56, patch_size=14, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2,
    ),
    "text": dict(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    ),
}  # fmt: skip
Rows = list[tuple[str, str]]  # what, and its value


@dataclass(frozen=True, slots=True)
class Run:
    """What a step needs to know."""

    device: torch.device
    work: Path  # for large files; deleted behind the step

    @property
    def is_cut(self) -> bool:
        """Whether shapes are cut."""
        return self.device.type == "cpu"


def llava(run: Run) -> Rows:
    """LLaVA-OneVision 7B; an hour at 0.5 frames a second, if the disk has room."""
    published = LlavaOneVision.published[LLAVA]
    sizes = _SMALL
    if not run.is_cut:
        sizes = {
            part: {
                key: value
                for key, value in published[f"{part}_config"].items()
                if key not in ("model_type", "vision_use_head")
            }
            for part in ("vision", "text")
        }
    with _on_device(run):
        model = make_llava(sizes, run.work / "model", "bfloat16", 0)
    return _model(run, "llava_ov_7b", model, hour=True)


def qwen3_vl(run: Run) -> Rows:
    """Qwen3-VL 8B."""
    if run.is_cut:
        return _model(run, "qwen3_vl_8b", FAMILIES["qwen3_vl"].make(), hour=False)
    tokenizer = words(*QWEN_SPECIAL)
    published = Qwen3VL.published[QWEN]
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = T.Qwen3VLConfig(
        text_config={**published["text_config"], **ends, "bos_token_id": None},
        vision_config=published["vision_config"],
        tie_word_embeddings=False,
        **qwen_ids(tokenizer),
    )
    processor = T.Qwen3VLProcessor(
        T.Qwen2VLImageProcessor(patch_size=16),
        tokenizer,
        T.Qwen3VLVideoProcessor(patch_size=16),
        chat_template=QWEN_TEMPLATE,
    )
    with _on_device(run):
        model = T.Qwen3VLForConditionalGeneration(config).to(torch.bfloat16)
    model.save_pretrained(run.work / "model")
    processor.save_pretrained(run.work / "model")
    del model
    return _model(run, "qwen3_vl_8b", run.work / "model", hour=False)


def _model(run: Run, name: str, checkpoint: Path, *, hour: bool) -> Rows:
    """Encoding with the bank on and off, and questions, of a checkpoint."""
    if run.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    seconds = 16 if run.is_cut else 192
    film = run.work / "film.mp4"
    write_video(film, seconds, 2, size=(640, 360))
    config = _settings(run, name, checkpoint, film, 1.0)
    with timed() as took:
        backbone = build_local(config)
    rows: Rows = [("loading", f"{took[0]:.1f} s"), ("memory, loaded", _peak(run))]
    backbone.prompt.stop_ids = set  # type: ignore[method-assign]
    fingerprint = backbone.fingerprint()
    backbone.fingerprint = lambda: fingerprint  # type: ignore[method-assign]
    bank = run.work / "bank"
    encode(config, backbone, bank, True)  # the first pass warms up
    pairs = []
    for turn in range(2):
        first = encode(config, backbone, bank, turn == 0)[0]
        second = encode(config, backbone, bank, turn != 0)[0]
        pairs.append((first, second) if turn == 0 else (second, first))
    on, off = (median(one) for one in zip(*pairs, strict=True))
    ratio = median(a / b for a, b in pairs)
    rows += [
        (f"encoding {seconds} frames, bank on", f"{on:.1f} frames/s"),
        ("the same, bank off", f"{off:.1f} frames/s"),
        ("on / off", f"{ratio:.3f}"),
        ("memory, encoding", _peak(run)),
        *_questions(config, backbone, bank),
        ("memory, answering", _peak(run)),
        ("a card of 24 GB", _fits(run)),
    ]
    if hour:
        rows += _hour(run, config, backbone, bank)
    return rows


def _settings(run: Run, name: str, checkpoint: Path, film: Path, fps: float) -> IngestSettings:
    return compose(
        "ask",
        [
            f"video={film}", f"bank={run.work / 'bank'}", f"question={TEXT}", f"fps={fps}",
            f"backbone={name}", f"backbone.path={checkpoint}", "backbone.dtype=bfloat16",
            f"backbone.device={run.device}", f"clip.model=local-dir:{toy_clip()}", "text=none",
            f"reader.max_new_tokens={8 if run.is_cut else 128}",
        ],
    )  # fmt: skip


def _questions(config: IngestSettings, backbone: Any, bank: Path) -> Rows:
    """One question and eight, twice each: the second time counts."""
    config.bank = str(bank)
    qa = build_qa(config, backbone)
    with qa.bank:
        source = build_source(config, backbone)
        qa.ingest(source)
        question = Question(TEXT, source.info.video_id)
        for _ in range(2):
            with timed() as took:
                answer = qa.ask(question)
        for _ in range(2):
            with timed() as eight:
                qa.ask_all([replace(question, text=f"{n}. {TEXT}") for n in range(8)])
    stages = ("search", "load", "lay_out", "first_token")
    first = sum(answer.seconds.get(stage, 0.0) for stage in stages)
    tokens = config.reader["max_new_tokens"]
    by_layer = _per_layer(config, backbone, question, answer.visual_tokens // 2)
    return [
        *by_layer,
        (f"first token, {answer.visual_tokens} visual tokens read", f"{first:.3f} s"),
        (f"answer of {tokens} tokens", f"{took[0]:.2f} s"),
        ("eight questions at once", f"{eight[0]:.2f} s"),
    ]


def _per_layer(config: IngestSettings, backbone: Any, question: Question, read_tokens: int) -> Rows:
    """The same question with frames of its own for each layer, half of the tokens."""
    search = ["retriever=kv", "retriever.per_layer=true"]
    plain = compose("ask", ["video=x", "bank=x", "question=x", *search])
    own = config.changed(retriever=plain.retriever, read_tokens=max(1, read_tokens))
    qa = build_qa(own, backbone)
    with qa.bank:
        for _ in range(2):
            with timed() as took:
                answer = qa.ask(question)
        video = qa.bank.catalog.require_video(question.videos[0])
        evidence = qa.bank.recall(
            Question(TEXT, video.info.video_id), read_tokens=own.read_tokens or 1
        )
    shape = "none: everything fits" if evidence.per_layer is None else [*evidence.per_layer.shape]
    return [
        (f"per_layer, {answer.visual_tokens} visual tokens in all layers", f"{took[0]:.2f} s"),
        ("per_layer, layers and frames of each", str(shape)),
    ]


def _hour(run: Run, config: IngestSettings, backbone: Any, bank: Path) -> Rows:
    """An hour at 0.5 frames a second, by the bytes of a frame so far."""
    files = [*bank.rglob("*.safetensors")]
    seconds = 60 if run.is_cut else 3600
    each = sum(file.stat().st_size for file in files) / (16 if run.is_cut else 192)
    nbytes = int(each * seconds / 2)
    shutil.rmtree(bank)
    if nbytes > 0.8 * shutil.disk_usage(run.work).free:
        return [("an hour at 0.5 fps", f"left out: {nbytes / 1e9:.0f} GB do not fit on the disk")]
    film = run.work / "hour.mp4"
    write_video(film, seconds, 0.5, size=(640, 360))
    config.video, config.fps = str(film), 0.5
    with timed() as took:
        rate, _ = encode(config, backbone, bank, True)
    size = f"{nbytes / 1e9:.2f} GB" if nbytes > 1e8 else f"{nbytes / 1e6:.2f} MB"
    return [
        (f"{seconds} s at 0.5 fps, {size}", f"{took[0]:.1f} s, {rate:.1f} frames/s"),
        ("memory, the whole", _peak(run)),
    ]


@contextmanager
def _on_device(run: Run) -> Iterator[None]:
    """New modules are made on the device and in bfloat16."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with run.device:
            yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def timed() -> Iterator[list[float]]:
    """Seconds of the block, in a list behind it."""
    took: list[float] = []
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    yield took
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    took.append(time.perf_counter() - began)


def _fits(run: Run) -> str:
    """Whether what was allocated so far fits into a card of 24 GB, of which a driver takes 1."""
    if run.device.type != "cuda":
        return "not measured on a CPU"
    held = torch.cuda.max_memory_reserved()
    return "holds it" if held < 23e9 else f"lacks {(held - 23e9) / 1e9:.1f} GB"


def _peak(run: Run) -> str:
    """The most that was allocated so far."""
    if run.device.type != "cuda":
        return "not measured on a CPU"
    most, held = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return f"{most / 1e9:.2f} GB at most, {held / 1e9:.2f} GB of the allocator"

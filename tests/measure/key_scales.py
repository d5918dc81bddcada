"""Scales of quantized keys: groups of whole frames, as in banks of before, beside causal ones.

    python -m tests.measure.key_scales [--clips ../shared/data/clips] [--films 4] [--seconds 64]

Both ways store the same segments of the embedded model. Columns:

- keys: bytes of codes and scales of keys for a token of one head and layer.
- file: bytes of all segment files, in kB.
- key error: |k - k'| / |k - mean k| of each layer, in per cent, before rotary embedding.
- attention error: as in pipeline/evaluation/bank_sizes.py.
- write, read: MB of files a second, median of 5, one thread.

Results: docs/measurements/2026-11_key-scales_epyc-2core.md.
"""

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from encoders.models.video_llm import VideoLLM
from encoders.schema import Segment
from memory.storage.segments import segment_codec, segment_file
from memory.storage.segments.segment_codec import StorageFormat
from pipeline.answer.schema import local
from pipeline.build import build_backbone, build_qa
from pipeline.config.compose import compose
from pipeline.config.task_settings import register
from pipeline.embedded.footage import clips
from pipeline.evaluation.bank_sizes import (
    _read_everything,
    attention_outputs,
    encode_segments,
    write_and_read_speeds,
)
from pipeline.needle_world import video as haystack
from pipeline.needle_world.cards import Needle
from pipeline.provenance import storage_format
from pipeline.qa import VideoQA

SETTINGS = {
    "int8": ("kv_dtype=int8", "token_dtype=int8"),
    "int4": ("kv_dtype=int4", "token_dtype=int4"),
    "compact": ("experiment=compact",),
}
QUESTIONS = ("What is the secret word?", "In what order did the cards appear?")


def films(folder: Path, count: int, seconds: float, footage: Sequence[Path]) -> list[Path]:
    """Films with two cards each, over clips or drawn footage in turn."""
    paths = []
    for number in range(count):
        path = folder / f"film-{number}.mp4"
        chance = np.random.default_rng(number)
        shown = haystack.plan(chance, [Needle("name", "Olivia"), Needle("icon", "key")], seconds)
        pictures = haystack.procedural_footage(number, (320, 180))
        if footage and number % 2:
            pictures = haystack.clip_footage(list(footage), number, (320, 180))
        haystack.write(path, shown, seconds, pictures, size=(320, 180))
        paths.append(path)
    return paths


def measure(name: str, paths: Sequence[Path], folder: Path) -> list[str]:
    """Two rows of the table."""
    given = [f"bank={folder / name}", f"video={paths[0]}", "question=x", *SETTINGS[name]]
    config = compose("ask", given)
    backbone = build_backbone(config)
    assert isinstance(backbone, VideoLLM)
    qa = build_qa(config, backbone)
    with qa.bank:
        films_ = [list(encode_segments(config, qa, path)) for path in paths]
    rows = []
    for way in ("groups", "causal"):
        stored = replace(storage_format(config, backbone), causal=way == "causal", window_frames=0)
        segments = [segment for film in films_ for segment in film]
        speeds = [write_and_read_speeds(film, stored, folder / "speed") for film in films_[:1]]
        (write, _), (read, _) = speeds[0]
        size = sum(len(segment_file.pack(segment, stored)) for segment in segments)
        rows.append(
            f"| {name} | {way} | {key_bytes(segments, stored):.2f} | {size / 1e3:.0f} "
            f"| {_show(key_errors(segments, stored))} "
            f"| {_show(attention_errors(qa, films_, stored))} | {write:.0f} | {read:.0f} |"
        )
    return rows


def key_bytes(segments: Sequence[Segment], stored: StorageFormat) -> float:
    nbytes, numbers = 0, 0
    for segment in segments:
        tensors, _ = segment_codec.encode(segment, stored)
        nbytes += tensors["keys"].nbytes + tensors["keys_scale"].nbytes
        assert segment.kv is not None
        numbers += segment.kv.keys[..., 0].numel()
    return nbytes / numbers


def as_read(segment: Segment, stored: StorageFormat) -> Segment:
    """The segment with keys and values as they read back."""
    tensors, form = segment_codec.encode(segment, stored)
    block = segment.kv
    assert block is not None
    keys = segment_codec.decode_keys(
        tensors["keys"], tensors["keys_scale"], block.offsets, 0, len(segment), form
    )
    values = segment_codec.decode_values(tensors["values"], form)
    return replace(segment, kv=replace(block, keys=keys, values=values))


def key_errors(segments: Sequence[Segment], stored: StorageFormat) -> list[float]:
    """Of each layer."""
    off, size = torch.zeros(1), torch.zeros(1)
    for segment in segments:
        block, back = segment.kv, as_read(segment, stored).kv
        assert block is not None and back is not None
        keys = block.keys.float()
        off = off + (keys - back.keys.float()).square().sum((1, 2, 3))
        size = size + (keys - keys.mean(2, keepdim=True)).square().sum((1, 2, 3))
    return list((off / size).sqrt().tolist())


def attention_errors(
    qa: VideoQA, films_: Sequence[Sequence[Segment]], stored: StorageFormat
) -> list[float]:
    """Of each layer, over films and questions."""
    backbone = qa.backbone
    assert isinstance(backbone, VideoLLM)
    errors = []
    for film in films_:
        blocks = [as_read(segment, stored).kv for segment in film]
        for text in QUESTIONS:
            both = []
            for read in ([segment.kv for segment in film], blocks):
                with attention_outputs(backbone) as outputs:
                    evidence = _read_everything(text, film, read)
                    local(qa.answerer.reader, "").logits(evidence, lambda stage: nullcontext())
                both.append(outputs[-backbone.language_model.kv_shape.layers :])
            errors.append([float((a - b).norm() / a.norm()) for a, b in zip(*both, strict=True)])
    return list(torch.tensor(errors).mean(0).tolist())


def _show(errors: Sequence[float]) -> str:
    return " ".join(f"{100 * error:.2f}" for error in errors)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path, default=Path("../shared/data/clips"))
    parser.add_argument("--films", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=64.0)
    args = parser.parse_args()
    register()
    torch.set_num_threads(1)
    footage = clips(args.clips, held_out=True) if args.clips.is_dir() else []
    print(
        "| setting | scales | keys: bytes a token | file (kB) | key error of each layer (%) "
        "| attention error of each layer (%) | write MB/s | read MB/s |\n" + "|---" * 8 + "|"
    )
    with tempfile.TemporaryDirectory() as name:
        paths = films(Path(name), args.films, args.seconds, footage)
        for setting in SETTINGS:
            print("\n".join(measure(setting, paths, Path(name))), flush=True)


if __name__ == "__main__":
    main()

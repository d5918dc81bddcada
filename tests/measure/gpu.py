"""What a GPU machine is asked, in one program of at most nine minutes, in parts if need be.

    python -m tests.measure.gpu [--device cuda] [--seconds 240] [--folder runs/gpu] [--out PAGE]

Needs no network: weights are random, at the published shapes of LLaVA-OneVision 7B and Qwen3-VL 8B.
On a CPU the shapes are cut, so that the whole program runs, and its times mean nothing. Each step
is a process of its own with a limit; its result is a file in `--folder`. A call begins no step that
does not fit into `--seconds`, and the next call goes on with what is missing; a failed step is
tried again. Exit code 0: all steps have a result or failed twice; 3: call again; 4: what is missing
takes longer than `--seconds`, and the table says what to pass. Prints Markdown.

Not covered: bfloat16 on the device against bfloat16 of transformers, and models split over devices.
"""

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import encoders.models.torchvision_ops  # noqa: F401  (first: transformers imports torchvision)

import numpy as np
import torch

from encoders.models.clip import ClipEncoder
from encoders.schema import Frames, join_frames
from encoders.sources.container import inspect
from encoders.sources.decoding.hardware import device_decoder
from encoders.sources.file import FileSource
from memory.storage.atomic import replacing
from pipeline.answer.reader import KVReader, TokenReader
from tests.measure import decoder_workers
from tests.measure.families import evidence
from tests.measure.gpu_copies import copies, tiers
from tests.measure.gpu_models import Rows, Run, llava, qwen3_vl, timed
from tests.support import measurement_page
from tests.support.families import FAMILIES, frames_for, made
from tests.support.more_families import MORE
from tests.support.paths import CLIPS, ROOT
from tests.support.toy_evidence import silent
from tests.support.toys import toy_clip
from tests.support.videos import write_video

_TRIES = 2


@dataclass(frozen=True, slots=True)
class Step:
    """A measurement that has a process of its own."""

    name: str
    measure: Callable[[Run], Rows]
    # that it takes on a GPU machine, about; ended after twice as many, on a CPU after six times
    seconds: int


def gpu_tests(run: Run) -> Rows:
    """Every test that needs a GPU."""
    files = [file for file in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in file.read_text()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *map(str, files)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    summary = done.stdout.strip().splitlines()[-1:] or [done.stderr.strip()]
    if done.returncode:
        raise RuntimeError(summary[0])
    return [(f"tests marked gpu, in {len(files)} files", summary[0])]


def families(run: Run) -> Rows:
    """Logits of each family on the device against those of the CPU, tiny and random, float32; and
    how far bfloat16 is from it. A family whose keys cannot be recalled is read by its tokens alone.
    """
    rows: Rows = []
    for name, family in sorted((FAMILIES | MORE).items()):
        try:
            plain = family.load()
        except ImportError as error:
            rows.append((name, f"left out: {error}"))
            continue
        frames = frames_for(plain, 10)
        there = family.load(device=str(run.device))
        short = family.adapter(
            str(made(family.make)), dtype="bfloat16", device=str(run.device), **family.settings
        )
        values = []
        for reader in (TokenReader, KVReader):
            if reader is KVReader and plain.language_model.other_layers:
                continue
            wanted = _logits(reader, plain, frames)
            far = float((_logits(reader, there, frames) - wanted).abs().max())
            if not far < 1e-3:
                raise RuntimeError(f"{name}, {reader.__name__}: {far:.2g} from the CPU's logits")
            near = float((_logits(reader, short, frames) - wanted).abs().max())
            values.append(f"{reader.__name__} {far:.1e}, in bfloat16 {near:.1e}")
        rows.append((f"{name}: largest difference of logits", "; ".join(values)))
    return rows


def _logits(reader: Any, backbone: Any, frames: Frames) -> torch.Tensor:
    given = evidence(backbone, frames, reader.needs_kv)
    logits: torch.Tensor = reader(backbone).logits(given, silent)
    return logits.float().cpu()


def decoding(run: Run) -> Rows:
    """Film decoded by 1, 2, 4 ... workers, up to the number of cores."""
    film = _film(run)
    cores = len(os.sched_getaffinity(0))
    seconds = inspect(film).duration
    rows: Rows = []
    for workers in [2**power for power in range(int(math.log2(cores)) + 1)]:
        passes = [decoder_workers.sample(film, 1.0, workers)[0] for _ in range(3)]
        speed = median(seconds / one.wall for one in passes)
        rows.append(
            (f"{_size(run)} H.264 at 1 fps, {workers} workers", f"{speed:.0f} times real time")
        )
    return rows


def _film(run: Run) -> Path:
    """H.264 of two minutes, 720p30; on a CPU a small one of ten seconds."""
    film, clips = run.work / "film.mp4", sorted(CLIPS.glob("d*.mp4"))
    if run.is_cut:
        write_video(film, 10, 30, size=(160, 90))
    elif clips:
        decoder_workers.make(clips[-1], film, "libx264", {}, 120)
    else:
        write_video(film, 120, 30, size=(1280, 720), options={})
    return film


def _size(run: Run) -> str:
    return "90p30" if run.is_cut else "720p30"


def hardware_decoding(run: Run) -> Rows:
    """Film decoded by the device, and that its frames are those of software."""
    film = _film(run)
    if device_decoder("auto", inspect(film).codec) is None:
        return [("decoding by the device", "left out: FFmpeg finds none that decodes H.264")]
    rows: Rows = []
    frames = []
    for hwaccel in ("none", "cuda"):
        with timed() as took:
            source = FileSource(film, width=384, height=384, workers="auto", hwaccel=hwaccel)
            frames.append(join_frames(list(source.frames())))
        rows.append(
            (
                f"{_size(run)} H.264, hwaccel={hwaccel}",
                f"{inspect(film).duration / took[0]:.0f} times real time",
            )
        )
    if not np.array_equal(frames[0].pixels, frames[1].pixels):
        raise RuntimeError("the device gives other frames than software")
    return [*rows, ("frames of both", "the same bits")]


def frame_embedder(run: Run) -> Rows:
    """Frames a second of ViT-B-32; on a CPU of a tiny model."""
    dtype = "float32" if run.is_cut else "bfloat16"
    model = f"local-dir:{toy_clip()}" if run.is_cut else "ViT-B-32"
    clip = ClipEncoder(model, dtype=dtype, device=str(run.device))
    count = 8 if run.is_cut else 512
    pixels = torch.randint(0, 255, (count, 384, 384, 3), dtype=torch.uint8).numpy()
    frames = Frames("clip", pixels, torch.arange(count).double().numpy())
    clip.embed_frames(frames.part(0, 8))
    with timed() as took:
        clip.embed_frames(frames)
    name = "a tiny model" if run.is_cut else model
    return [(f"{name}, {dtype}, 384 x 384 frames", f"{count / took[0]:.0f} frames/s")]


STEPS = (
    Step("gpu_tests", gpu_tests, 30),
    Step("families", families, 50),
    Step("decoding", decoding, 40),
    Step("hardware_decoding", hardware_decoding, 25),
    Step("frame_embedder", frame_embedder, 25),
    Step("copies", copies, 15),
    Step("tiers", tiers, 20),
    Step("llava", llava, 180),
    Step("qwen3_vl", qwen3_vl, 150),
)


def run_step(name: str, device: torch.device, out: Path) -> None:
    """Measure in this process, and write the result."""
    step = next(step for step in STEPS if step.name == name)
    work = out / f"{name}.work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    began = time.perf_counter()
    try:
        rows = step.measure(Run(device, work))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _write(out / f"{name}.json", {"rows": rows, "seconds": time.perf_counter() - began})


def _write(path: Path, value: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")


def report(arguments: argparse.Namespace) -> int:
    """Begin the steps that fit, then print what there is."""
    out, stop = arguments.folder, time.monotonic() + arguments.seconds
    out.mkdir(parents=True, exist_ok=True)
    for step in STEPS:
        result = _result(out, step)
        is_settled = "rows" in result or result.get("tries", 0) >= _TRIES
        left = stop - time.monotonic()
        if is_settled or (arguments.only not in (None, step.name)) or left < step.seconds:
            continue
        command = [sys.executable, "-m", "tests.measure.gpu", "--step", step.name]
        command += ["--device", str(arguments.device), "--folder", str(out)]
        # a CPU may have other work
        most = (2 if arguments.device.type == "cuda" else 6) * step.seconds
        why = run_for(min(left, most), command)
        if "rows" not in _result(out, step):
            tries = result.get("tries", 0) + 1
            _write(out / f"{step.name}.json", {"why": why, "tries": tries})
    return _print(out, arguments.seconds)


def run_for(seconds: float, command: Sequence[str]) -> str:
    """Run a command for so long at most; the last line of its errors, or that it was ended. All
    that it began ends with it: a test that goes on would take the device from the next step.
    """
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"}, start_new_session=True,
    )  # fmt: skip
    with process:
        try:
            _, errors = process.communicate(timeout=seconds)
            return (errors.strip().splitlines() or ["no message"])[-1]
        except subprocess.TimeoutExpired:
            return f"ended after {seconds:.0f} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _print(out: Path, seconds: float) -> int:
    """The table of all steps; 3 if some can still be begun in so many seconds, 4 if those that are
    missing take longer.
    """
    print("| step | what | value |\n|---|---|---|")
    missing: list[Step] = []
    for step in STEPS:
        result = _result(out, step)
        if "rows" not in result and result.get("tries", 0) < _TRIES:
            missing.append(step)
        rows: Sequence[tuple[str, str]] = result.get("rows", [])
        for what, value in rows:
            print(f"| {step.name} | {what} | {value} |")
        if rows:
            print(f"| {step.name} | the step | {result['seconds']:.0f} s |")
        else:
            why = result.get("why", "not begun yet")
            if step in missing and step.seconds > seconds:
                why += f"; it takes about {step.seconds} s: pass --seconds {step.seconds} or more"
            print(f"| {step.name} | no result | {why} |")
    if not missing:
        return 0
    return 3 if any(step.seconds <= seconds for step in missing) else 4


def _result(out: Path, step: Step) -> dict[str, Any]:
    path = out / f"{step.name}.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return result


def main() -> None:
    """All steps, or one in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", type=torch.device, default=torch.device(device))
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--folder", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--only", choices=[step.name for step in STEPS])
    parser.add_argument("--step", help=argparse.SUPPRESS)
    if "--step" in sys.argv:
        arguments = parser.parse_args()
        run_step(arguments.step, arguments.device, arguments.folder)
        return
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()

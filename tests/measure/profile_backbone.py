"""How fast a family is at its real shape, with random weights: no download, meaningless answers.

    python -m tests.measure.profile_backbone qwen3_vl_2b llava_ov_7b \\
        [--minutes 60] [--fps 0.5] [--device cuda] [--rows FILE]

The model has the adapter's published configuration, random weights, and the toy processor of the
family (tests/support/families.py). A synthetic video goes through the write path and a question
through the read path, as `reelbank ask` builds them. Beside that, one plain `generate` of
transformers reads as many of its frames as fit. The program prints Markdown and appends JSON lines.

Without a GPU, shape and video are cut down until a family takes about a minute, and the rows say
so. Such rows show that the program works; they do not measure a model.
"""

import argparse
import json
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import encoders.models.torchvision_ops  # noqa: F401

import numpy as np
import torch
from hydra.utils import get_object
from transformers.video_utils import VideoMetadata

from encoders.errors import UserError
from encoders.models.families.smolvlm import SmolVLM
from encoders.models.loading.checkpoint import read_config
from encoders.models.video_llm import VideoLLM
from encoders.schema import Frames, VideoInfo
from memory.schema import Question
from pipeline.build import build_qa
from pipeline.commands import backbones
from pipeline.config.compose import compose
from tests.support import measurement_page
from tests.support.families import FAMILIES, folder
from tests.support.toys import toy_checkpoint

import transformers  # isort: skip  (after the operators are declared)

QUESTION = "In what order did the star, the circle and the heart appear?"
ANSWER = 128  # tokens
CPU_SECONDS = 8.0  # a plain call that took longer is the last one on a CPU
COLUMNS = {
    "backbone": "backbone", "rows": "rows", "shape": "shape", "video_frames": "frames in bank",
    "bank_gb": "bank GB",
    "encode_fps": "encode frames/s", "first_token_s": "first token s",
    "answer_s": f"{ANSWER} tokens s",
    "frames_read": "frames read", "peak_gb": "peak GB", "plain_frames": "plain: frames",
    "plain_first_token_s": "first token s",
    "plain_answer_s": f"{ANSWER} tokens s", "plain_peak_gb": "peak GB",
    "plain_stopped": "stopped by",
}  # fmt: skip


class Synthetic:
    """A `FrameSource` of moving noise, without a file."""

    def __init__(self, count: int, fps: float, size: tuple[int, int]) -> None:
        self.count, self.fps, self.size = count, fps, size
        self.info = VideoInfo(f"synthetic-{count}-{fps:g}", "synthetic", count / fps, "none")

    def frames(self, start: float = 0.0) -> Iterator[Frames]:
        """Batches of 16."""
        for first in range(round(start * self.fps), self.count, 16):
            yield self.part(first, min(first + 16, self.count))

    def part(self, first: int, stop: int) -> Frames:
        """Frames first..stop-1."""
        width, height = self.size
        coarse = [
            np.random.default_rng(k).integers(1, 255, (-(-height // 32), -(-width // 32), 3))
            for k in range(first, stop)
        ]
        pixels = (
            np.stack(coarse)
            .repeat(32, axis=1)
            .repeat(32, axis=2)[:, :height, :width]
            .astype(np.uint8)
        )
        return Frames(self.info.video_id, pixels, np.arange(first, stop) / self.fps)


def smaller(published: dict[str, Any]) -> dict[str, Any]:
    """A published configuration cut down for a CPU: 4 layers each, and a quarter of the heads at
    their full width.
    """
    text, vision = dict(published["text_config"]), dict(published["vision_config"])
    width = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    group = text["num_attention_heads"] // text["num_key_value_heads"]
    kv_heads = max(1, text["num_key_value_heads"] // 4)
    text |= {
        "num_hidden_layers": 4,
        "num_key_value_heads": kv_heads,
        "num_attention_heads": kv_heads * group,
    }
    text |= {
        "hidden_size": kv_heads * group * width,
        "intermediate_size": 2 * kv_heads * group * width,
        "vocab_size": 2048,
    }
    for key in ("depth", "num_hidden_layers"):
        vision |= {key: 4} if key in vision else {}
    for key in (
        "embed_dim",
        "hidden_size",
        "intermediate_size",
        "num_heads",
        "num_attention_heads",
    ):
        vision |= {key: vision[key] // 4} if key in vision else {}
    if "embed_dim" in vision:  # Qwen2-VL says with hidden_size how wide its merger leaves the tower
        vision["hidden_size"] = text["hidden_size"]
    changed = {
        "out_hidden_size": text["hidden_size"],
        "fullatt_block_indexes": [3],
        "deepstack_visual_indexes": [0, 1, 2],
    }
    vision |= {key: value for key, value in changed.items() if key in vision}
    return published | {"text_config": text, "vision_config": vision}


def without_weights(published: dict[str, Any], toy: Path, target: Path) -> None:
    """A checkpoint's folder with this configuration, and the toy's processor and token ids."""
    shutil.copytree(toy, target, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    toy_config = json.loads((toy / "config.json").read_text())
    ids = {
        key: value
        for key, value in toy_config.items()
        if key.endswith(("_token_id", "_token_index"))
    }
    text = {
        key: value for key, value in toy_config["text_config"].items() if key.endswith("_token_id")
    }
    config = transformers.AutoConfig.for_model(
        **(published | ids | {"text_config": published["text_config"] | text})
    )
    config.save_pretrained(target)
    (target / "model.safetensors").touch()  # loading looks for it first; nothing reads it


def fit(processor: Any, config: Any) -> None:
    """Tell the toy's processor the real sizes, for the plain call's placeholders."""
    vision = config.vision_config
    if config.model_type == "llava_onevision":
        processor.num_image_tokens = (vision.image_size // vision.patch_size) ** 2
    elif config.model_type == "internvl":
        processor.image_seq_length = config.image_seq_length
    elif config.model_type == "smolvlm":
        processor.image_seq_len = SmolVLM.frame_tokens(config)
        processor.video_processor.max_image_size = {"longest_edge": vision.image_size}


def random_adapter(adapter: Any) -> Any:
    """The adapter with random weights made on the device."""

    class Random(adapter):
        def _load(self, **settings: Any) -> VideoLLM:
            config = read_config(self.path, None)
            fit(self.processor, config)
            make = transformers.AutoModelForImageTextToText.from_config
            with self.device:
                model = make(
                    config, dtype=self.dtype, attn_implementation=settings["attn_implementation"]
                )
            model.generation_config.eos_token_id = None
            model.generation_config.pad_token_id = 0
            return model

    return Random


def peak_gb(device: torch.device) -> float:
    """Of the device since the last reset; on a CPU of this process since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def seconds(device: torch.device, call: Callable[[], Any]) -> float:
    """How long a call takes, the device's queue included."""
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def through_the_bank(backbone: VideoLLM, config: Any, source: Synthetic) -> dict[str, Any]:
    """Encode, ask once to warm up, ask again."""
    qa = build_qa(config, backbone)
    with qa.bank:
        done = qa.ingest(source)
        qa.ask(Question(QUESTION, source.info.video_id))
        answer = qa.ask(Question("What did the heart do before the star?", source.info.video_id))
    stages = answer.seconds
    return {
        "video_frames": source.count,
        "bank_gb": done.nbytes / 1e9,
        "encode_fps": source.count / done.seconds["total"],
        "encode_stages_s": done.seconds,
        "first_token_s": stages["total"] - stages["decode"],
        "answer_s": stages["total"],
        "frames_read": answer.frames_read,
        "visual_tokens_read": answer.visual_tokens,
        "peak_gb": peak_gb(backbone.device),
    }


def plain_call(backbone: VideoLLM, source: Synthetic, count: int) -> tuple[float, float]:
    """transformers' own processor and `generate` over the first frames: seconds to one token and to
    the whole answer.
    """
    parts = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": QUESTION}]}]
    text = backbone.processor.apply_chat_template(parts, tokenize=False, add_generation_prompt=True)
    video = torch.from_numpy(source.part(0, count).pixels).permute(0, 3, 1, 2)
    about = VideoMetadata(total_num_frames=count, fps=source.fps, frames_indices=list(range(count)))
    common = {"do_resize": False, "do_sample_frames": False, "return_tensors": "pt"}

    def answer(tokens: int) -> None:
        inputs = backbone.processor(text=[text], videos=[video], video_metadata=[about], **common)
        inputs = inputs.to(backbone.device, backbone.dtype)  # floating point alone changes its type
        with torch.inference_mode():
            backbone.model.generate(
                **inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False
            )

    first, whole = (seconds(backbone.device, lambda n=tokens: answer(n)) for tokens in (1, ANSWER))  # type: ignore[misc]
    return first, whole


def as_much_as_fits(backbone: VideoLLM, source: Synthetic) -> dict[str, Any]:
    """The plain call over twice as many frames each time, until memory, time or the video ends."""
    figures: dict[str, Any] = {"plain_frames": 0, "plain_stopped": "the video's end"}
    count = min(8, source.count)
    while True:
        try:
            first, whole = plain_call(backbone, source, count)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return figures | {"plain_stopped": "memory"}
        except Exception as error:
            # a processor that wants something else: the bank's figures stand without it
            return figures | {"plain_stopped": f"{type(error).__name__}: {error}".splitlines()[0]}
        figures |= {"plain_frames": count, "plain_first_token_s": first, "plain_answer_s": whole}
        figures["plain_peak_gb"] = peak_gb(backbone.device)
        if count == source.count:
            return figures
        if backbone.device.type == "cpu" and whole > CPU_SECONDS:
            return figures | {"plain_stopped": f"time ({CPU_SECONDS:g} s)"}
        count = min(2 * count, source.count)


def profile(name: str, minutes: float, fps: float, device: str) -> dict[str, Any]:
    """Everything about one backbone."""
    cut, dtype = device == "cpu", "float32" if device == "cpu" else "bfloat16"
    node = backbones.nodes(fps)[name]
    adapter = get_object(node["_target_"])
    if node["path"] not in adapter.published:
        raise UserError(f"{name} has no published size to make random weights of")
    toys = {family.adapter: key for key, family in FAMILIES.items()}
    toy = folder(toys[adapter]) if adapter in toys else toy_checkpoint()
    published = adapter.published[node["path"]]
    published = smaller(published) if cut else published
    with tempfile.TemporaryDirectory(prefix="reelbank-profile-") as work:
        without_weights(published, toy, Path(work) / name)
        overrides = [
            f"backbone={name}",
            f"backbone.path={work}/{name}",
            f"backbone.dtype={dtype}",
            f"backbone.device={device}",
        ]
        overrides += [f"fps={fps}", f"bank={work}/bank", "video=synthetic", f"question={QUESTION}"]
        config = compose("ask", [*overrides, f"reader.max_new_tokens={ANSWER}"])
        torch.manual_seed(0)
        settings = {key: value for key, value in config.backbone.items() if key != "_target_"}
        backbone = random_adapter(adapter)(**settings)
        backbone.prompt.stop_ids = set  # answers never stop early
        if not cut:
            torch.cuda.reset_peak_memory_stats()
        source = Synthetic(round(minutes * 60 * fps), fps, backbone.frame_size)
        row = {
            "backbone": name,
            "rows": "CPU, cut down" if cut else torch.cuda.get_device_name(),
            "dtype": dtype,
            "fps": fps,
        }
        shape = backbone.language_model.kv_shape
        row["shape"] = (
            f"{shape.layers} x {shape.heads} x {shape.width}, "
            f"D {backbone.language_model.embed([0]).shape[1]}"
        )
        row["parameters"] = sum(p.numel() for p in backbone.model.parameters())
        row |= through_the_bank(backbone, config, source)
        if not cut:
            torch.cuda.reset_peak_memory_stats()
        row |= as_much_as_fits(backbone, source)
    versions = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
    }
    return row | versions | {"when": time.strftime("%Y-%m-%d %H:%M:%S")}


def report(arguments: argparse.Namespace) -> int:
    """Print the table. Each of several families runs in a process of its own, so that its peak
    of memory is its own; 2 for a family that cannot be profiled.
    """
    on_cpu = arguments.device == "cpu"
    minutes = arguments.minutes or (2.0 if on_cpu else 60.0)
    if on_cpu:
        print(
            "No GPU: shapes and videos are cut down. These rows show that the program runs, not "
            "how fast a model is.\n"
        )
    for cells in (COLUMNS.values(), ["---"] * len(COLUMNS)):
        print("| " + " | ".join(cells) + " |", flush=True)
    if len(arguments.names) == 1:
        return print_row(arguments.names[0], minutes, arguments)
    options = f"--minutes {minutes} --fps {arguments.fps} --device {arguments.device}".split()
    codes = []
    for name in arguments.names:
        command = [sys.executable, "-m", "tests.measure.profile_backbone", name, *options]
        command += ["--rows", str(arguments.rows), "--row-alone"]
        child = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        print(child.stdout, end="", flush=True)
        codes.append(child.returncode)
    return max(codes)


def print_row(name: str, minutes: float, arguments: argparse.Namespace) -> int:
    """Profile one family; append its JSON line and print its row."""
    try:
        row = profile(name, minutes, arguments.fps, arguments.device)
    except UserError as error:
        print(f"profile_backbone: {error}", file=sys.stderr)
        return 2
    arguments.rows.parent.mkdir(parents=True, exist_ok=True)
    with arguments.rows.open("a") as stream:
        stream.write(json.dumps(row) + "\n")
    values = (row.get(key, "-") for key in COLUMNS)
    cells = (f"{v:.3g}" if isinstance(v, float) else str(v) for v in values)
    print("| " + " | ".join(cells) + " |", flush=True)
    return 0


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="+", metavar="BACKBONE", help="files of conf/backbone, such as qwen3_vl_2b"
    )
    parser.add_argument("--minutes", type=float, help="of video; 60 on a GPU, 2 on a CPU")
    parser.add_argument("--fps", type=float, default=0.5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--rows", type=Path, default=Path("runs/profile.jsonl"), help="JSON lines are appended here"
    )
    parser.add_argument("--row-alone", action="store_true", help=argparse.SUPPRESS)
    if "--row-alone" in sys.argv:
        arguments = parser.parse_args()
        sys.exit(print_row(arguments.names[0], arguments.minutes, arguments))
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()

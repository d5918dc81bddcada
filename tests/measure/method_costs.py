"""What methods of preset=methods and preset=policies cost on a random model of 0.6 B parameters, in
the shape of bench_preset=small: no accuracy, as its answers mean nothing.

    python -m tests.measure.method_costs [--frames 4] [--read 2] [--questions 1] [--lines 30]
        [NAME ...]

The model computes in float32 and stores bfloat16. Synthetic frames at one a second are encoded
through `ingest`, once for each way to store, and asked through `ask`, as in `reelbank bench`. An
answer reads so many frames' worth of visual tokens and has one new token. NAME: rows to measure;
none: all. Columns:

- encode: CPU ms a frame, threads of the tower, embedder and writer included.
- MB an hour: of the bank, at one frame a second. Frames are noise that a compressor by likeness
  cannot shorten, so none is here.
- question: CPU ms, median of the questions behind one that warms up; search, load and prefill.
- read: MB of keys and values, or of visual tokens, in the context as the model reads them.

Below the table: what line_scan=attention takes for a token of text.

Rows are compared within one table alone. Prints Markdown.
"""

import argparse
import copy
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import encoders.models.torchvision_ops  # noqa: F401  (first: the model class imports torchvision)

import torch

from encoders.models.families.llava_onevision import LlavaOneVision
from encoders.text.lines import TextLine
from memory.schema import Question
from pipeline.answer.line_scan.attention_scan import AttentionScan
from pipeline.answer.text_evidence import prompt_line
from pipeline.build import build_qa
from pipeline.config.compose import compose
from pipeline.config.tasks.evaluation_settings import BenchSettings
from pipeline.evaluation.needle.results.read_log import ReadLog
from pipeline.evaluation.speed.clocks import stopwatch
from pipeline.evaluation.speed.model import make
from pipeline.evaluation.speed.ready_frames import ReadyFrames, noise_frames
from pipeline.evaluation.speed.reelbank_arm import load_backbone
from pipeline.frame_embedder import build_clip

# name -> (bank, overrides); rows of one bank share what is encoded, by the first of them
ROWS: dict[str, tuple[str, tuple[str, ...]]] = {
    "everything": ("whole", ()),
    "clip": ("whole", ("retriever=clip",)),
    "kv": ("whole", ("retriever=kv",)),
    "kv per layer": ("whole", ("retriever=kv", "retriever.per_layer=true")),
    "kv kmeans": ("whole", ("retriever=kv", "block_score=kmeans")),
    "kv hadamard": ("whole", ("retriever=kv", "block_score=hadamard")),
    "guessed tokens": ("whole", ("kv_policy=guessed_tokens",)),
    "half of the tokens": ("whole", ("kv_policy=eviction",)),
    "deep layers, half": ("whole", ("kv_policy=token_pruning",)),
    "tokens read again": ("whole", ("reader=tokens", "retriever=clip")),
    "int8": ("int8", ("kv_dtype=int8", "token_dtype=int8")),
    "int4": ("int4", ("kv_dtype=int4", "token_dtype=int4")),
    "low-rank keys": ("low rank", ("kv_policy=low_rank_keys",)),
    "spatial_pool": ("spatial_pool", ("compressor=spatial_pool",)),
    "tome": ("tome", ("compressor=tome",)),
    "tokens alone": ("tokens", ("prefill=none", "reader=tokens", "retriever=clip")),
}
PRESET = (
    "bench_preset=small",
    "clip=embedded",
    # few processors multiply bfloat16; stored types are those of a checkpoint in bfloat16
    "backbone.dtype=float32",
    "token_dtype=bfloat16",
    # the settings of the shape are otherwise those of the embedded model, which knows cards alone
    "backbone.reads_text=true",
    "backbone.questions=null",
)
QUESTIONS = ("What is the code?", "How many cards are shown?", "Which card is the first one?")


def settings_of(overrides: Sequence[str], path: str, bank: Path) -> BenchSettings:
    own = copy.deepcopy(compose("bench", [*PRESET, *overrides]))
    own.backbone["path"], own.bank = path, str(bank)
    own.reader["max_new_tokens"] = 1
    return own


def scan_cost(backbone: LlavaOneVision, lines: int) -> str:
    """What line_scan=attention takes for so many lines of words that mean nothing."""
    text = "the code on the blue card is shown in the video"
    every = [TextLine("v", float(at), at + 1.0, "subtitle", text, 0.0) for at in range(lines)]
    tokens = sum(len(backbone.prompt.ids(prompt_line(line))) for line in every)
    with stopwatch() as took:
        AttentionScan(backbone).rank(QUESTIONS[0], every, 8)
    return (
        f"line_scan=attention: {1000 * took.cpu_s / tokens:.1f} CPU ms a token of text, over "
        f"{tokens} tokens in {lines} lines"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--read", type=int, default=2, help="frames whose tokens an answer reads")
    parser.add_argument("--questions", type=int, default=1)
    parser.add_argument("--lines", type=int, default=30, help="that line_scan=attention reads")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a row")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = compose("bench", list(PRESET))
        assert config.made is not None
        path = str(make(config.made, folder / "model", config.backbone["dtype"], config.seed))
        config.backbone["path"] = path
        backbone = load_backbone(config)
        clip = build_clip(config)
        frames = noise_frames(args.frames, 1.0, backbone.frame_size)
        source = ReadyFrames(frames, 1.0)
        print(
            f"torch {torch.__version__}; {args.frames} frames of "
            f"{backbone.tokens_per_frame} tokens, an answer reads {args.read} frames' worth; "
            f"n={args.questions} questions; {torch.get_num_threads()} thread of torch\n"
        )
        print("| method | encode, CPU ms a frame | MB an hour | question, CPU ms | read, MB |")
        print("|---|---|---|---|---|", flush=True)
        encoded: dict[str, str] = {}  # bank -> what its encoding cost, in cells
        for row, (bank, overrides) in ROWS.items():
            if args.names and row not in args.names:
                continue
            own = settings_of(overrides, path, folder / bank)
            own.read_tokens = args.read * backbone.tokens_per_frame
            qa = build_qa(own, backbone, clip)
            with qa.bank:
                cells = "as above | as above"
                if bank not in encoded:
                    with stopwatch() as took:
                        done = qa.ingest(source)
                    size = 3600 * done.nbytes / done.video_seconds / 1e6
                    cells = f"{1000 * took.cpu_s / done.frames:.0f} | {size:.0f}"
                    encoded[bank] = cells
                log, spent = ReadLog(), []
                watched = log.watch(qa, qa.answerer.strategy)
                for number in range(1 + args.questions):
                    text = QUESTIONS[number % len(QUESTIONS)]
                    with stopwatch() as took:
                        watched.ask(Question(text, frames.video_id))
                    spent.append(1000 * took.cpu_s)
                    assert len(log.contexts) == number + 1  # the model read it
                read = log.contexts[-1].nbytes / 1e6
            print(
                f"| {row} | {cells} | {statistics.median(spent[1:]):.0f} | {read:.1f} |", flush=True
            )
        print(f"\n{scan_cost(backbone, args.lines)}")


if __name__ == "__main__":
    main()

"""What each policy of keys and values costs, and how far it moves the attention of each layer.

    python -m tests.measure.kv_policies [--films 4] [--seconds 60] [--first 5000] [--runs 3]
        [SETTING=VALUE ...]

Drawn films are encoded once, and their segments are stored and read back in each way in memory.
Every question about a film then reads all of its frames. Columns:

- layers: attention error |x - x'| / |x| in per cent. x is the input of the output projection at the
  question's tokens with the keys and values of the encoder, read whole; x' that of the policy.
  Errors of the layers below are included.
- bytes: of keys and values of a token at rest, scales and bases included.
- store, load: ms of one thread for a frame, in whole segments; with visual tokens and CLIP rows.
- question: ms for the layout of all frames and the prefill of the question, median over questions.

Below the table: ms of whole answers with kv_policy=guessed_tokens, and how many guesses are right.
Frames that guess are the newest ones here, as nothing ranks them.

Errors are means over questions, with 95 % intervals bootstrapped over films. Prints Markdown.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from encoders.models.video_llm import VideoLLM
from encoders.schema import KVBlock, Segment
from memory.schema import Evidence
from memory.storage.segments import segment_codec
from memory.storage.segments.segment_codec import StorageFormat
from pipeline.answer.reader import KVReader
from pipeline.answer.speculation.guessing import Guesser
from pipeline.build import build_local, build_qa
from pipeline.config.compose import compose
from pipeline.config.parts import call, instantiate
from pipeline.config.task_settings import register
from pipeline.evaluation.attention_recall import films, texts
from pipeline.evaluation.bank_sizes import _read_everything, attention_outputs, encode_segments
from pipeline.kv_policy.guessed_tokens import GuessedTokens
from pipeline.kv_policy.schema import KVPolicy
from pipeline.scoring import share

WAYS: dict[str, tuple[str, ...]] = {  # the first is what the others are compared with
    "as made": (),
    "int8": ("kv_dtype=int8",),
    "int4": ("kv_dtype=int4",),
    "product_quantization": ("kv_policy=product_quantization",),
    "frame_means": ("kv_policy=frame_means",),
    "low_rank_keys, loss 0.02": ("kv_policy=low_rank_keys", "kv_policy.loss=0.02"),
    "low_rank_keys, loss 0.1": ("kv_policy=low_rank_keys",),
    "low_rank_keys, loss 0.2": ("kv_policy=low_rank_keys", "kv_policy.loss=0.2"),
    "low_rank_keys, loss 0.4": ("kv_policy=low_rank_keys", "kv_policy.loss=0.4"),
    "head_split": ("kv_policy=head_split",),
    "eviction, half": ("kv_policy=eviction",),
    "eviction, half, output_error": ("kv_policy=eviction", "eviction_score=output_error"),
    "eviction, a quarter": ("kv_policy=eviction", "kv_policy.budget_share=0.25"),
    "eviction, a quarter, output_error": (
        "kv_policy=eviction", "kv_policy.budget_share=0.25", "eviction_score=output_error",
    ),
    "eviction, an eighth": ("kv_policy=eviction", "kv_policy.budget_share=0.125"),
    "eviction, an eighth, output_error": (
        "kv_policy=eviction", "kv_policy.budget_share=0.125", "eviction_score=output_error",
    ),
    "host_part, half": ("kv_policy=host_part", "kv_policy.device_tokens=550"),
}  # fmt: skip


def timed(what: Callable[[], object], runs: int) -> float:
    """Median ms."""
    spent = []
    for _ in range(runs):
        began = time.perf_counter()
        what()
        spent.append(1000 * (time.perf_counter() - began))
    return statistics.median(spent)


def stored_bytes(block: KVBlock, segment: Segment, storage: StorageFormat) -> int:
    """Bytes of keys and values of a segment at rest."""
    tensors, _ = segment_codec.encode(replace(segment, kv=block), storage)
    names = ("keys", "values", "keys_scale", "values_scale")
    return sum(tensors[name].nbytes for name in names if name in tensors)


def outputs_of(
    backbone: VideoLLM, reader: KVReader, evidence: Evidence
) -> tuple[list[Tensor], float]:
    """The outputs of each layer at the question, and ms."""
    with attention_outputs(backbone) as outputs:
        began = time.perf_counter()
        reader.logits(evidence, lambda stage: nullcontext())
        spent = 1000 * (time.perf_counter() - began)
    return outputs[-backbone.language_model.kv_shape.layers :], spent


class Counting(KVReader):
    """Keeps its guessers, which count."""

    def __init__(self, backbone: VideoLLM, policy: KVPolicy) -> None:
        super().__init__(backbone, kv_policy=policy)
        self.guessers: list[Guesser] = []

    def _guesser(self, evidence: Evidence, suffix: Tensor, most: int) -> Guesser | None:
        made = super()._guesser(evidence, suffix, most)
        self.guessers += [] if made is None else [made]
        return made


class Answers:
    """Whole answers, read as always and with guesses."""

    def __init__(self, backbone: VideoLLM, frames: int) -> None:
        self._plain = KVReader(backbone)
        self._guessing = Counting(backbone, GuessedTokens(backbone, frames=frames))
        self._spent: list[tuple[float, float]] = []
        self._differ, self._frames = 0, frames

    def read(self, evidence: Evidence) -> None:
        """One answer in each way."""
        texts, spent = [], []
        for reader in (self._plain, self._guessing):
            began = time.perf_counter()
            texts.append(reader.read(evidence, lambda stage: nullcontext()).text)
            spent.append(1000 * (time.perf_counter() - began))
        self._spent.append((spent[0], spent[1]))
        self._differ += texts[0] != texts[1]

    def __str__(self) -> str:
        plain, guessing = (statistics.median(each) for each in zip(*self._spent, strict=True))
        guessed = sum(one.guessed for one in self._guessing.guessers)
        right = sum(one.right for one in self._guessing.guessers)
        return (
            f"answers, {self._frames} frames guess: {guessing:.0f} ms, without {plain:.0f} ms; "
            f"{right} of {guessed} guesses right; {self._differ} of {len(self._spent)} differ"
        )


class Way:
    """One setting: how a bank stores, and how a reader reads."""

    def __init__(self, settings: Sequence[str], backbone: VideoLLM) -> None:
        config = compose("ask", ["video=-", "question=-", "text=none", *settings])
        policy: KVPolicy = call(
            "kv_policy", instantiate("kv_policy", config.kv_policy), backbone=backbone
        )
        own = None if config.kv_dtype == config.prefill.get("dtype") else config.kv_dtype
        self.storage = StorageFormat(
            own, codebook=policy.codebook, heads=policy.heads, key_loss=policy.key_loss
        )
        self.reader = KVReader(backbone, kv_policy=policy)
        self.errors: list[list[tuple[str, float]]] = [
            [] for _ in range(backbone.language_model.kv_shape.layers)
        ]
        self.question: list[float] = []
        self.bytes, self.tokens, self.frames = 0, 0, 0
        self.store, self.load = 0.0, 0.0

    def read_back(self, segment: Segment, runs: int) -> KVBlock:
        """A segment's keys and values as they come back; counts bytes and time."""
        block, storage = segment.kv, self.storage
        assert block is not None
        self.bytes += stored_bytes(block, segment, storage)
        self.tokens += block.keys.shape[2]
        self.frames += len(segment)
        self.store += timed(lambda: segment_codec.encode(segment, storage), runs)
        read = storage.as_read(segment).kv
        assert read is not None
        both = timed(lambda: storage.as_read(segment), runs)
        self.load += max(0.0, both - timed(lambda: segment_codec.encode(segment, storage), runs))
        return read

    def row(self, name: str) -> str:
        cells = []
        for own in self.errors:
            mean, low, high, _ = share(own)
            cells.append(f"{100 * mean:.1f} ({100 * low:.1f}-{100 * high:.1f})")
        return (
            f"| {name} | {' | '.join(cells)} | {self.bytes / self.tokens:.0f} | "
            f"{self.store / self.frames:.2f} | {self.load / self.frames:.2f} | "
            f"{statistics.median(self.question):.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--films", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--first", type=int, default=5000, help="number of the first film")
    parser.add_argument("--runs", type=int, default=3, help="of what is timed")
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help="as of reelbank ask")
    args = parser.parse_intermixed_args()
    register()
    torch.set_num_threads(1)
    common = ["video=-", "question=-", "text=none", "clip=embedded", *args.settings]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = compose("ask", [f"bank={folder / 'bank'}", *common])
        backbone = build_local(config)
        assert isinstance(backbone, VideoLLM)  # its layers are hooked
        ways = {way: Way(settings, backbone) for way, settings in WAYS.items()}
        asked, answers = 0, [Answers(backbone, frames) for frames in (4, 16)]
        paths = films(args.films, args.seconds, [], folder, first=args.first)
        for number, path in enumerate(paths, args.first):
            qa = build_qa(config, backbone)
            with qa.bank:
                segments = list(encode_segments(config, qa, path))
            made = [segment.kv for segment in segments]
            blocks = {
                key: [way.read_back(segment, args.runs) for segment in segments]
                for key, way in ways.items()
            }
            for text in texts(number):
                asked += 1
                plain, _ = outputs_of(
                    backbone, ways["as made"].reader, _read_everything(text, segments, made)
                )
                for each in answers:
                    each.read(_read_everything(text, segments, made))
                for key, way in ways.items():
                    evidence = _read_everything(text, segments, blocks[key])
                    found, spent = outputs_of(backbone, way.reader, evidence)
                    way.question.append(spent)
                    for own, a, b in zip(way.errors, plain, found, strict=True):
                        own.append((path.name, float((a - b).norm() / a.norm())))
    tokens = sum(block.keys.shape[2] for block in made if block is not None)
    print(
        f"n={asked} questions about {args.films} films of {args.seconds:g} s; the last context has "
        f"{tokens} tokens; torch {torch.__version__}, one thread"
    )
    layers = range(1, 1 + backbone.language_model.kv_shape.layers)
    heads = ["policy", *(f"layer {n}" for n in layers), "bytes", "store", "load", "question"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for key, way in ways.items():
        print(way.row(key))
    print(*answers, sep="\n")


if __name__ == "__main__":
    main()

"""Which heads of a model look where its answers come from, found on films with cards.

    python -m pipeline.evaluation.retrieval_heads [--films 40] [--clips ../shared/data/clips]
        [--out retrieval_heads.json] [backbone=qwen2_5_vl_7b backbone.device=cuda ...]

Asks about short films whose cards are known. A head's score is the mean share of its attention on
frames with the cards that an answer rests on, over the steps that predict the answer, in answers
that are right. The best twentieth of the heads are the retrieval heads (Wu et al. 2024, arXiv
2404.15574, find less than 5 % of heads in every model). Answers that rest on no frame, such as "0",
tell how little these heads then look at frames.

The films have a seed of their own, and clips that training may see. Put the file beside the
weights, or name it in reader.retrieval_heads=FILE. The one of the embedded model is its result.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from encoders.errors import UserError
from encoders.models.loading.retrieval_heads import NAME, RetrievalHeads
from memory.schema import Evidence, Question
from pipeline.answer.citations import frame_spans
from pipeline.answer.schema import Reader, is_local
from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config.compose import compose
from pipeline.config.task_settings import register
from pipeline.embedded.footage import clips
from pipeline.evaluation.embedded import make_videos
from pipeline.qa import VideoQA
from pipeline.runtime.stage_timer import StageTimer

SEED = 24_041_557  # of the films; those of training and of the tables have others
SHARE = 0.05  # of all heads
LEAST_HEADS = 2
FRAMES = 16  # of a film; an answer reads all
_TEXT, _FRAME, _CARD = range(3)  # what a token of a context shows


@dataclass(frozen=True, slots=True)
class HeadObservation:
    """Where the heads looked while one right answer was given. L layers, Hq query heads."""

    on_cards: Tensor  # [L, Hq] float32 mean share on the frames that the answer rests on
    on_frames: Tensor  # [T, L, Hq] float32 share on all frames in each step
    rests: bool  # False: on no frame


class HeadShares:
    """A listener that sums every head's attention at the last query by what a token shows."""

    def __init__(self, kinds: Tensor) -> None:
        """kinds: [L, S] int64 _TEXT, _FRAME or _CARD of each context token."""
        self._kinds = kinds
        self.steps: dict[int, list[Tensor]] = {}  # layer -> [Hq, 3] float32 of each step

    def __call__(self, layer: int, query: Tensor, key: Tensor, scaling: float) -> None:
        """query [1, Hq, n, Dh], key [1, H, S', Dh]. A layer that sees only a part of the context
        finds nothing."""
        kinds = self._kinds[layer]
        if key.shape[2] < len(kinds):
            return
        grouped = (query[0, :, -1] * scaling).unflatten(0, (key.shape[1], -1))  # [H, group, Dh]
        share = torch.softmax((grouped @ key[0].transpose(1, 2)).float(), -1).flatten(0, 1).cpu()
        summed = torch.zeros(len(share), 3).index_add_(1, kinds, share[:, : len(kinds)])
        self.steps.setdefault(layer, []).append(summed)


def observe(
    qa: VideoQA, reader: Reader, films: int, out: Path, footage: list[Path]
) -> list[HeadObservation]:
    """Ask every question of the films; one observation for each right answer."""
    observed: list[HeadObservation] = []
    for number, (_, path, placed, questions) in enumerate(
        make_videos("short", films, footage, out, SEED)
    ):
        config = compose("ask", [f"video={path}", "question=-", f"bank={out / 'bank'}"])
        config.video = str(path)
        source = build_source(config, reader.backbone)
        qa.ingest(source)
        for one in questions:
            timer = StageTimer()
            evidence = qa.answerer.recall(
                Question(one.text, source.info.video_id), timer, qa.answerer.read_tokens
            )
            cards = [(placed[i].start, placed[i].end) for i in one.needles]
            if one.family != "not_shown":
                observed += _observe_one(reader, evidence, one.answer, cards)
        print(f"film {number + 1} of {films}: {len(observed)} right answers", flush=True)
    return observed


def _observe_one(
    reader: Reader, evidence: Evidence, truth: str, cards: list[tuple[float, float]]
) -> Iterator[HeadObservation]:
    """The observation of a question whose answer is right. cards: seconds of those it is about."""
    model, prompt = reader.language_model, reader.backbone.prompt
    shows_card = [any(a <= start < b for a, b in cards) for start, _ in frame_spans(evidence)]
    kind_of = torch.tensor([_TEXT, *(_CARD if shows else _FRAME for shows in shows_card)])
    suffix = reader.prompt_suffix(evidence.question.prompt)
    room = len(suffix) + reader.max_new_tokens
    with reader.context(evidence, room, StageTimer()) as (cache, frames_of):
        shares = HeadShares(kind_of[frames_of.cpu() + 1])
        hidden = model.forward(suffix, cache, shares)[-1]
        ids = list(model.decode(hidden, cache, reader.max_new_tokens, shares))
    words = prompt.text_of(ids).casefold().replace(".", " ").split()
    if not ids or not _contains(words, truth.casefold().split()):
        return
    layers = range(model.kv_shape.layers)
    nothing = torch.zeros(len(ids), model.query_heads, 3)
    # [T, L, Hq, 3]; the step behind the last token predicts the end
    steps = torch.stack(
        [
            torch.stack(shares.steps[n])[: len(ids)] if n in shares.steps else nothing
            for n in layers
        ],
        dim=1,
    )
    on_cards = steps[..., _CARD]
    yield HeadObservation(on_cards.mean(0), steps[..., _FRAME] + on_cards, bool(cards))


def _contains(words: list[str], truth: list[str]) -> bool:
    """Whether these words stand in an answer, one after another."""
    return any(words[at : at + len(truth)] == truth for at in range(len(words)))


def find_heads(observed: list[HeadObservation]) -> tuple[RetrievalHeads, Tensor]:
    """The retrieval heads, and the score of every head [L, Hq]. UserError without right answers."""
    resting = [one for one in observed if one.rests]
    if not resting:
        raise UserError(
            "The model gave no right answer about cards, so its heads cannot be compared; "
            "its citations come from all heads."
        )
    scores = torch.stack([one.on_cards for one in resting]).mean(0)
    count = max(LEAST_HEADS, round(SHARE * scores.numel()))
    of_layers: dict[int, tuple[int, ...]] = {}
    for number in sorted(scores.flatten().topk(count).indices.tolist()):
        layer, head = divmod(number, scores.shape[1])
        of_layers[layer] = (*of_layers.get(layer, ()), head)
    mask = torch.zeros_like(scores)
    for layer, heads in of_layers.items():
        mask[layer, list(heads)] = 1 / count
    most = [(float((one.on_frames * mask).sum((1, 2)).max()), one.rests) for one in observed]
    with_frames = min(share for share, rests in most if rests)
    without = max((share for share, rests in most if not rests), default=0.0)
    least = round((with_frames + without) / 2, 3) if without < with_frames else 0.0
    return RetrievalHeads(of_layers, least), scores


def main() -> None:
    """Find the heads of a model and write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--films", type=int, default=40, help="of 16 seconds")
    parser.add_argument("--clips", type=Path, default=Path("../shared/data/clips"))
    parser.add_argument("--out", type=Path, default=Path(NAME))
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help="as of reelbank ask")
    args = parser.parse_args()
    register()
    footage = clips(args.clips, held_out=False) if args.clips.is_dir() else []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        common = ["video=-", "question=-", "text=none", "reader.max_new_tokens=16"]
        config = compose("ask", [f"bank={out / 'bank'}", *common, *args.settings])
        backbone = build_backbone(config)
        config.read_tokens = FRAMES * backbone.tokens_per_frame
        qa = build_qa(config, backbone)
        with qa.bank:
            reader = qa.answerer.reader
            if not is_local(reader):
                raise UserError("A model behind an address shows no attention.")
            heads, scores = find_heads(observe(qa, reader, args.films, out, footage))
    facts = {"model": Path(backbone.path).name, "films": args.films, "seed": SEED}
    rounded = np.round(scores.numpy().astype(float), 3).tolist()
    text = json.dumps(heads.packed() | facts | {"scores": rounded})
    args.out.write_text(text + "\n", encoding="utf-8")
    for layer, own in heads.of_layers.items():
        names = ", ".join(f"{head} ({scores[layer, head]:.2f})" for head in own)
        print(f"layer {layer}: heads {names}")
    print(f"least share on frames {heads.least_on_frames}; written to {args.out}")


if __name__ == "__main__":
    main()

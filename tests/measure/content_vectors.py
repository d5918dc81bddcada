"""Whether frames can be searched by two vectors of the model's own visual tokens, after LLaMA-VID.

    python -m tests.measure.content_vectors --seed 5807 --films 12

LLaMA-VID (arXiv 2311.17043) has a content token for each frame, the mean of its tokens, and a
context token that the question weighs. As a search, the content vectors of all frames would be an
index, and the best frames would be ranked again by their context vectors. Here both are compared
with the question's words as the language model embeds them, without training. The frame embedder
searches beside them. Films of one minute of the needle benchmark, the embedded model, a frame a
second. A hit is a question of whose only needle a frame is among the first `@` frames.
"""

import argparse

import torch
from torch import Tensor
from torch.nn.functional import normalize

from encoders.compression.context_token import question_weights
from encoders.schema import Frames, VisualTokens, join_frames
from pipeline.build import build_local, embed_words
from pipeline.config.compose import compose
from pipeline.config.tasks.question_settings import AskSettings
from pipeline.evaluation.needle.films.film import FilmSource
from pipeline.evaluation.needle.films.schema import Film
from pipeline.frame_embedder import build_clip
from pipeline.scoring import cell
from tests.support import measurement_page
from tests.support.long_film import PLAIN
from tests.support.needle_films import films_of

FIRST = (4, 8)
AGAIN = 16  # frames of the index that are ranked again
BETA = 20.0  # as resolution=context_token


def report(options: argparse.Namespace) -> None:
    """Rank the frames of every film for each of its questions, and print the table."""
    films, items = films_of(["retrieve"], options.films, options.seed)
    config = compose("ask", [*PLAIN])
    assert isinstance(config, AskSettings)
    backbone, clip = build_local(config), build_clip(config)
    hits: dict[str, list[tuple[str, tuple[float, ...]]]] = {}
    for film in films:
        frames = _frames(film, config.fps, backbone.frame_size)
        tokens, pictures = backbone.encode_frames(frames), clip.embed_frames(frames)
        for item in (item for item in items if item.film == film.name and item.options):
            ((start, end),) = film.spans(item.needles)
            shown = torch.from_numpy((frames.times >= start) & (frames.times < end))
            words = embed_words(backbone, item.question)
            scores = _scores(tokens, words) | {"clip": pictures @ clip.embed_text(item.question)}
            for name, each in scores.items():
                order = each.argsort(descending=True, stable=True)
                found = tuple(bool(shown[order[:first]].any()) for first in FIRST)
                hits.setdefault(name, []).append((film.name, found))
            share = float(shown.float().mean())
            chance = tuple(1 - (1 - share) ** first for first in FIRST)
            hits.setdefault("chance", []).append((film.name, chance))
    heads = [f"@{first}, %" for first in FIRST]
    print(f"\n| search | {' | '.join(heads)} |\n|{'---|' * (1 + len(FIRST))}")
    for name in ("clip", "content", "content, then context", "context", "chance"):
        cells = (
            cell([(film, float(found[place])) for film, found in hits[name]])
            for place in range(len(FIRST))
        )
        print(f"| {name} | {' | '.join(cells)} |")


def _frames(film: Film, fps: float, size: tuple[int, int]) -> Frames:
    source = FilmSource(film, fps, width=size[0], height=size[1])
    return join_frames(list(source.frames()))


def _scores(tokens: VisualTokens, words: Tensor) -> dict[str, Tensor]:
    """[T] of each search by the model's own tokens. words: [n, D] of the question."""
    query = normalize(normalize(words.float(), dim=1).mean(0), dim=0)
    frames = [
        tokens.tokens[a:b].float() for a, b in zip(tokens.offsets, tokens.offsets[1:], strict=False)
    ]
    content = torch.stack([frame.mean(0) for frame in frames])
    context = torch.stack([question_weights(frame, words, BETA) @ frame for frame in frames])
    by_content = normalize(content[:, : len(query)], dim=1) @ query
    by_context = normalize(context[:, : len(query)], dim=1) @ query
    again = by_content.clone()
    best = by_content.topk(min(AGAIN, len(again))).indices
    again[best] = 2.0 + by_context[best]
    return {"content": by_content, "content, then context": again, "context": by_context}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--films", type=int, default=12)
    measurement_page.run(parser, report)

"""Which KV heads of a model need the whole context, fitted as in DuoAttention (arXiv 2410.10819): a
profile for kv_policy=streaming_heads.

    python -m pipeline.evaluation.profiles.head_gates OUT.json [--films 12] [--seconds 60]
        [--steps 200] [--penalty 0.05] [SETTING=VALUE ...]

Each KV head gets a gate g from 0 to 1, and its output is a mixture of two attentions:
    out = g * (over the whole context) + (1 - g) * (over the beginning and the newest tokens)
The weights stay as they are; the gates of all heads minimize, by Adam,
    mean |h - h'|^2 / mean |h|^2 + penalty * mean(g)
h and h' are the last hidden states at the tokens of the right answer, with whole attention and with
the mixture. The published loss is the same but for the scale of its terms; its data are passkeys in
long texts, ours are cards in films. The films are drawn, and others than those of the tables. The
window is that of kv_policy=streaming_heads with the settings given.
"""

import argparse
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from encoders.models.heads.head_spans import HeadSpans
from encoders.models.kv_cache import FixedCache, LibraryCache
from encoders.models.positions import Cursor
from encoders.models.video_llm import VideoLLM
from memory.schema import Question
from pipeline.answer.schema import Reader, local
from pipeline.build import build_local, build_qa, build_source
from pipeline.config.compose import compose
from pipeline.evaluation.attention_recall import NEEDLES, SEED
from pipeline.evaluation.profiles.profile_program import Calibration, Options, ProfileProgram
from pipeline.kv_policy.streaming_heads import window_tokens
from pipeline.needle_world.scenes import questions, random_scene
from pipeline.runtime.stage_timer import StageTimer

_RATE = 0.05  # of Adam


@dataclass(frozen=True, slots=True, eq=False)
class GateExample:
    """A question with its right answer behind the frames that are read."""

    keys: Tensor  # [L, 1, H, S, Dh] of the context
    values: Tensor
    cursor: Cursor
    sink: int  # tokens before the first frame
    embeds: Tensor  # [n, D] of the question and the answer
    answer: int  # tokens of the answer


class GatedSpans:
    """The mixture of two attentions, as HeadSpans is used."""

    def __init__(self, gates: Tensor, spans: HeadSpans) -> None:
        """gates: [L, H]. spans: of the attention to a part."""
        self._gates, self._spans = gates, spans

    def attend(
        self, attend: Callable[..., Any], module: Any, query: Tensor, key: Tensor, *args: Any,
        **kwargs: Any,
    ) -> Any:  # fmt: skip
        """As HeadSpans.attend."""
        whole = attend(module, query, key, *args, **kwargs)[0]  # [1, n, Hq, Dh]
        part = self._spans.attend(attend, module, query, key, *args, **kwargs)[0]
        gate = self._gates[module.layer_idx].repeat_interleave(query.shape[1] // key.shape[1])
        return gate[None, None, :, None] * whole + (1 - gate)[None, None, :, None] * part, None


def examples(own: Calibration) -> Iterator[tuple[VideoLLM, GateExample]]:
    """One for each question with a card's answer."""
    config = compose("ask", own.overrides)
    backbone = build_local(config)
    assert isinstance(backbone, VideoLLM)  # its decoder is called below
    for number, path in zip(own.numbers, own.paths, strict=True):
        config.video = str(path)
        qa = build_qa(config, backbone)
        with qa.bank:
            source = build_source(config, backbone)
            qa.ingest(source)
            reader = local(qa.answerer.reader, "the gates of heads")
            rng = np.random.default_rng((SEED, number))
            for one in questions(rng, random_scene(rng, NEEDLES)):
                if one.family == "not_shown":
                    continue
                asked = Question(one.text, source.info.video_id)
                evidence = qa.answerer.recall(asked, StageTimer(), qa.answerer.read_tokens)
                yield backbone, _example(reader, evidence, one.answer)


@torch.inference_mode()
def _example(reader: Reader, evidence: Any, answer: str) -> GateExample:
    suffix = reader.prompt_suffix(evidence.question.prompt)
    ids = reader.backbone.prompt.ids(answer)
    with reader.context(evidence, len(suffix) + len(ids), StageTimer()) as (cache, _):
        assert isinstance(cache, FixedCache)
        length = cache.mark()[0]
        keys, values = (x[..., :length, :].clone() for x in (cache.keys, cache.values))
        cursor = cache.cursor
    embeds = torch.cat([suffix, reader.language_model.embed(ids)])
    return GateExample(keys, values, cursor, len(reader.sink), embeds, len(ids))


def hidden_states(backbone: VideoLLM, example: GateExample, gated: GatedSpans | None) -> Tensor:
    """[answer + 1, D] last hidden states from the token before the answer on."""
    model = backbone.language_model
    cache = LibraryCache(config=backbone.config.get_text_config())
    for layer, (keys, values) in enumerate(zip(example.keys, example.values, strict=True)):
        # clones: tensors of an inference take no part in gradients
        cache.update(keys.clone(), values.clone(), layer)
    embeds = example.embeds.clone()
    positions, _ = model.positions.of_text(len(embeds), example.cursor)
    placed = positions[None] if positions.dim() == 1 else positions[:, None]
    extra = {} if gated is None else {"context_attention": gated}
    hidden: Tensor = backbone.decoder(
        inputs_embeds=embeds[None],
        position_ids=placed.to(embeds.device),
        past_key_values=cache,
        use_cache=True,
        masks={},
        **extra,
    ).last_hidden_state[0]
    return hidden[-example.answer - 1 :]


def fit(
    backbone: VideoLLM, own: list[GateExample], steps: int, penalty: float
) -> tuple[Tensor, float]:
    """[L, H] gates, and the loss of the last round over the examples. Deterministic."""
    shape = backbone.language_model.kv_shape
    gates = torch.ones(shape.layers, shape.heads, requires_grad=True)
    optimizer = torch.optim.Adam([gates], lr=_RATE)
    order = random.Random(0)
    with torch.no_grad():
        whole = [hidden_states(backbone, one, None) for one in own]
    losses: list[float] = []
    for _ in range(steps):
        number = order.randrange(len(own))
        example, target = own[number], whole[number]
        context = example.keys.shape[-2]
        window = torch.full((shape.layers, shape.heads), window_tokens(context))
        spans = HeadSpans(window, example.sink, context, compensates=False)
        found = hidden_states(backbone, example, GatedSpans(gates, spans))
        away = (found - target).square().mean() / target.square().mean()
        optimizer.zero_grad()
        (away + penalty * gates.mean()).backward()
        optimizer.step()
        with torch.no_grad():
            gates.clamp_(0, 1)
        losses.append(float(away.detach()))
    return gates.detach(), float(np.mean(losses[-len(own) :]))


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=200, help="of the fit, a question each")
    parser.add_argument("--penalty", type=float, default=0.05, help="on the mean gate")


def _fit(own: Calibration, options: Options) -> tuple[bytes, str]:
    made = list(examples(own))
    backbone, every = made[0][0], [example for _, example in made]
    gates, loss = fit(backbone, every, options.steps, options.penalty)
    rounded = [[round(x, 4) for x in layer] for layer in gates.tolist()]
    facts = {"films": options.films, "steps": options.steps, "penalty": options.penalty}
    lines = [f"gates of {len(every)} questions, last error {loss:.4f}"]
    lines += [f"layer {layer}: {' '.join(map(str, row))}" for layer, row in enumerate(rounded)]
    return (json.dumps({"gates": rounded} | facts) + "\n").encode(), "\n".join(lines)


PROGRAM = ProfileProgram(__doc__, _fit, films=12, first=3000, add_options=_add_options)


if __name__ == "__main__":
    PROGRAM.run()

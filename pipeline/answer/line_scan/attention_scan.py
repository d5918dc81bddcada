"""Lines by the attention that a question pays to them, a window at a time (InfiniRetri, arXiv
2502.12962).

A film's words are too many for one prompt, so the model reads a window of lines, then the question:
    mass(line) = mean over heads, and over the tokens of the question, of the sum over the line's
                 tokens of softmax(q k^T / sqrt(Dh))
The best lines go on with the next window, in order of time, so a line competes with its window and
with the best lines so far:
    best <- the lines with most mass of best and window, as many as keep_tokens hold
With a window that holds all lines it is one pass over all of them. The paper scores tokens,
smoothed over phrases, and keeps the sentences around the best ones; here whole lines are scored.

Cost: (window + keep) / window tokens of the decoder for each token of text, for every question.
Memory: one window. Knows a model; no bank and no file.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.text.lines import TextLine
from memory.text.bm25 import RankedLine
from pipeline.answer.attention.suffix_attention import mass_of_parts, suffix_scores
from pipeline.answer.text_evidence import prompt_line


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A line as the model reads it."""

    number: int  # in the stream of all lines
    line: TextLine
    ids: list[int]


class AttentionScan:
    """`line_scan=attention`. Threads: any number."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        window_tokens: int = 1024,
        keep_tokens: int = 256,
        layers: int = 1,
    ) -> None:
        """window_tokens: of new lines in a pass. keep_tokens: of the best lines so far; a line
        longer than either is cut. layers: the last ones of the model, whose attention counts.
        UserError on numbers that read nothing, and for a model that cannot do it.
        """
        if min(window_tokens, keep_tokens, layers) < 1:
            raise UserError(
                f"line_scan.window_tokens={window_tokens} line_scan.keep_tokens={keep_tokens} "
                f"line_scan.layers={layers} read nothing; use 1 or more of each."
            )
        if not backbone.reads_text:
            raise UserError(
                "line_scan=attention needs a model that reads text, and that of backbone= reads "
                "none (reads_text=false); choose another backbone=, or use line_scan=none."
            )
        model = backbone.language_model
        if model.other_layers:
            raise UserError(
                f"line_scan=attention needs a model whose every layer is full attention, and "
                f"{backbone.path} has layers of type {model.other_layers}; use line_scan=none."
            )
        if model.max_positions is not None and window_tokens + keep_tokens >= model.max_positions:
            raise UserError(
                f"line_scan.window_tokens={window_tokens} and line_scan.keep_tokens={keep_tokens} "
                f"do not fit into the {model.max_positions} positions of the model; lower them."
            )
        self._model, self._prompt = model, backbone.prompt
        self._window, self._keep = window_tokens, keep_tokens
        self._longest = min(window_tokens, keep_tokens)  # of a line
        self._first_layer = max(model.kv_shape.layers - layers, 0)

    def rank(self, question: str, lines: Iterable[TextLine], most: int) -> list[RankedLine]:
        """At most `most` lines, best first: those of the last window. `score` is
        a line's mass there, and `coverage` its share of that of all lines there.
        """
        suffix = self._prompt.suffix_ids(question)
        ranked: list[RankedLine] = []
        best: list[_Candidate] = []
        window: list[_Candidate] = []
        size = 0
        for number, line in enumerate(lines):
            ids = self._prompt.ids(prompt_line(line))[: self._longest]
            if window and size + len(ids) > self._window:
                best, _ = self._best([*best, *window], suffix)
                window, size = [], 0
            window.append(_Candidate(number, line, ids))
            size += len(ids)
        if window:
            _, ranked = self._best([*best, *window], suffix)
        return ranked[:most]

    def _best(
        self, candidates: Sequence[_Candidate], suffix: list[int]
    ) -> tuple[list[_Candidate], list[RankedLine]]:
        """The candidates with most mass that fit into keep_tokens: in order, and ranked."""
        mass = self._mass([one.ids for one in candidates], suffix)
        total = float(mass.sum()) or 1.0
        order = sorted(range(len(candidates)), key=lambda place: (-float(mass[place]), place))
        best: list[_Candidate] = []
        ranked: list[RankedLine] = []
        left = self._keep
        for place in order:
            one = candidates[place]
            if len(one.ids) <= left:
                best.append(one)
                left -= len(one.ids)
                own, line = float(mass[place]), one.line
                ranked.append(RankedLine(line, own, own / total, line.start, line.end))
        return sorted(best, key=lambda one: one.number), ranked

    @torch.inference_mode()
    def _mass(self, texts: Sequence[list[int]], suffix: list[int]) -> Tensor:
        """[N] float32: the attention that the suffix pays to each of N texts, mean over heads."""
        lead = self._prompt.preamble_ids()
        ids = [*lead, *(token for text in texts for token in text), *suffix]
        owners = [-1] * len(lead)
        for number, text in enumerate(texts):
            owners += [number] * len(text)
        parts = torch.tensor([*owners, *[-1] * len(suffix)])
        masses: list[Tensor] = []

        def listen(layer: int, query: Tensor, key: Tensor, scaling: float) -> None:
            if layer >= self._first_layer:
                last = query[0, :, -len(suffix) :].float() * scaling
                scores = suffix_scores(last, key[0].float())
                masses.append(mass_of_parts(scores, parts, len(texts)).mean(0).cpu())

        cache = self._model.cache(len(ids))
        self._model.forward(self._model.embed(ids), cache, listen)
        return torch.stack(masses).mean(0)

"""Evidence -> answer text, token by token, with the weight that the answer gave to each recalled frame.

Two readers, one trade. TokenReader prefills the stored visual tokens again: exact, costs a prefill of what was recalled.
KVReader lays the stored keys and values out at contiguous positions: no prefill, but a frame's keys saw the window it was
encoded in, not its new neighbours. With everything recalled and inside the window both equal a plain forward (law 1).

The context is always: preamble | recalled and recent frames in time order, each after its time tag | tail. The tail is the
question, behind recalled words of the video where there are any. Knows no disk, no retrieval and no rotary embedding.
"""

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.models.kv_cache import FixedCache, LibraryCache, Mark, concatenate
from encoders.models.positions import Cursor
from encoders.models.video_llm import require_full_attention
from encoders.schema import KVBlock, joined
from encoders.text.lines import TextLine
from memory.schema import Evidence
from pipeline.answer.attention_shares import Gaze
from pipeline.answer.text_evidence import prompt
from pipeline.runtime.cancel import Emit, _go_on
from pipeline.runtime.torch_threads import one_thread

Timer = Callable[[str], AbstractContextManager[None]]
_LOOK_S = 0.05  # how often a question that waits for another one looks whether it is still wanted


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader returns."""

    text: str
    # frame ordinal -> share of the attention on frames while answering; sums to 1 (or empty)
    weights: dict[int, float]


@dataclass(frozen=True, slots=True)
class Layout:
    """A context that is ready to be laid behind the sink."""

    length: int  # tokens, the sink's among them
    frames_of: Tensor  # [L, S] int64 ordinal of each context token per layer, -1 for text
    lay: Callable[[Any], object]  # into a cache that holds the sink and has room


class _Reader:
    """What both readers share. `layout` says what of the evidence goes into a cache."""

    needs_kv: bool  # whether recall has to load keys and values

    def __init__(self, backbone: Backbone, *, max_new_tokens: int = 64) -> None:
        if max_new_tokens < 1:
            raise UserError(
                f"reader.max_new_tokens={max_new_tokens} gives no room for an answer; use 1 or more."
            )
        self.backbone, self.max_new_tokens = backbone, max_new_tokens
        self.sink = backbone.embed(backbone.preamble_ids())  # [P, D]
        self._empty: Mark = (0, Cursor())  # the cache with the sink alone
        # kept between questions: a large new buffer is faulted in page by page
        self._cache: FixedCache | None = None
        self._lock = threading.Lock()  # one question at a time on the buffer

    def layout(self, evidence: Evidence) -> Layout:
        """Preamble and frames of a context. UserError when the evidence does not hold what this reader reads."""
        raise NotImplementedError

    @contextmanager
    def turn(self, cancelled: threading.Event | None = None) -> Iterator[None]:
        """Nobody else computes answers meanwhile. Cancelled when it is set before the turn has come."""
        while not self._lock.acquire(timeout=-1 if cancelled is None else _LOOK_S):
            _go_on(cancelled)
        try:
            _go_on(cancelled)
            yield
        finally:
            self._lock.release()

    @contextmanager
    def context(
        self, evidence: Evidence, room: int, timer: Timer, cancelled: threading.Event | None = None
    ) -> Iterator[tuple[FixedCache | LibraryCache, Tensor]]:
        """The laid-out context, held for one question."""
        with self.turn(cancelled):
            with timer("lay_out"):
                layout = self.layout(evidence)
                cache = self._room_for(layout.length + room)
                layout.lay(cache)
            yield cache, layout.frames_of

    def tail(self, question: str, lines: Sequence[TextLine] = ()) -> Tensor:
        """[n, D] embeddings of what follows the frames: recalled words of the video, if there are any, and the question."""
        text = prompt(lines, question)
        return torch.cat(
            [self.backbone.after_video(), self.backbone.embed(self.backbone.tail_ids(text))]
        )

    def read(
        self,
        evidence: Evidence,
        timer: Timer,
        emit: Emit = lambda text: None,
        cancelled: threading.Event | None = None,
    ) -> Reading:
        """Answer the question of the evidence; `emit` gets the text in pieces as it is produced, which joined are the text.
        cancelled: looked at before every token; once it is set, Cancelled is raised and the reader is free for others."""
        tail = self.tail(evidence.question.prompt, evidence.lines)
        with self.context(evidence, len(tail) + self.max_new_tokens, timer, cancelled) as (
            cache,
            frames_of,
        ):
            gaze = Gaze(frames_of)
            ids: list[int] = []
            told = ""
            with timer("first_token"), one_thread(self.backbone.is_narrow):
                hidden = self.backbone.advance(tail, cache, gaze)[-1]
                stream = self.backbone.decode(hidden, cache, self.max_new_tokens, gaze)
                token = next(stream, None)
            with timer("decode"), one_thread(self.backbone.is_narrow):
                while token is not None:
                    _go_on(cancelled)
                    ids.append(token)
                    # a blank at the end waits: it may be the last thing said
                    text = self.backbone.text_of(ids).strip()
                    # half a character waits for its other half
                    if not text.endswith("\ufffd") and text != told:
                        emit(text[len(told) :])
                        told = text
                    token = next(stream, None)
            with timer("cite"):
                gaze.settle()
        text = self.backbone.text_of(ids).strip()
        if text != told:
            emit(text[len(told) :])
        return Reading(text, gaze.weights())

    def weigh(
        self,
        evidence: Evidence,
        question: str,
        answers: Sequence[Sequence[int]],
        timer: Timer,
        *,
        ends: bool = True,
    ) -> tuple[list[float], dict[int, float]]:
        """Log-likelihood of each answer (token ids, none empty) behind this question, and the frames' weights while the
        likeliest one is given: those that `read` returns if that is what it says.

        ends: the end of the answer belongs to it, so that of "red" and "red star" each is a whole answer.
        """
        tail = self.tail(question, evidence.lines)
        with self.context(evidence, len(tail) + max(map(len, answers)), timer) as (
            cache,
            frames_of,
        ):
            gaze = Gaze(frames_of)
            with timer("first_token"):
                hidden = self.backbone.advance(tail, cache, gaze)[-1:]  # [1, D]
            with timer("options"):
                mark = cache.mark() if isinstance(cache, FixedCache) else None
                scores = [self._likelihood(hidden, list(ids), cache, mark, ends) for ids in answers]
                best = max(range(len(scores)), key=scores.__getitem__)
                for token in answers[best]:  # one by one, as decoding does
                    self.backbone.advance(self.backbone.embed([token]), cache, gaze)
            with timer("cite"):
                gaze.settle()
        return scores, gaze.weights()

    def logits(self, evidence: Evidence, timer: Timer) -> Tensor:
        """[n, V] float32 logits at every tail position: what the exactness law compares."""
        tail = self.tail(evidence.question.text, evidence.lines)
        with self.context(evidence, len(tail), timer) as (cache, _):
            return self.backbone.logits(self.backbone.advance(tail, cache))

    def _likelihood(
        self,
        hidden: Tensor,
        ids: list[int],
        cache: FixedCache | LibraryCache,
        mark: Mark | None,
        ends: bool,
    ) -> float:
        """Of token ids behind the last hidden state [1, D]; leaves the cache as it was."""
        # nothing can be taken back from the library's cache, so a copy takes its place
        scratch = copy.deepcopy(cache) if mark is None else cache
        more = self.backbone.advance(self.backbone.embed(ids), scratch)  # [n, D]
        if mark is not None:
            assert isinstance(cache, FixedCache)
            cache.rewind(mark)
        logs = self.backbone.logits(torch.cat([hidden, more])).log_softmax(-1)  # [n + 1, V]
        told = logs[:-1].gather(1, torch.tensor(ids, device=logs.device)[:, None]).sum()
        if ends:
            told = told + logs[-1, sorted(self.backbone.stop_ids())].logsumexp(0)
        return float(told)

    def _room_for(self, capacity: int) -> FixedCache | LibraryCache:
        if self._cache is None or self._cache.capacity < capacity:
            cache = self.backbone.cache(capacity + 256)
            self.backbone.fill(self.sink, cache)
            if isinstance(cache, LibraryCache):
                return cache
            self._cache, self._empty = cache, cache.mark()
        self._cache.rewind(self._empty)
        return self._cache

    def _bare(self) -> Layout:
        """No frames at all."""
        owners = self._owners([], torch.zeros(0, dtype=torch.int64)).expand(
            self.backbone.kv_shape.layers, -1
        )
        return Layout(len(self.sink), owners, lambda cache: None)

    def _owners(self, ordinals: list[int], counts: Tensor) -> Tensor:
        """[S] ordinal per context token from each frame's in order and [T] its tokens; -1 for the preamble."""
        every = torch.cat([torch.tensor([len(self.sink)]), counts])
        return torch.tensor([-1, *ordinals]).repeat_interleave(every)


def _ordinals(evidence: Evidence) -> list[int]:
    """Of all its frames, in order."""
    return [int(ordinal) for run in evidence.runs for ordinal in run.ordinals]


class TokenReader(_Reader):
    """Prefills the recalled visual tokens again: the exact reference, and the reader for models without a KV bank."""

    needs_kv = False

    def layout(self, evidence: Evidence) -> Layout:
        """Every layer reads the same frames; per-layer hits are a matter of keys and values (UserError)."""
        if evidence.per_layer is not None:
            raise UserError(
                "retriever.per_layer=true needs reader=kv: visual tokens have no layers."
            )
        if not evidence.runs:
            return self._bare()
        frames = self.backbone.with_tags(joined([run.tokens for run in evidence.runs]))
        owners = self._owners(_ordinals(evidence), frames.offsets.diff()).expand(
            self.backbone.kv_shape.layers, -1
        )
        return Layout(
            len(self.sink) + len(frames), owners, lambda cache: self.backbone.fill(frames, cache)
        )


class KVReader(_Reader):
    """Lays stored keys and values out at contiguous positions: rotates each key once, prefills nothing but the tail."""

    needs_kv = True

    def __init__(self, backbone: Backbone, *, max_new_tokens: int = 64) -> None:
        require_full_attention(backbone)
        super().__init__(backbone, max_new_tokens=max_new_tokens)

    def layout(self, evidence: Evidence) -> Layout:
        """UserError when the bank keeps no keys and values; with per-layer hits each layer gets its own frames."""
        blocks: list[KVBlock] = []
        for run in evidence.runs:
            if run.kv is None:
                raise UserError(
                    "This bank keeps no keys and values (prefill=none); ask with reader=tokens."
                )
            blocks.append(run.kv)
        if not blocks:
            return self._bare()
        block = concatenate(blocks)
        owners = self._owners(_ordinals(evidence), block.offsets.diff()).expand(
            self.backbone.kv_shape.layers, -1
        )
        sink = len(self.sink)
        if evidence.per_layer is not None:
            if block.pos is not None:
                raise UserError(
                    "retriever.per_layer=true needs positions on one axis, and this model has three (M-RoPE)."
                )
            index = self._tokens_per_layer(evidence.per_layer, owners[0, sink:])  # [L, M']
            spread = index[:, None, :, None].expand(
                -1, block.keys.shape[1], -1, block.keys.shape[3]
            )
            keys, values = block.keys.gather(2, spread), block.values.gather(2, spread)
            block = KVBlock(keys, values, torch.tensor([0, index.shape[1]]))
            owners = torch.cat([owners[:, :sink], owners[:, sink:].gather(1, index)], dim=1)
        return Layout(
            sink + block.keys.shape[2], owners, lambda cache: self.backbone.lay(block, cache)
        )

    @staticmethod
    def _tokens_per_layer(per_layer: Tensor, owner: Tensor) -> Tensor:
        """[L, k] ordinals, [M] ordinal per token -> [L, M'] token indices in time order."""
        rows = [torch.isin(owner, frames).nonzero()[:, 0] for frames in per_layer]
        if len({len(row) for row in rows}) > 1:
            raise UserError(
                "retriever.per_layer=true needs the same number of tokens in every frame, and this bank's compressor "
                "leaves unequal numbers; use retriever.per_layer=false, or encode with compressor=none or pool."
            )
        return torch.stack(rows)

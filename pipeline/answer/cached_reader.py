"""What readers with the model in this process share: a context in a reused cache, decoding, and the
weight that the answer gave to each frame.

Subclasses lay out the context (pipeline/answer/reader.py). Knows no disk and no retrieval.
"""

import copy
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor

from encoders.encoder import Timer
from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.models.generation import greedy
from encoders.models.kv_cache import FixedCache, LibraryCache, Mark
from encoders.models.language_model import LanguageModel, PositionRule, scaled_model
from encoders.models.loading.retrieval_heads import RetrievalHeads
from encoders.models.position.dual_chunk import DualChunks
from encoders.models.position.rotary_scaling import NoScaling
from encoders.models.positions import Cursor
from encoders.text.lines import TextLine
from memory.schema import Evidence, Run, VideoTitle
from pipeline.answer.abstention import NoAbstention, instructed, is_absent
from pipeline.answer.attention.attention_shares import AttentionShares
from pipeline.answer.forms.json_forms import JsonForms
from pipeline.answer.frame_order.frame_orders import FrameOrder, TimeOrder
from pipeline.answer.likelihood import log_likelihood
from pipeline.answer.schema import Abstention, Cache, Layout, Likelihoods
from pipeline.answer.speculation.guessing import Guesser, checked_guesses
from pipeline.answer.text_evidence import Stretch, between_frames, prompt
from pipeline.answer.thinking import room_for_thoughts, think
from pipeline.kv_policy.no_policy import NoPolicy
from pipeline.kv_policy.schema import KVPolicy
from pipeline.runtime.cancel import Emit, raise_if_cancelled, unless_cancelled
from pipeline.runtime.torch_threads import one_thread
from pipeline.schema import NOT_SHOWN, Reading

BEHIND, BETWEEN = "behind", "between"  # where lines of text stand
# tokens beyond the request: a longer question next time then needs no new buffer
_SPARE_TOKENS = 256


class CachedReader:
    """What both readers share. `layout` decides what of the evidence goes into the cache."""

    needs_kv: bool  # whether recall has to load keys and values
    model_name = ""

    def __init__(
        self,
        backbone: Backbone,
        *,
        max_new_tokens: int = 64,
        max_thinking_tokens: int = 1024,
        retrieval_heads: str | None = None,
        frame_order: FrameOrder | None = None,
        position: PositionRule | None = None,
        lines: str = BEHIND,
        abstention: Abstention | None = None,
        kv_policy: KVPolicy | None = None,
    ) -> None:
        """max_thinking_tokens: of a thought before the answer, which counts apart.
        lines: where the words of the film stand: "behind" all frames, or "between" them, each at
        its time.
        retrieval_heads: file of the heads whose attention makes citations; None = the one in the
        checkpoint's folder, or else all heads count. frame_order: of the frames of each video; None
        = in time. position: how far apart tokens stand; None = as trained. abstention: None = the
        model says by itself what it does not see. kv_policy: None = every head reads everything.
        UserError on values that give no room, and on a
        file that does not fit the model.
        """
        if max_new_tokens < 1:
            raise UserError(
                f"reader.max_new_tokens={max_new_tokens} gives no room for an answer; use 1 or "
                "more."
            )
        most = backbone.language_model.max_positions
        if most is not None and max_new_tokens > most:
            raise UserError(
                f"reader.max_new_tokens={max_new_tokens} is more than the {most} positions that "
                "the model was made for; use less."
            )
        if max_thinking_tokens < 0:
            raise UserError(
                f"reader.max_thinking_tokens={max_thinking_tokens} is negative; use 0 or more."
            )
        if lines not in (BEHIND, BETWEEN):
            raise UserError(f"reader.lines={lines} is not known; use {BEHIND} or {BETWEEN}.")
        self.backbone, self.max_new_tokens = backbone, max_new_tokens
        self.lines = lines
        self.abstention: Abstention = abstention or NoAbstention()
        self.kv_policy: KVPolicy = kv_policy or NoPolicy(backbone)
        if self.kv_policy.uses_host and (not self.needs_kv or isinstance(position, DualChunks)):
            raise UserError(
                "kv_policy=host_part needs reader=kv, which lays stored keys and values out, and "
                "fits no position=dual_chunk; leave it out."
            )
        self._thinking_tokens = max_thinking_tokens
        self._order: FrameOrder = frame_order or TimeOrder()
        if lines == BETWEEN and not self._order.is_time:
            raise UserError(
                "reader.lines=between needs frame_order=time: a line stands where its time is."
            )
        self._thought = backbone.prompt.thought
        self._forms = JsonForms(backbone.prompt.tokenizer, backbone.prompt.stop_ids())
        self.retrieval_heads = RetrievalHeads.of(backbone, retrieval_heads)
        self._position = position or NoScaling()
        self._language_model = scaled_model(backbone.language_model, position)
        self.sink = self._language_model.embed(backbone.prompt.preamble_ids())  # [P, D]
        self._empty: Mark = (0, Cursor())  # the cache with the sink alone
        # reused by the next question: a large new buffer is faulted in page by page
        self._cache: FixedCache | None = None
        self._lock = threading.Lock()  # one question at a time uses the buffer

    @property
    def settings(self) -> str:
        """All beside model and evidence that a greedy answer depends on: findings that a bank keeps
        name it."""
        said = self.abstention
        return (
            f"{type(self).__name__}, max_new_tokens={self.max_new_tokens}, "
            f"max_thinking_tokens={self._thinking_tokens}, "
            f"frame_order={type(self._order).__name__}, lines={self.lines}, "
            f"{'' if self._position.is_identity else f'{self._position}, '}"
            f"{f'{policy}, ' if (policy := self.kv_policy.settings) else ''}"
            f"{said.instruction!r} {said.check_prompt!r} {said.threshold}"
        )

    @property
    def reads_ranking(self) -> bool:
        """Whether an answer depends on how the search ranked the frames that are read."""
        return not self._order.is_time

    @property
    def language_model(self) -> LanguageModel:
        """The model as this reader rotates its tokens."""
        return self._language_model

    def layout(self, evidence: Evidence) -> Layout:
        """Preamble and frames of a context. Raises UserError when the evidence lacks what this
        reader reads."""
        raise NotImplementedError

    @contextmanager
    def exclusive(self, cancelled: threading.Event | None = None) -> Iterator[None]:
        """No other question computes in the block. Raises Cancelled when that is set before the
        block begins."""
        with unless_cancelled(self._lock, cancelled):
            yield

    @contextmanager
    def context(
        self,
        evidence: Evidence,
        room: int,
        timer: Timer,
        cancelled: threading.Event | None = None,
        *,
        spare: int = 0,
    ) -> Iterator[tuple[Cache, Tensor]]:
        """The cache with the context of one question and `room` free tokens, and the layout's
        `frames_of`. Raises UserError where the model has fewer positions. spare: free tokens beyond
        the room, for which it may have none."""
        with self.exclusive(cancelled):
            with timer("lay_out"):
                layout = self.layout(evidence)
                host = self._host_tokens(evidence, layout)
                cache = self._cache_for(layout.length - host + room + spare)
                if isinstance(cache, FixedCache) and host:
                    cache.hold_on_host(host, len(self.sink))
                layout.write(cache)
                if isinstance(cache, FixedCache) and not host:
                    cache.context_attention = self.kv_policy.context_attention(
                        layout.length, len(self.sink)
                    )
                if isinstance(cache, FixedCache) and evidence.per_head is not None:
                    if cache.context_attention is not None:
                        raise UserError(
                            "retriever.per_head=true and this kv_policy= both say what a head "
                            "reads; leave one out."
                        )
                    hidden = hidden_from_heads(evidence.per_head, layout.frames_of)
                    cache.hidden = hidden if bool(hidden.any()) else None
            self._language_model.refuse_beyond(cache.cursor, room)
            yield cache, layout.frames_of

    def lines_behind(self, evidence: Evidence) -> tuple[TextLine, ...]:
        """The lines that stand behind the frames, before the question: all of them, or with
        lines=between those of videos of which no frame is read."""
        if self.lines == BEHIND:
            return evidence.lines
        return tuple(line for line in evidence.lines if line.video_id not in evidence.videos)

    def _stretches(self, evidence: Evidence, video_id: str) -> list[Stretch]:
        """The frames of a video, cut where lines stand between them."""
        times = [float(t) for run in evidence.videos[video_id] for t in run.tokens.times]
        own = [line for line in evidence.lines if line.video_id == video_id]
        return between_frames(own if self.lines == BETWEEN else (), times)

    def _words(self, text: str) -> Tensor:
        """[n, D] embeddings of lines between frames."""
        return self._language_model.embed(self.backbone.prompt.ids(text))

    def prompt_suffix(
        self,
        question: str,
        lines: Sequence[TextLine] = (),
        titles: Mapping[str, VideoTitle] | None = None,
    ) -> Tensor:
        """[n, D] embeddings of what follows the frames: recalled lines, then the question."""
        text = prompt(lines, question, titles)
        return torch.cat(
            [
                self.backbone.after_video(),
                self._language_model.embed(self.backbone.prompt.suffix_ids(text)),
            ]
        )

    def read(
        self,
        evidence: Evidence,
        timer: Timer,
        emit: Emit = lambda text: None,
        cancelled: threading.Event | None = None,
    ) -> Reading:
        """Answer the question of the evidence. `emit` gets the text in pieces; joined, they are the
        text.
        cancelled: checked before every token; once it is set, Cancelled is raised."""
        how = evidence.question.generation
        choose = how.chooser()
        abstention = self.abstention
        if how.form:  # "not in the video" has none
            choose, abstention = self._forms.constrain(how.form, choose), NoAbstention()
        asked = instructed(evidence.question.prompt, abstention)
        suffix = self.prompt_suffix(asked, self.lines_behind(evidence), evidence.titles)
        check = self.check_suffix(evidence, abstention)
        most = how.max_tokens or self.max_new_tokens
        least = min(most, self.max_new_tokens)  # where the model has no positions for all of them
        before = len(suffix) + self._room_for_thoughts
        room = max(len(check), before + least)
        with self.context(evidence, room, timer, cancelled, spare=most - least) as (
            cache,
            frames_of,
        ):
            left = self._language_model.positions_left(cache.cursor)
            most = most if left is None else max(least, min(most, left - before))
            shares = self._shares(cache, frames_of)
            ids: list[int] = []
            emitted, is_stopped = "", False
            with timer("first_token"), one_thread(self._language_model.is_narrow):
                absence = (
                    self._absence(self._states(check, cache)[-1:], abstention)
                    if len(check)
                    else None
                )
                hidden = self._begin(suffix, cache, shares, cancelled)[-1]
                if not len(check):
                    absence = self._absence(hidden[None], abstention)
                if is_absent(absence, abstention):
                    emit(NOT_SHOWN)
                    return Reading(NOT_SHOWN, {}, absence=absence)
                guesser = self._guesser(evidence, suffix, most) if choose is greedy else None
                if guesser is not None and isinstance(cache, FixedCache):
                    stops = self.backbone.prompt.stop_ids()
                    stream = checked_guesses(
                        self._language_model, stops, hidden, cache, most, shares, guesser
                    )
                else:
                    stream = self._language_model.decode(hidden, cache, most, shares, choose)
                token = next(stream, None)
                if self._thought is not None and token == self._thought.begin:  # unasked
                    begin = self._language_model.embed([token])
                    hidden = self._begin(begin, cache, shares, cancelled, thinks=True)[-1]
                    stream = self._language_model.decode(hidden, cache, most, shares, choose)
                    token = next(stream, None)
            with timer("decode"), one_thread(self._language_model.is_narrow):
                while token is not None:
                    raise_if_cancelled(cancelled)
                    ids.append(token)
                    # a space at the end waits: the answer may end there
                    text, is_stopped = how.cut(self.backbone.prompt.text_of(ids).strip())
                    # half a character waits for its other half, as does half a stop text
                    shown = text if is_stopped else how.settled(text)
                    if not shown.endswith("\ufffd") and len(shown) > len(emitted):
                        emit(shown[len(emitted) :])
                        emitted = shown
                    token = None if is_stopped else next(stream, None)
            is_cut = len(ids) == most and not is_stopped
            with timer("cite"):
                shares.finish([not is_cut and not is_stopped])
        text = how.cut(self.backbone.prompt.text_of(ids).strip())[0]
        if text != emitted:
            emit(text[len(emitted) :])
        weights = shares.weights(evidence.names)
        return Reading(
            text,
            weights,
            absence=absence,
            is_cut=is_cut,
            is_stopped=is_stopped,
            answer_tokens=len(ids),
        )

    def log_likelihoods(
        self,
        evidence: Evidence,
        question: str,
        answers: Sequence[Sequence[int]],
        timer: Timer,
        *,
        ends: bool = True,
    ) -> Likelihoods:
        """Log-likelihood of each answer (token ids, none empty) behind this question, and the
        weights of the frames while the likeliest answer is given: those of `read` where it gives
        that answer.

        ends: the end of the answer counts as well, so "red" and "red star" are both whole answers.
        """
        suffix = self.prompt_suffix(question, self.lines_behind(evidence), evidence.titles)
        room = len(suffix) + max(map(len, answers)) + self._room_for_thoughts
        with self.context(evidence, room, timer) as (cache, frames_of):
            shares = self._shares(cache, frames_of)
            with timer("first_token"):
                hidden = self._begin(suffix, cache, shares)  # [1, D]
            with timer("options"):
                values = [self._log_likelihood(hidden, list(ids), cache, ends) for ids in answers]
                best = max(range(len(values)), key=values.__getitem__)
                for token in answers[best]:  # one by one, as in decoding
                    self._language_model.forward(self._language_model.embed([token]), cache, shares)
            with timer("cite"):
                shares.finish([True])
        return Likelihoods(values, shares.weights(evidence.names))

    def count_tokens(self, text: str) -> int:
        """Tokens of a text in a prompt."""
        return len(self.backbone.prompt.ids(text))

    def check_form(self, schema: str) -> None:
        """UserError where no answer can be held to this JSON schema."""
        if self.backbone.questions is not None or not self.backbone.reads_text:
            raise UserError(
                "response_format is text alone here: the model answers in words that it learned, "
                "and writes no JSON; choose another backbone="
            )
        self._forms.check(schema)

    def check_suffix(self, evidence: Evidence, abstention: Abstention | None = None) -> Tensor:
        """[n, D] embeddings of the prompt that asks whether the frames suffice; n = 0: none.
        abstention: None = that of the reader."""
        asking = (abstention or self.abstention).check_prompt
        if not asking:
            return self._language_model.embed([])
        question = evidence.question.prompt
        check = asking.replace("{question}", question)
        return self.prompt_suffix(check, self.lines_behind(evidence), evidence.titles)

    def _shares(self, cache: Cache, frames_of: Tensor) -> AttentionShares:
        """A listener of one context."""
        hidden = cache.hidden if isinstance(cache, FixedCache) else None
        return AttentionShares(frames_of, heads=self.retrieval_heads, hidden=hidden)

    def _absence(self, hidden: Tensor, abstention: Abstention) -> float | None:
        """The probability that the video does not show what is asked, from the hidden state [1, D]
        that tells; None where nothing is measured.
        """
        if abstention.threshold is None:
            return None
        return float(abstention.absence(self._language_model.logits(hidden))[0])

    @property
    def _room_for_thoughts(self) -> int:
        return room_for_thoughts(self.backbone.prompt, self._thinking_tokens)

    def _begin(
        self,
        text: Tensor,
        cache: Cache,
        shares: AttentionShares,
        cancelled: threading.Event | None = None,
        *,
        thinks: bool | None = None,
    ) -> Tensor:
        """[1, D]: the last hidden state of the text, or behind the thought that it begins. thinks:
        None = as the model's prompt ends, or as the model then begins if a thought is expected.
        """
        model, thought = self._language_model, self._thought
        opened = thought is not None and (thought.opened if thinks is None else thinks)
        hidden = model.forward(text, cache, None if opened else shares)[-1]
        if opened:
            shares.pass_over(len(text))
        elif thought is not None and thought.expected:
            opened = int(model.logits(hidden[None])[0].argmax()) == thought.begin
            if opened:
                hidden = model.forward(model.embed([thought.begin]), cache)[-1]
                shares.pass_over(1)
        if opened:
            prompt, most = self.backbone.prompt, self._thinking_tokens
            hidden = think(model, prompt, hidden, cache, shares, most, cancelled)
        return hidden[None]

    def logits(self, evidence: Evidence, timer: Timer) -> Tensor:
        """[n, V] float32 logits at every position of the prompt's suffix; the exactness law
        compares them."""
        lines = self.lines_behind(evidence)
        suffix = self.prompt_suffix(evidence.question.text, lines, evidence.titles)
        with self.context(evidence, len(suffix), timer) as (cache, _):
            return self._language_model.logits(self._language_model.forward(suffix, cache))

    def _log_likelihood(self, hidden: Tensor, ids: list[int], cache: Cache, ends: bool) -> float:
        """Of token ids behind the last hidden state [1, D]. The cache is afterwards as before."""
        hidden_after = self._states(self._language_model.embed(ids), cache)  # [n, D]
        logits = self._language_model.logits(torch.cat([hidden, hidden_after]))  # [n + 1, V]
        stops = self.backbone.prompt.stop_ids() if ends else ()
        return log_likelihood(logits.log_softmax(-1), ids, stops)

    def _states(self, embeds: Tensor, cache: Cache) -> Tensor:
        """Hidden states [n, D] of a text [n, D] behind the cache, which is afterwards as before."""
        mark = cache.mark() if isinstance(cache, FixedCache) else None
        # nothing can be removed from the library's cache, so a copy takes its place
        scratch = copy.deepcopy(cache) if mark is None else cache
        hidden = self._language_model.forward(embeds, scratch)
        if mark is not None:
            assert isinstance(cache, FixedCache)
            cache.rewind(mark)
        return hidden

    def _cache_for(self, capacity: int) -> Cache:
        """A cache that holds the sink and has room for `capacity` tokens."""
        if self._cache is None or self._cache.capacity < capacity:
            cache = self._language_model.cache(capacity + _SPARE_TOKENS)
            if len(self.sink):
                self._language_model.prefill(self.sink, cache)
            if isinstance(cache, LibraryCache):
                return cache
            self._cache, self._empty = cache, cache.mark()
        self._cache.rewind(self._empty)
        self._cache.context_attention = None
        self._cache.host = None
        self._cache.hidden = None
        return self._cache

    def _guesser(self, evidence: Evidence, suffix: Tensor, most: int) -> Guesser | None:
        """A short context of the frames that rank first, with the question; None where nothing is
        guessed: models that think, and evidence of each layer's or head's own."""
        own = self.kv_policy.guesses
        apart = evidence.per_layer is not None or evidence.per_head is not None
        if own is None or apart or self._thought is not None:
            return None
        layout = self.layout(evidence.of_best(own[0]))
        cache = self._language_model.cache(layout.length + len(suffix) + most + own[1])
        if not isinstance(cache, FixedCache):
            return None
        if len(self.sink):
            self._language_model.prefill(self.sink, cache)
        layout.write(cache)
        self._language_model.prefill(suffix, cache)
        return Guesser(self._language_model, cache, own[1])

    def _host_tokens(self, evidence: Evidence, layout: Layout) -> int:
        """Tokens of the context that lie in the memory of the host. UserError where text stands
        between them, which is computed on the device, or where layers read frames of their own."""
        host = self.kv_policy.host_tokens(layout.length, len(self.sink))
        has_text = bool(evidence.titles) or (self.lines == BETWEEN and bool(evidence.lines))
        if host and (has_text or evidence.per_layer is not None):
            raise UserError(
                "kv_policy=host_part reads the frames of one video without text between them, the "
                "same in every layer; ask about one video, with reader.lines=behind and without "
                "retriever.per_layer=true."
            )
        return host

    def _without_frames(self) -> Layout:
        """The layout of evidence that holds no frames."""
        owners = self._owners([]).expand(self._language_model.kv_shape.layers, -1)
        return Layout(len(self.sink), owners, lambda cache: None)

    def _title(self, evidence: Evidence, video_id: str) -> Tensor:
        """[n, D] embeddings of the text before the frames of a video; n is 0 for a single video."""
        title = evidence.titles.get(video_id)
        ids = [] if title is None else self.backbone.prompt.ids(title.heading)
        return self._language_model.embed(ids)

    def _in_order(self, evidence: Evidence) -> tuple[dict[str, list[Run]], Tensor]:
        """The runs of each video in the order in which they are read, and the number in the
        evidence of every frame in that order: [F]. A frame that repeats the one before it stays
        behind it."""
        if self._order.is_time:
            return evidence.videos, torch.arange(evidence.frame_count)
        ranks = dict(zip(evidence.ranking, range(evidence.frame_count), strict=False))
        ordered: dict[str, list[Run]] = {}
        numbers: list[int] = []
        for video_id, runs in evidence.videos.items():
            first, groups = len(numbers), list[list[Run]]()
            for frame in (each for run in runs for each in run.single_frames()):
                repeats = frame.tokens.repeats
                if groups and repeats is not None and bool(repeats[0]):
                    groups[-1].append(frame)
                else:
                    groups.append([frame])
            starts = [first]
            for group in groups:
                starts.append(starts[-1] + len(group))
            places = [range(a, b) for a, b in pairwise(starts)]
            # frames that were not ranked, such as the newest ones, count as the least match
            own = [min(ranks.get(n, evidence.frame_count) for n in place) for place in places]
            order = self._order(own)
            ordered[video_id] = [frame for number in order for frame in groups[number]]
            numbers += [n for number in order for n in places[number]]
        return ordered, torch.tensor(numbers, dtype=torch.int64)

    def _owners(self, counts: Sequence[Tensor], numbers: Tensor | None = None) -> Tensor:
        """[S] number of each context token's frame, -1 for text. counts: for each video [1] tokens
        of the text before it, then [T] tokens of each of its frames. numbers: [F] of the frames in
        this order, in the evidence; None: they are read in time order."""
        owners, number = [torch.full((len(self.sink),), -1)], 0
        for text, frames in zip(counts[::2], counts[1::2], strict=False):
            owners.append(torch.full((int(text),), -1))
            places = torch.arange(number, number + len(frames))
            owners.append(places.repeat_interleave(frames))
            number += len(frames)
        if len(counts) % 2:  # text without frames
            owners.append(torch.full((int(counts[-1]),), -1))
        joined = torch.cat(owners)
        return joined if numbers is None else torch.cat([numbers, torch.tensor([-1])])[joined]


def hidden_from_heads(per_head: Tensor, frames_of: Tensor) -> Tensor:
    """bool [L, Hq, S]: True where a token of the context [L, S] belongs to a frame that is not
    among those of a head, [L, Hq, n] numbers. Text is hidden from none.
    """
    layers, heads, _ = per_head.shape
    reads = torch.zeros(layers, heads, int(frames_of.max()) + 2, dtype=torch.bool)
    reads[..., 0] = True  # the number of text is -1
    reads.scatter_(-1, per_head + 1, True)
    owners = (frames_of.cpu() + 1)[:, None].expand(-1, heads, -1)
    return ~reads.gather(-1, owners)

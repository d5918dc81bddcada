"""Several questions about one bank answered in one pass of the model: their contexts lie side by side, and each call of the
decoder takes a step in all of them. A step of eight costs little more than a step of one: weights are read once.

The answers are those of `reader.read` and `reader.weigh` up to rounding (a matrix product of eight rows adds in another order
than one of one row), so whoever needs the same answers twice asks in the same groups. Models with layers that slide or recur
keep no context that could be laid beside others: they are asked one by one. Knows no disk and no retrieval.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from encoders.models.batched_cache import StackedCache
from encoders.models.kv_cache import FixedCache
from memory.schema import Evidence
from pipeline.answer.attention_shares import Gaze
from pipeline.answer.reader import KVReader, Reading, Timer, TokenReader
from pipeline.runtime.torch_threads import one_thread

_STEP = 64  # tokens by which the buffer's length goes
_MANY = 128  # tokens of one pass that keep all cores busy, however narrow the decoder

Weighed = tuple[list[float], dict[int, float]]


class Together:
    """A reader for several questions at a time. One group at a time: the buffer is kept for the next one."""

    def __init__(self, reader: TokenReader | KVReader) -> None:
        self.reader, self.backbone = reader, reader.backbone
        self._stack: StackedCache | None = None
        self._sink: FixedCache | None = None  # what every row begins with

    def read(self, group: Sequence[Evidence], timer: Timer) -> list[Reading]:
        """The answers to the questions of the evidence, in order."""
        if self._alone(group):
            return [self.reader.read(evidence, timer) for evidence in group]
        most = self.reader.max_new_tokens
        tails = [self.reader.tail(evidence.question.prompt, evidence.lines) for evidence in group]
        with self._laid(group, max(map(len, tails)) + most, timer) as (stack, gaze):
            with timer("first_token"), self._narrowed(sum(map(len, tails))):
                hidden = self._asked(tails, stack, gaze)  # [B, D]
            with timer("decode"), self._narrowed():
                answers = self._decoded(hidden, stack, gaze, most)
            with timer("cite"):
                gaze.settle()
        return [
            Reading(self.backbone.text_of(ids).strip(), gaze.weights(row))
            for row, ids in enumerate(answers)
        ]

    def weigh(
        self,
        group: Sequence[Evidence],
        questions: Sequence[str],
        answers: Sequence[Sequence[Sequence[int]]],
        timer: Timer,
        *,
        ends: bool = True,
    ) -> list[Weighed]:
        """For each question what `reader.weigh` returns: the log-likelihood of each of its answers, and frames' weights."""
        if self._alone(group):
            asked = zip(group, questions, answers, strict=True)
            return [
                self.reader.weigh(one, question, own, timer, ends=ends)
                for one, question, own in asked
            ]
        tails = [
            self.reader.tail(question, one.lines)
            for question, one in zip(questions, group, strict=True)
        ]
        longest = max(len(ids) for own in answers for ids in own)
        with self._laid(group, max(map(len, tails)) + longest, timer) as (stack, gaze):
            with timer("first_token"), self._narrowed(sum(map(len, tails))):
                hidden = self._asked(tails, stack, gaze)
            with timer("options"), self._narrowed():
                mark = stack.mark()
                scores: list[list[float]] = [[] for _ in group]
                for number in range(max(map(len, answers))):
                    some = [list(own[number]) if number < len(own) else [] for own in answers]
                    for row, likelihood in enumerate(self._likelihoods(hidden, some, stack, ends)):
                        if some[row]:
                            scores[row].append(likelihood)
                    stack.rewind(mark)
                best = [max(range(len(own)), key=own.__getitem__) for own in scores]
                self._tell(
                    [list(own[i]) for own, i in zip(answers, best, strict=True)], stack, gaze
                )
            with timer("cite"):
                gaze.settle()
        return [(own, gaze.weights(row)) for row, own in enumerate(scores)]

    # ---- inside

    def _alone(self, group: Sequence[Evidence]) -> bool:
        return len(group) < 2 or bool(self.backbone.full_attention)

    def _narrowed(self, tokens: int = 1) -> AbstractContextManager[None]:
        """One of torch's threads for what waits for threads longer than it computes (a row of eight is still a small product);
        a pass over many tokens, and how citations are made up, divide well."""
        return one_thread(self.backbone.is_narrow and tokens < _MANY)

    @contextmanager
    def _laid(
        self, group: Sequence[Evidence], room: int, timer: Timer
    ) -> Iterator[tuple[StackedCache, Gaze]]:
        """Contexts side by side with `room` tokens free behind the longest; nobody else has the buffer meanwhile."""
        with self.reader.turn():
            with timer("lay_out"), self._narrowed():
                layouts = [self.reader.layout(evidence) for evidence in group]
                stack = self._room_for(len(group), max(layout.length for layout in layouts) + room)
                for layout, row in zip(layouts, stack.rows, strict=True):
                    layout.lay(row)
                stack.join()
            yield stack, Gaze([layout.frames_of for layout in layouts], stack.seen)

    def _room_for(self, rows: int, capacity: int) -> StackedCache:
        """As large as it must be, for every step reads all of it; in memory that is kept for the next group."""
        capacity = -(-capacity // _STEP) * _STEP
        if self._stack is None or len(self._stack.rows) != rows or self._stack.capacity < capacity:
            self._stack = None  # before the new one is made, so that there are never two
            self._stack = self.backbone.stack(rows, capacity + 256)
        if self._sink is None:
            cache = self.backbone.cache(len(self.reader.sink))
            assert isinstance(cache, FixedCache)  # others are asked one by one
            self.backbone.fill(self.reader.sink, cache)
            self._sink = cache
        stack = self._stack.of(capacity)
        stack.begin(self._sink)
        return stack

    def _asked(self, tails: Sequence[Tensor], stack: StackedCache, gaze: Gaze) -> Tensor:
        """[B, D] hidden states of the tails' last tokens."""
        last = [len(tail) - 1 for tail in tails]
        gaze.aim(last, [True] * len(tails))
        hidden = self.backbone.advance_all(tails, stack, gaze)
        return hidden[torch.arange(len(tails)), last]

    def _decoded(
        self, hidden: Tensor, stack: StackedCache, gaze: Gaze, most: int
    ) -> list[list[int]]:
        """Greedy decoding from the last hidden states [B, D]: token ids of each row, the stop token not among them."""
        stops = self.backbone.stop_ids()
        answers: list[list[int]] = [[] for _ in hidden]
        going = [True] * len(answers)
        for step in range(most):
            tokens = self.backbone.logits(hidden).argmax(-1).tolist()
            going = [on and token not in stops for on, token in zip(going, tokens, strict=True)]
            for ids, token, on in zip(answers, tokens, going, strict=True):
                if on:
                    ids.append(token)
            if not any(going) or step + 1 == most:
                break
            hidden = self._stepped(
                [[token] if on else [] for token, on in zip(tokens, going, strict=True)],
                stack,
                gaze,
            )
        return answers

    def _tell(self, answers: Sequence[list[int]], stack: StackedCache, gaze: Gaze) -> None:
        """Give these answers token by token, as decoding does."""
        for step in range(max(map(len, answers))):
            self._stepped([ids[step : step + 1] for ids in answers], stack, gaze)

    def _stepped(self, tokens: Sequence[list[int]], stack: StackedCache, gaze: Gaze) -> Tensor:
        """One token, or none, behind each row; -> [B, D]."""
        gaze.aim([0] * len(tokens), [bool(ids) for ids in tokens])
        return self.backbone.advance_all(self._embedded(tokens), stack, gaze)[:, -1]

    def _embedded(self, texts: Sequence[list[int]]) -> Sequence[Tensor]:
        """[n, D] of each text's token ids, looked up at once."""
        return self.backbone.embed([token for ids in texts for token in ids]).split(
            [len(ids) for ids in texts]
        )

    def _likelihoods(
        self, hidden: Tensor, some: Sequence[list[int]], stack: StackedCache, ends: bool
    ) -> list[float]:
        """Of token ids behind the last hidden states [B, D]; of a row without any, of saying nothing."""
        more = self.backbone.advance_all(self._embedded(some), stack)  # [B, n, D]
        # [B, n + 1, V]
        logs = self.backbone.logits(torch.cat([hidden[:, None], more], dim=1)).log_softmax(-1)
        found = []
        for own, ids in zip(logs, some, strict=True):
            told = (
                own[: len(ids)]
                .gather(1, torch.tensor(ids, dtype=torch.int64, device=own.device)[:, None])
                .sum()
            )
            if ends:
                told = told + own[len(ids), sorted(self.backbone.stop_ids())].logsumexp(0)
            found.append(float(told))
        return found

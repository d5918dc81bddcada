"""Several questions about one bank in one pass of the model. Their contexts lie side by side, and
each call of the decoder takes a step in all of them. A step for eight questions costs little more
than a step for one, because the weights are read once.

Answers and likelihoods equal those of the reader up to rounding: a matrix product of eight rows
adds in another order than a product of one row. The same answers twice need the same groups. Models
with sliding or recurrent layers have no context that can lie beside others, so their questions are
read one by one. Knows no disk and no retrieval.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from encoders.encoder import Timer
from encoders.models.batched_cache import BatchedCache
from encoders.models.kv_cache import FixedCache
from memory.schema import Evidence
from pipeline.answer.abstention import instructed, is_absent
from pipeline.answer.attention.attention_shares import AttentionShares
from pipeline.answer.likelihood import log_likelihood
from pipeline.answer.schema import Likelihoods, Reader
from pipeline.runtime.torch_threads import one_thread
from pipeline.schema import NOT_SHOWN, Reading

_STEP = 64  # tokens: the buffer's length is a multiple of it
_SPARE_TOKENS = 256  # beyond the request: a longer group next time then needs no new buffer
_MANY_TOKENS = 128  # in one pass keep all cores busy, even in a narrow decoder


class BatchedReader:
    """A reader for several questions at a time. One group at a time: the next group reuses the
    buffer."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.backbone = reader, reader.backbone
        self._language_model = reader.language_model
        self._stack: BatchedCache | None = None
        self._sink: FixedCache | None = None  # the beginning of every row

    def read(self, group: Sequence[Evidence], timer: Timer) -> list[Reading]:
        """The answers to the questions of the evidence, in order."""
        if self._one_by_one(group):
            return [self.reader.read(evidence, timer) for evidence in group]
        most = self.reader.max_new_tokens
        abstention = self.reader.abstention
        suffixes = [
            self.reader.prompt_suffix(
                instructed(evidence.question.prompt, abstention),
                self.reader.lines_behind(evidence),
                evidence.titles,
            )
            for evidence in group
        ]
        checks = [self.reader.check_suffix(evidence) for evidence in group]
        room = max(max(map(len, suffixes)) + most, *map(len, checks))
        with self._contexts(group, room, timer) as (stack, shares):
            with timer("first_token"), self._narrowed(sum(map(len, suffixes))):
                telling = self._checked(checks, stack) if len(checks[0]) else None
                hidden = self._prefill(suffixes, stack, shares)  # [B, D]
                absences = self._absences(hidden if telling is None else telling)
            absent = [is_absent(each, abstention) for each in absences]
            with timer("decode"), self._narrowed():
                answers = self._decode(hidden, stack, shares, most, absent)
            with timer("cite"):
                shares.finish([len(ids) < most for ids in answers])
        thought = self.backbone.prompt.thought
        return [
            Reading(NOT_SHOWN, {}, absence=absences[row])
            if absent[row]
            else self.reader.read(group[row], timer)  # it thinks unasked, and rows advance together
            if thought is not None and ids[:1] == [thought.begin]
            else Reading(
                self.backbone.prompt.text_of(ids).strip(),
                shares.weights(group[row].names, row),
                absence=absences[row],
            )
            for row, ids in enumerate(answers)
        ]

    def log_likelihoods(
        self,
        group: Sequence[Evidence],
        questions: Sequence[str],
        answers: Sequence[Sequence[Sequence[int]]],
        timer: Timer,
        *,
        ends: bool = True,
    ) -> list[Likelihoods]:
        """For each question what `Reader.log_likelihoods` returns. answers: token ids of each
        question's answers."""
        if self._one_by_one(group):
            rows = zip(group, questions, answers, strict=True)
            return [
                self.reader.log_likelihoods(evidence, question, own, timer, ends=ends)
                for evidence, question, own in rows
            ]
        suffixes = [
            self.reader.prompt_suffix(question, self.reader.lines_behind(evidence), evidence.titles)
            for question, evidence in zip(questions, group, strict=True)
        ]
        longest = max(len(ids) for own in answers for ids in own)
        with self._contexts(group, max(map(len, suffixes)) + longest, timer) as (stack, shares):
            with timer("first_token"), self._narrowed(sum(map(len, suffixes))):
                hidden = self._prefill(suffixes, stack, shares)
            with timer("options"), self._narrowed():
                values = self._score(hidden, answers, stack, ends)
                best = [max(range(len(own)), key=own.__getitem__) for own in values]
                self._give(
                    [list(own[i]) for own, i in zip(answers, best, strict=True)], stack, shares
                )
            with timer("cite"):
                shares.finish([True] * len(group))
        return [
            Likelihoods(own, shares.weights(evidence.names, row))
            for row, (own, evidence) in enumerate(zip(values, group, strict=True))
        ]

    # ---- inside

    def _one_by_one(self, group: Sequence[Evidence]) -> bool:
        thought = self.backbone.prompt.thought
        thinks = thought is not None and thought.expected
        # the places of a row depend on its length, or on what each of its heads reads
        is_alone = self.reader.kv_policy.reads_otherwise or any(
            evidence.per_head is not None for evidence in group
        )
        return len(group) < 2 or thinks or is_alone or bool(self._language_model.other_layers)

    def _narrowed(self, tokens: int = 1) -> AbstractContextManager[None]:
        """One torch thread for steps that wait for threads longer than they compute: a row of eight
        is still a small product. A pass over many tokens and the citations divide well."""
        return one_thread(self._language_model.is_narrow and tokens < _MANY_TOKENS)

    @contextmanager
    def _contexts(
        self, group: Sequence[Evidence], room: int, timer: Timer
    ) -> Iterator[tuple[BatchedCache, AttentionShares]]:
        """Contexts side by side, with `room` free tokens behind the longest. No other question uses
        the buffer meanwhile."""
        with self.reader.exclusive():
            with timer("lay_out"), self._narrowed():
                layouts = [self.reader.layout(evidence) for evidence in group]
                longest = max(layout.length for layout in layouts)
                stack = self._stack_for(len(group), longest + room)
                for layout, row in zip(layouts, stack.rows, strict=True):
                    layout.write(row)
                    self._language_model.refuse_beyond(row.cursor, room)
                stack.join()
            frames_of = [layout.frames_of for layout in layouts]
            yield stack, AttentionShares(frames_of, stack.valid, self.reader.retrieval_heads)

    def _stack_for(self, rows: int, capacity: int) -> BatchedCache:
        """A stack of this size in the buffer. It is no larger than it must be, because every step
        reads all of it."""
        capacity = -(-capacity // _STEP) * _STEP
        if self._stack is None or len(self._stack.rows) != rows or self._stack.capacity < capacity:
            self._stack = None  # before the new one is made, so that there are never two
            self._stack = self._language_model.batched_cache(rows, capacity + _SPARE_TOKENS)
        if self._sink is None:
            cache = self._language_model.cache(len(self.reader.sink))
            assert isinstance(cache, FixedCache)  # models with other caches are read one by one
            if len(self.reader.sink):
                self._language_model.prefill(self.reader.sink, cache)
            self._sink = cache
        stack = self._stack.with_capacity(capacity)
        stack.broadcast(self._sink)
        return stack

    def _prefill(
        self, suffixes: Sequence[Tensor], stack: BatchedCache, shares: AttentionShares
    ) -> Tensor:
        """[B, D] hidden states of the suffixes' last tokens."""
        last = [len(suffix) - 1 for suffix in suffixes]
        shares.select_queries(last, [True] * len(suffixes))
        hidden = self._language_model.forward_batch(suffixes, stack, shares)
        return hidden[torch.arange(len(suffixes)), last]

    def _checked(self, checks: Sequence[Tensor], stack: BatchedCache) -> Tensor:
        """[B, D] hidden states behind a prompt of each row. The stack is afterwards as before."""
        mark = stack.mark()
        hidden = self._language_model.forward_batch(checks, stack)  # [B, n, D]
        stack.rewind(mark)
        return hidden[torch.arange(len(checks)), [len(check) - 1 for check in checks]]

    def _absences(self, telling: Tensor) -> list[float | None]:
        """Of each row the probability that its frames do not show what is asked, from the hidden
        states [B, D] that tell; None where nothing is measured."""
        abstention = self.reader.abstention
        if abstention.threshold is None:
            return [None] * len(telling)
        return [float(p) for p in abstention.absence(self._language_model.logits(telling))]

    def _decode(
        self,
        hidden: Tensor,
        stack: BatchedCache,
        shares: AttentionShares,
        most: int,
        absent: Sequence[bool],
    ) -> list[list[int]]:
        """Greedy decoding from the last hidden states [B, D]: token ids of each row, without the
        stop token. absent: rows that answer nothing."""
        stops = self.backbone.prompt.stop_ids()
        answers: list[list[int]] = [[] for _ in hidden]
        active = [not each for each in absent]
        for step in range(most):
            tokens = self._language_model.logits(hidden).argmax(-1).tolist()
            active = [on and token not in stops for on, token in zip(active, tokens, strict=True)]
            for ids, token, on in zip(answers, tokens, active, strict=True):
                if on:
                    ids.append(token)
            if not any(active) or step + 1 == most:
                break
            hidden = self._advance(
                [[token] if on else [] for token, on in zip(tokens, active, strict=True)],
                stack,
                shares,
            )
        return answers

    def _score(
        self,
        hidden: Tensor,
        answers: Sequence[Sequence[Sequence[int]]],
        stack: BatchedCache,
        ends: bool,
    ) -> list[list[float]]:
        """Log-likelihood of each answer behind the last hidden states [B, D]. The stack is
        afterwards as before."""
        mark = stack.mark()
        stops = self.backbone.prompt.stop_ids() if ends else ()
        values: list[list[float]] = [[] for _ in answers]
        for number in range(max(map(len, answers))):
            # a row with fewer answers takes an empty step
            step = [list(own[number]) if number < len(own) else [] for own in answers]
            hidden_after = self._language_model.forward_batch(self._embed(step), stack)  # [B, n, D]
            logits = self._language_model.logits(torch.cat([hidden[:, None], hidden_after], dim=1))
            log_probs = logits.log_softmax(-1)  # [B, n + 1, V]
            for row, ids in enumerate(step):
                if ids:
                    values[row].append(log_likelihood(log_probs[row], ids, stops))
            stack.rewind(mark)
        return values

    def _give(
        self, answers: Sequence[list[int]], stack: BatchedCache, shares: AttentionShares
    ) -> None:
        """Give these answers token by token, as decoding does."""
        for step in range(max(map(len, answers))):
            self._advance([ids[step : step + 1] for ids in answers], stack, shares)

    def _advance(
        self, tokens: Sequence[list[int]], stack: BatchedCache, shares: AttentionShares
    ) -> Tensor:
        """One token, or none, behind each row; -> [B, D]."""
        shares.select_queries([0] * len(tokens), [bool(ids) for ids in tokens])
        return self._language_model.forward_batch(self._embed(tokens), stack, shares)[:, -1]

    def _embed(self, texts: Sequence[list[int]]) -> Sequence[Tensor]:
        """[n, D] of each text's token ids, looked up in one call."""
        return self._language_model.embed([token for ids in texts for token in ids]).split(
            [len(ids) for ids in texts]
        )

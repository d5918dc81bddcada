"""The role of a reader, and the records that it works with. Knows no implementation.

Shapes: S context tokens, L layers, D model width, V vocabulary.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeGuard

from torch import Tensor

from encoders.encoder import Timer
from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.models.kv_cache import FixedCache, LibraryCache
from encoders.models.language_model import LanguageModel
from encoders.models.loading.retrieval_heads import RetrievalHeads
from encoders.text.lines import TextLine
from memory.schema import Evidence, FrameName, VideoTitle
from pipeline.kv_policy.schema import KVPolicy
from pipeline.runtime.cancel import Emit
from pipeline.schema import Reading

Cache = FixedCache | LibraryCache


@dataclass(frozen=True, slots=True)
class Layout:
    """A context that is ready to be written behind the sink of a cache."""

    length: int  # tokens, including the sink
    # [L, S] int64: the number in the evidence of each context token's frame per layer, -1 for text
    frames_of: Tensor
    write: Callable[[Cache], object]  # into a cache that holds the sink and has room


class NothingSeenError(UserError):
    """A question sees no frame of its videos."""


class Likelihoods(NamedTuple):
    """What a reader finds of several possible answers to one question."""

    values: list[float]  # log-likelihood of each answer
    weights: dict[FrameName, float]  # shares of attention while the likeliest is given


class Abstention(Protocol):
    """How a model is led to say "not in the video", and when it is taken to mean that."""

    instruction: str  # text behind the question in the prompt; "": none
    # a prompt of its own, with {question}, whose next token tells; "": that of the answer tells
    check_prompt: str
    # probability of absence from which the answer is "not in the video"; None: nothing is measured
    threshold: float | None

    def absence(self, logits: Tensor) -> Tensor:
        """[B, V] float32 logits of the token that tells -> [B] float32 probability that the video
        does not show what is asked."""
        ...


class EvidenceReader(Protocol):
    """Evidence -> answer, wherever the model runs. All that an answer needs."""

    needs_kv: bool  # whether recall has to load keys and values

    @property
    def model_name(self) -> str:
        """Of the model that answers; "" = the model that the bank was made with."""
        ...

    @property
    def settings(self) -> str:
        """All beside model and evidence that a greedy answer depends on: findings that a bank keeps
        name it."""
        ...

    @property
    def reads_ranking(self) -> bool:
        """Whether an answer depends on how the search ranked the frames that are read."""
        ...

    def read(
        self,
        evidence: Evidence,
        timer: Timer,
        emit: Emit = ...,
        cancelled: threading.Event | None = None,
    ) -> Reading:
        """Answer the question of the evidence. `emit` gets the text in pieces; joined, they are the
        text.
        cancelled: checked before every token; once it is set, Cancelled is raised."""
        ...

    def check_form(self, schema: str) -> None:
        """UserError where no answer can be held to this JSON schema."""
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of a text in a prompt; an estimate where the tokenizer is elsewhere."""
        ...


class GroupReader(Protocol):
    """Answers several questions about one video at a time."""

    def read(self, group: Sequence[Evidence], timer: Timer) -> Sequence[Reading | UserError]:
        """The answers to the questions of the evidence, in order. A question that fails alone has
        its error in its place."""
        ...


class Reader(EvidenceReader, Protocol):
    """A reader with the model in this process. One question at a time uses its cache."""

    backbone: Backbone
    max_new_tokens: int
    abstention: Abstention
    lines: str  # "behind" all frames, or "between" them: where the lines of text stand
    retrieval_heads: RetrievalHeads | None  # whose attention makes citations; None: of all heads
    sink: Tensor  # [P, D] embeddings of the preamble
    kv_policy: KVPolicy

    @property
    def language_model(self) -> LanguageModel:
        """The model as this reader rotates its tokens."""
        ...

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
        ...

    def logits(self, evidence: Evidence, timer: Timer) -> Tensor:
        """[n, V] float32 logits at every position of the prompt's suffix; the exactness law
        compares them."""
        ...

    def prompt_suffix(
        self,
        question: str,
        lines: Sequence[TextLine] = (),
        titles: Mapping[str, VideoTitle] | None = None,
    ) -> Tensor:
        """[n, D] embeddings of what follows the frames: recalled lines, then the question. titles:
        of the videos by id, where lines are of several."""
        ...

    def lines_behind(self, evidence: Evidence) -> tuple[TextLine, ...]:
        """The lines of text that stand behind the frames; the layout has the others."""
        ...

    def check_suffix(self, evidence: Evidence) -> Tensor:
        """[n, D] embeddings of the prompt that asks whether the frames suffice; n = 0: none."""
        ...

    def layout(self, evidence: Evidence) -> Layout:
        """Preamble and frames of a context. Raises UserError when the evidence lacks what this
        reader reads."""
        ...

    def context(
        self, evidence: Evidence, room: int, timer: Timer, cancelled: threading.Event | None = None
    ) -> AbstractContextManager[tuple[Cache, Tensor]]:
        """The cache with the context of one question and `room` free tokens, and the layout's
        `frames_of`."""
        ...

    def exclusive(self, cancelled: threading.Event | None = None) -> AbstractContextManager[None]:
        """No other question computes in the block. Raises Cancelled when that is set before the
        block begins."""
        ...


def is_local(reader: EvidenceReader) -> TypeGuard[Reader]:
    """Whether the model runs in this process, so that given answers can be scored."""
    return hasattr(reader, "log_likelihoods")


def local(reader: EvidenceReader, what: str) -> Reader:
    """The reader, whose model runs in this process. what: needs that; the subject of the error.

    UserError if it runs elsewhere.
    """
    if not is_local(reader):
        raise UserError(
            f"{what} needs a model in this process, which backbone=endpoint is not; choose another "
            "backbone="
        )
    return reader

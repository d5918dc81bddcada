"""A stretch of a film -> chapters with titles, and sentences of the film that tell most.

1 sentences: from the lines of the bank, word for word (pipeline/summary/sentences.py).
2 borders: by meaning where every line has a vector (topic_partition.py), else by words
  (text_tiling.py); a border moves to a cut of the picture that lies in the pause.
3 titles: a heading that shows, or key phrases (key_phrases.py).
4 sentences of each chapter: LexRank and maximal marginal relevance (lex_rank.py).
A film without words has chapters of scenes. Every vector comes from the bank, so nothing is
computed twice. Knows a bank; no language model and no page.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from encoders.errors import UserError
from encoders.text.lines import FINDING, TextLine
from memory.bank import MemoryBank
from memory.storage.catalog import VideoRow
from pipeline.config.units import format_time
from pipeline.summary import key_phrases, lex_rank
from pipeline.summary.model_writer import ModelWriter
from pipeline.summary.scenes import Scenes, scenes
from pipeline.summary.schema import Chapter, CitedSentence, FilmSummary, Span
from pipeline.summary.sentences import PRINTED, SPOKEN, WRITTEN, Sentence, sentences
from pipeline.summary.text_tiling import TextTiling
from pipeline.summary.topic_partition import TopicPartition
from pipeline.summary.word_rows import word_rows

_SHARE = 20  # a shortest chapter takes 1/20 of the stretch
_LEAST_S = 30.0  # and at least so many seconds
_CUT_S = 2.0  # a cut so near to the pause between two topics is their border
_SCENE_PICTURES = 4  # of a chapter without words
# with fewer spoken ones, print and captions are read as well
_FEWEST_SENTENCES = 4
_TELLING_WORDS = 4  # a shorter sentence is in a summary only where there is no longer one
_MOST_WORDS = 60
_PICTURE_S = 1.0  # behind the beginning of a chapter, where a fade is over


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What to summarize of one film."""

    video: VideoRow
    start: float  # seconds
    end: float
    # the chapters, where something else made them, such as a search
    chapters: tuple[Span, ...] = ()
    focus: frozenset[TextLine] = frozenset()  # lines that come first, as a search found them


@dataclass(frozen=True, slots=True)
class _Vectors:
    """The vectors of some sentences."""

    rows: np.ndarray  # [n, E] unit or zero rows
    have_meaning: bool  # of a sentence encoder; otherwise of words


@dataclass(frozen=True)
class Summarizer:
    """Summarizes films of one bank.

    shortest: seconds of the shortest chapter; None: 1/20 of the excerpt, and 30 or more.
    chapter_sentences: sentences of each chapter, at most.
    writer: a model that writes one sentence of each chapter, from what it says of each segment and
    from the words; None: sentences are quoted.
    """

    bank: MemoryBank
    shortest: float | None = None
    chapter_sentences: int = 2
    writer: ModelWriter | None = None
    # rows by meaning of the lines of a film, read once, and of the sentences that were chosen
    _line_rows: dict[str, dict[TextLine, np.ndarray]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _chosen_rows: dict[CitedSentence, np.ndarray] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _scores: dict[CitedSentence, float] = field(  # in their chapters
        default_factory=dict, init=False, repr=False, compare=False
    )

    def summarize(self, excerpt: Excerpt) -> FilmSummary:
        """The chapters of an excerpt. UserError where the bank has nothing of it."""
        info = excerpt.video.info
        if not self.bank.catalog.overlapping(info.video_id, start=excerpt.start, end=excerpt.end):
            raise UserError(
                f"Nothing of {info.path or info.video_id} from {format_time(excerpt.start)} to "
                f"{format_time(excerpt.end)} is in bank {self.bank.name}; give another stretch"
            )
        said = self.sentences_of(excerpt)
        vectors = self._vectors(info.video_id, said)
        seen = scenes(self.bank, info.video_id, excerpt.start, excerpt.end)
        spans = list(excerpt.chapters) or self._spans(excerpt, said, vectors, seen)
        parts = [
            _within(said, span, span[0] if excerpt.chapters else excerpt.start) for span in spans
        ]
        chapters = tuple(
            self._chapter(excerpt, span, number, parts, said, vectors, seen)
            for number, span in enumerate(spans)
        )
        has_words = any(each.kind not in WRITTEN for each in said)
        return FilmSummary(info, excerpt.start, excerpt.end, chapters, has_words)

    def sentences_of(self, excerpt: Excerpt) -> list[Sentence]:
        """The sentences of an excerpt, in time order."""
        video_id, span = excerpt.video.info.video_id, (excerpt.start, excerpt.end)
        lines = self.bank.text.during(video_id, *span)
        if self.writer is not None:
            lines += self._described(video_id, span)
        return sentences(lines)

    def overview(self, films: Sequence[FilmSummary], most: int) -> tuple[CitedSentence, ...]:
        """The best sentence of each chapter of all films, in their order; of many chapters, those
        whose sentences tell most and differ; of few, more sentences of each.
        """
        chapters = [one.sentences for film in films for one in film.chapters if one.sentences]
        every = [each for sentences in chapters for each in sentences]
        leaders = [max(sentences, key=lambda each: self._scores[each]) for sentences in chapters]
        if len(leaders) > most:
            rows = self._rows(leaders)
            chosen = lex_rank.select(rows, lex_rank.centrality(rows), most, balance=0.5)
            return tuple(leaders[number] for number in chosen)
        rest = sorted(set(every) - set(leaders), key=lambda each: (-self._scores[each], each.start))
        kept = {*leaders, *rest[: most - len(leaders)]}
        return tuple(each for each in every if each in kept)

    def _described(self, video_id: str, span: Span) -> list[TextLine]:
        """What the model says of each segment, with vectors where lines have some."""
        assert self.writer is not None
        findings = self.writer.findings(video_id, span)
        encoder = self.writer.answerer.sentence_encoder
        stored = self._stored(video_id)
        new = [line for line in findings if line not in stored]
        if encoder is not None and new:
            stored |= zip(new, encoder.embed([line.text for line in new]).numpy(), strict=True)
        return findings

    # ---- vectors

    def _vectors(self, video_id: str, said: Sequence[Sentence]) -> _Vectors:
        """By meaning where every line has a vector: rows of two kinds cannot be compared."""
        stored = self._stored(video_id)
        if said and all(line in stored for each in said for line in each.lines):
            rows = [lex_rank.unit([stored[line] for line in each.lines]) for each in said]
            return _Vectors(np.stack(rows), True)
        return _Vectors(word_rows([each.text for each in said]), False)

    def _rows(self, chosen: Sequence[CitedSentence]) -> np.ndarray:
        """[n, E] of sentences that chapters chose."""
        if all(each in self._chosen_rows for each in chosen):
            return np.stack([self._chosen_rows[each] for each in chosen])
        return word_rows([each.text for each in chosen])

    def _stored(self, video_id: str) -> dict[TextLine, np.ndarray]:
        if video_id not in self._line_rows:
            self._line_rows[video_id] = self.bank.text.vectors(video_id)
        return self._line_rows[video_id]

    # ---- chapters

    def _spans(
        self, excerpt: Excerpt, said: list[Sentence], vectors: _Vectors, seen: Scenes
    ) -> list[Span]:
        shortest = self._shortest(excerpt)
        numbers = [n for n, each in enumerate(said) if each.kind in SPOKEN]
        if len(numbers) < _FEWEST_SENTENCES:
            numbers = list(range(len(said)))
        borders: list[float] = []
        if numbers:
            units = [said[number] for number in numbers]
            rows, starts = vectors.rows[numbers], [each.start for each in units]
            finder = TopicPartition(shortest) if vectors.have_meaning else TextTiling(shortest)
            for first in finder.borders(rows, starts, excerpt.end):
                pause = max(each.end for each in units[:first][-3:]), units[first].start
                borders.append(_at_cut(pause, seen.cuts))
        elif len(seen.starts) <= _SHARE:
            for cut in seen.starts[1:]:
                if min(cut - max([excerpt.start, *borders]), excerpt.end - cut) >= shortest:
                    borders.append(cut)
        elif seen.rows is not None:
            first_scenes = TopicPartition(shortest).borders(seen.rows, seen.starts, excerpt.end)
            borders = [seen.starts[first] for first in first_scenes]
        edges = sorted({excerpt.start, *borders, excerpt.end})
        return [span for span in pairwise(edges) if span[1] <= excerpt.end]

    def _shortest(self, excerpt: Excerpt) -> float:
        if self.shortest is not None:
            return self.shortest
        return max(_LEAST_S, (excerpt.end - excerpt.start) / _SHARE)

    def _chapter(
        self,
        excerpt: Excerpt,
        span: Span,
        number: int,
        parts: Sequence[Sequence[int]],
        said: Sequence[Sentence],
        vectors: _Vectors,
        seen: Scenes,
    ) -> Chapter:
        own = parts[number]
        words = [[said[n] for n in part] for part in parts]
        quoted = [[each for each in part if each.kind not in WRITTEN] or part for part in words]
        title = key_phrases.title(quoted[number], quoted[:number] + quoted[number + 1 :])
        chosen = self._telling(own, said, vectors, excerpt.focus)
        video_id = excerpt.video.info.video_id
        written = self._written(video_id, span, words[number])
        return Chapter(
            video_id,
            round(span[0], 3),
            round(span[1], 3),
            title or f"Part {number + 1}",
            written or tuple(self._cite(said[n], score, vectors, n) for n, score in chosen),
            _pictures(span, seen, 1 if own else _SCENE_PICTURES),
            self._wall(video_id, span[0]),
        )

    def _written(
        self, video_id: str, span: Span, words: Sequence[Sentence]
    ) -> tuple[CitedSentence, ...]:
        """The model's sentence of a chapter; none without a model, or where it says nothing."""
        if self.writer is None or not words or not self.chapter_sentences:
            return ()
        lines = list(dict.fromkeys(line for each in words for line in each.lines))
        line = self.writer.sentence(video_id, span, lines)
        if line is None:
            return ()
        sources = tuple(dict.fromkeys((each.start, each.end) for each in lines))
        cited = CitedSentence(
            line.text,
            video_id,
            round(min(start for start, _ in sources), 3),
            round(max(end for _, end in sources), 3),
            FINDING,
            sources,
            is_quoted=False,
            parents=line.parents,
        )
        self._scores[cited] = 1.0
        return (cited,)

    def _telling(
        self,
        own: Sequence[int],
        said: Sequence[Sentence],
        vectors: _Vectors,
        focus: frozenset[TextLine],
    ) -> list[tuple[int, float]]:
        """Numbers and scores of the sentences that say most of a chapter, in time order."""
        spoken = [n for n in own if said[n].kind in SPOKEN or not focus.isdisjoint(said[n].lines)]
        if len(spoken) >= _FEWEST_SENTENCES:
            own = spoken  # print beside a talk is in the titles and pictures
        if not own:
            return []
        rows = vectors.rows[list(own)]
        scores = lex_rank.centrality(rows)
        fits = np.array(
            [_TELLING_WORDS <= _length(said[n].text) <= _MOST_WORDS for n in own], dtype=float
        )
        scores = scores * fits if fits.any() else scores
        # a probability is below 1, so what the search found comes before all else
        scores += [float(not focus.isdisjoint(said[n].lines)) for n in own]
        chosen = lex_rank.select(rows, scores, self.chapter_sentences)
        return [(own[place], float(scores[place])) for place in chosen]

    def _cite(
        self, sentence: Sentence, score: float, vectors: _Vectors, number: int
    ) -> CitedSentence:
        """A sentence of the film as a sentence of the summary."""
        cited = CitedSentence(
            sentence.text,
            sentence.video_id,
            round(sentence.start, 3),
            round(sentence.end, 3),
            sentence.kind,
            tuple(dict.fromkeys((line.start, line.end) for line in sentence.lines)),
            is_quoted=sentence.kind not in WRITTEN,
            parents=tuple(sorted({each for line in sentence.lines for each in line.parents})),
        )
        self._scores[cited] = score
        if vectors.have_meaning:
            self._chosen_rows[cited] = vectors.rows[number]
        return cited

    def _wall(self, video_id: str, second: float) -> float | None:
        """Unix seconds of a second of video time; None where the film does not know it."""
        for session in self.bank.catalog.sessions(video_id):
            if session.start <= second < session.end:
                return round(session.began + second, 3)
        return None


def _within(said: Sequence[Sentence], span: Span, low: float) -> list[int]:
    """Numbers of the sentences that begin in a span, and of the print whose middle lies in it. What
    began before `low` (seconds) counts as beginning there.
    """
    return [
        number
        for number, each in enumerate(said)
        if span[0] <= max(_place(each), low) < span[1] and each.end > span[0]
    ]


def _place(sentence: Sentence) -> float:
    """The second that says to which chapter a sentence belongs. A slide may stand while the topic
    changes.
    """
    is_print = sentence.kind == PRINTED
    return (sentence.start + sentence.end) / 2 if is_print else sentence.start


def _at_cut(pause: Span, cuts: Sequence[float]) -> float:
    """The border within a pause: the cut nearest to its end where there is one, else its end."""
    start, end = min(pause), pause[1]
    near = cuts[bisect_left(cuts, start - _CUT_S) : bisect_left(cuts, end + 1e-6)]
    return float(near[-1]) if near else end


def _pictures(span: Span, seen: Scenes, most: int) -> tuple[float, ...]:
    """Seconds that show a chapter: a little behind its beginning, and of its scenes."""
    starts = [span[0], *(cut for cut in seen.starts if span[0] < cut < span[1])]
    step = max(len(starts) / most, 1.0)
    chosen = [starts[int(step * number)] for number in range(min(most, len(starts)))]
    return tuple(round(min(at + _PICTURE_S, (at + span[1]) / 2), 3) for at in chosen)


def _length(text: str) -> int:
    """Words; of a script without blanks, about as many."""
    return max(len(text.split()), len(text) // 6 if not text.isascii() else 0)

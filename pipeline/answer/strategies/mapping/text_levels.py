"""Lines that are more than one prompt holds -> fewer lines, level by level. Knows no frame."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from encoders.text.lines import FINDING, TextLine
from memory.retrieval.common import hits
from memory.schema import Evidence, Question, VideoTitle
from pipeline.answer.strategies.call_log import CallLog
from pipeline.answer.text_evidence import prompt_line
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import is_shown

SHORTEN = (
    "These lines describe parts of a video. Say in one or two sentences what of them helps to "
    'answer "{question}", with its times. If nothing helps, say: not in the video.'
)
ANSWER = (
    "These lines say what each part of a video shows. Answer the question from them alone: "
    '"{question}" If no line answers it, say: not in the video.'
)


@dataclass(frozen=True)
class TextLevels:
    """Shortens lines for one question. Each new line keeps the segments of those that it stands
    for."""

    log: CallLog
    timer: StageTimer
    count_tokens: Callable[[str], int]
    budget: int  # tokens of lines in one prompt, where the window of the model holds as many
    contexts: int  # prompts in one pass
    titles: Mapping[str, VideoTitle] = field(default_factory=dict)  # of several videos, by id
    # a line that stands for lines of several videos -> these
    sources: dict[TextLine, tuple[TextLine, ...]] = field(default_factory=dict)

    def fit(
        self, question: Question, lines: Sequence[TextLine], *, at_least_once: bool = False
    ) -> list[TextLine]:
        """Lines that fit one prompt; none where nothing helps. at_least_once: shortened even where
        they fit."""
        level, is_due = list(lines), at_least_once
        window = self.log.window
        budget = self.budget if window is None else min(self.budget, window)
        while True:
            groups = grouped(level, self.count_tokens, budget, self.titles)
            if not is_due and (len(groups) <= 1 or len(groups) == len(level)):
                return groups[0] if groups else []
            is_due = False
            level = self._shortened(question, self._by_video(level, budget) or groups)

    def rests_on(self, lines: Sequence[TextLine]) -> list[TextLine]:
        """The lines, with those of its videos in place of one that stands for several videos."""
        return [
            source
            for line in lines
            for source in (self.rests_on(self.sources[line]) if line in self.sources else [line])
        ]

    def _by_video(self, level: Sequence[TextLine], budget: int) -> list[list[TextLine]]:
        """Groups of one video each; none where each video has one line already."""
        own: dict[str, list[TextLine]] = {}
        for line in level if self.titles else ():
            own.setdefault(line.video_id, []).append(line)
        groups = [
            group
            for lines in own.values()
            for group in grouped(lines, self.count_tokens, budget, self.titles)
        ]
        return groups if len(groups) < len(level) else []

    def _shortened(
        self, question: Question, groups: Sequence[Sequence[TextLine]]
    ) -> list[TextLine]:
        """One line for each group that has something to say; of several videos, a line that is
        alone stays."""
        asked = SHORTEN.format(question=question.search_text)
        level = {
            number: group[0]
            for number, group in enumerate(groups)
            if self.titles and len(group) == 1 < len(groups)
        }
        longer = [number for number in range(len(groups)) if number not in level]
        for first in range(0, len(longer), self.contexts):
            numbers = longer[first : first + self.contexts]
            contexts = [
                text_context(question, groups[each], asked, self.titles) for each in numbers
            ]
            readings = self.log.read_all("shorten", contexts, self.timer)
            for number, reading in zip(numbers, readings, strict=True):
                if reading.text.strip() and is_shown(reading.text):
                    level[number] = self._merged(groups[number], reading.text)
        return [level[number] for number in sorted(level)]

    def _merged(self, lines: Sequence[TextLine], text: str) -> TextLine:
        """One finding in place of several, which may be of several videos."""
        line = merged(lines, text)
        if len({each.video_id for each in lines}) > 1:
            line = replace(line, video_id="", parents=())
            self.sources[line] = tuple(lines)
        return line


def in_order(question: Question, lines: Iterable[TextLine]) -> list[TextLine]:
    """Lines in time order, one of the question's videos after another."""
    place = {video_id: number for number, video_id in enumerate(question.videos)}
    return sorted(
        lines, key=lambda line: (place.get(line.video_id, 0), line.start, line.end, line.text)
    )


def text_context(
    question: Question,
    lines: Sequence[TextLine],
    asked: str,
    titles: Mapping[str, VideoTitle] | None = None,
) -> Evidence:
    """A context of lines alone, in time order, with another question. titles: of the videos, where
    there are several."""
    ordered = tuple(in_order(question, lines))
    asking = replace(question, text=asked, query="", keep=())
    return Evidence(
        asking, (), hits([], []), recent=0, interval=1.0, lines=ordered, titles=titles or {}
    )


def grouped(
    lines: Sequence[TextLine],
    count_tokens: Callable[[str], int],
    budget: int,
    titles: Mapping[str, VideoTitle] | None = None,
) -> list[list[TextLine]]:
    """Lines in order in groups that fit `budget` tokens each; a longer line is alone. titles: of
    the videos, where there are several."""
    groups: list[list[TextLine]] = []
    left = 0
    for line in lines:
        tokens = count_tokens(prompt_line(line, titles))
        if not groups or tokens > left:
            groups.append([])
            left = budget
        groups[-1].append(line)
        left -= tokens
    return groups


def merged(lines: Sequence[TextLine], text: str) -> TextLine:
    """One finding in place of several: it rests on the segments of all."""
    parents = tuple(sorted({parent for line in lines for parent in line.parents}))
    start, end = min(line.start for line in lines), max(line.end for line in lines)
    return TextLine(lines[0].video_id, start, end, FINDING, text, end, parents=parents)

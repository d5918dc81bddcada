"""Lines that are more than one prompt holds -> fewer lines, level by level. Knows no frame."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from encoders.text.lines import FINDING, TextLine
from memory.retrieval.common import hits
from memory.schema import Evidence, Question
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

    def fit(
        self, question: Question, lines: Sequence[TextLine], *, at_least_once: bool = False
    ) -> list[TextLine]:
        """Lines that fit one prompt; none where nothing helps. at_least_once: shortened even where
        they fit."""
        level, is_due = list(lines), at_least_once
        window = self.log.window
        budget = self.budget if window is None else min(self.budget, window)
        while True:
            groups = grouped(level, self.count_tokens, budget)
            if not is_due and (len(groups) <= 1 or len(groups) == len(level)):
                return groups[0] if groups else []
            is_due = False
            level = self._shortened(question, groups)

    def _shortened(
        self, question: Question, groups: Sequence[Sequence[TextLine]]
    ) -> list[TextLine]:
        """One line for each group that has something to say."""
        asked = SHORTEN.format(question=question.search_text)
        level = []
        for first in range(0, len(groups), self.contexts):
            several = groups[first : first + self.contexts]
            contexts = [text_context(question, group, asked) for group in several]
            readings = self.log.read_all("shorten", contexts, self.timer)
            for group, reading in zip(several, readings, strict=True):
                if reading.text.strip() and is_shown(reading.text):
                    level.append(merged(group, reading.text))
        return level


def text_context(question: Question, lines: Sequence[TextLine], asked: str) -> Evidence:
    """A context of lines alone, in time order, with another question."""
    ordered = tuple(sorted(lines, key=lambda line: (line.start, line.end, line.text)))
    asking = replace(question, text=asked, query="", keep=())
    return Evidence(asking, (), hits([], []), recent=0, interval=1.0, lines=ordered)


def grouped(
    lines: Sequence[TextLine], count_tokens: Callable[[str], int], budget: int
) -> list[list[TextLine]]:
    """Lines in time order in groups that fit `budget` tokens each; a longer line is alone."""
    groups: list[list[TextLine]] = []
    left = 0
    for line in lines:
        tokens = count_tokens(prompt_line(line))
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

"""Choose an option: the one with the highest likelihood, or the one that the answer names.

Knows the reader; no files. Each part takes questions with options only. An answer that names no
option is no choice; it counts as wrong and is reported.
"""

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from encoders.errors import UserError
from memory.schema import Evidence
from pipeline.answer.batched_reader import BatchedReader
from pipeline.answer.likelihood import likelier_spellings, spellings
from pipeline.answer.schema import GroupReader, Likelihoods
from pipeline.batch.schema import LETTERS, Job
from pipeline.endpoint.reader import EndpointGroup
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import Reading

NEEDS_LETTERS = (
    "option_choice.candidate=text needs a model in this process; with backbone=endpoint use "
    "option_choice=parse, or option_choice=letters where the server gives log-probabilities"
)

_NO_LETTER = "no letter of an option"  # the answer of a model whose first token is another word


@dataclass(frozen=True, slots=True)
class OptionResult:
    """The outcome of one question with options."""

    reading: Reading
    letter: str | None  # None: the answer names no option
    # log-likelihood of each option; () when options were not scored
    scores: tuple[float, ...] = ()


class OptionChoice(Protocol):
    """How an option is chosen."""

    def check(self, reader: GroupReader) -> None:
        """UserError if no option can be chosen with this reader; before the first question."""
        ...

    def __call__(
        self,
        jobs: Sequence[Job],
        reader: GroupReader,
        group: Sequence[Evidence],
        clock: StageTimer,
    ) -> list[OptionResult | UserError]:
        """The outcome of each question, in order. One that fails alone has its error in its
        place."""
        ...


class ByLikelihood:
    """The option with the highest log-likelihood. Nothing is decoded; a model in this process
    always gives a choice. A model behind an address scores letters, by its first token.
    """

    def __init__(self, *, prompt: str, candidate: str, per_token: bool) -> None:
        """prompt: what is asked, with {question} and optionally {options}.

        candidate: score the "text" of each option or its "letter". per_token: divide by the number
        of tokens, so that long options are not at a disadvantage; the plain sum is the likelihood
        that the model says exactly this.
        """
        _check_prompt(prompt)
        if candidate not in ("text", "letter"):
            raise UserError(f"option_choice.candidate={candidate} is not known; use text or letter")
        if candidate == "letter" and "{options" not in prompt:
            raise UserError(
                "option_choice.candidate=letter needs {options} in option_choice.prompt: letters "
                "say nothing "
                "without them"
            )
        self.prompt, self.candidate, self.per_token = prompt, candidate, per_token

    def check(self, reader: GroupReader) -> None:
        if isinstance(reader, BatchedReader):
            return
        if not isinstance(reader, EndpointGroup) or self.candidate != "letter":
            raise UserError(NEEDS_LETTERS)
        reader.check_letters()

    def __call__(
        self,
        jobs: Sequence[Job],
        reader: GroupReader,
        group: Sequence[Evidence],
        clock: StageTimer,
    ) -> list[OptionResult | UserError]:
        if isinstance(reader, EndpointGroup):
            return self._by_letters(jobs, reader, group, clock)
        if not isinstance(reader, BatchedReader):
            raise UserError(NEEDS_LETTERS)
        letters = self.candidate == "letter"
        words = [
            list(LETTERS[: len(job.options)]) if letters else list(job.options) for job in jobs
        ]
        forms = [spellings(reader.backbone, own) for own in words]
        prompts = [render_prompt(self.prompt, job) for job in jobs]
        likelihoods = reader.log_likelihoods(group, prompts, forms, clock, ends=not letters)
        return [self._best_option(*one) for one in zip(jobs, forms, likelihoods, strict=True)]

    def _by_letters(
        self,
        jobs: Sequence[Job],
        reader: EndpointGroup,
        group: Sequence[Evidence],
        clock: StageTimer,
    ) -> list[OptionResult | UserError]:
        """The likeliest letter of a model behind an address. One that names none is no choice."""
        prompted = [_prompted(self.prompt, *pair) for pair in zip(jobs, group, strict=True)]
        letters = [LETTERS[: len(job.options)] for job in jobs]
        results: list[OptionResult | UserError] = []
        for job, one in zip(jobs, reader.read_letters(prompted, letters, clock), strict=True):
            if isinstance(one, UserError):
                results.append(one)
                continue
            reading, scores = one
            letter = max(scores, key=scores.__getitem__) if scores else None
            text = job.options[LETTERS.index(letter)] if letter else _NO_LETTER
            results.append(
                OptionResult(replace(reading, text=text), letter, tuple(scores.values()))
            )
        return results

    def _best_option(
        self, job: Job, forms: Sequence[list[int]], likelihoods: Likelihoods
    ) -> OptionResult:
        values = likelihoods.values
        if self.per_token:
            values = [value / len(ids) for value, ids in zip(values, forms, strict=True)]
        scores = likelier_spellings(values)
        best = max(range(len(scores)), key=scores.__getitem__)
        return OptionResult(
            Reading(job.options[best], likelihoods.weights), LETTERS[best], tuple(scores)
        )


class ByParsing:
    """The option that the model's own words name."""

    def __init__(self, *, prompt: str) -> None:
        """prompt: what is asked, with {question} and {options}. A row's own prompt replaces it."""
        _check_prompt(prompt)
        self.prompt = prompt

    def check(self, reader: GroupReader) -> None:
        """Every reader answers in words."""

    def __call__(
        self,
        jobs: Sequence[Job],
        reader: GroupReader,
        group: Sequence[Evidence],
        clock: StageTimer,
    ) -> list[OptionResult | UserError]:
        prompted = [
            _prompted(job.prompt or self.prompt, job, evidence)
            for job, evidence in zip(jobs, group, strict=True)
        ]
        readings = reader.read(prompted, clock)
        return [
            reading
            if isinstance(reading, UserError)
            else OptionResult(reading, parse(reading.text, job.options))
            for job, reading in zip(jobs, readings, strict=True)
        ]


def _prompted(prompt: str, job: Job, evidence: Evidence) -> Evidence:
    """The evidence with what is asked in place of the bare question."""
    return replace(evidence, question=replace(evidence.question, text=render_prompt(prompt, job)))


_FORMS = {  # name -> (format of one option, separator)
    "options": ("{}. {}", "\n"),
    "options_in_brackets": ("({}) {}", "\n"),
    "options_in_line": ("{}. {};", " "),
}


def render_prompt(prompt: str, job: Job) -> str:
    """Fill a prompt template.

    {question} and the options: {options} as "A. red", one per line; {options_in_brackets} as "(A)
    red", one per line; {options_in_line} as "A. red; B. blue;".
    """
    filled = {"question": job.question}
    for name, (form, between) in _FORMS.items():
        filled[name] = between.join(
            form.format(*pair) for pair in zip(LETTERS, job.options, strict=False)
        )
    # not str.format: questions and options may hold braces
    return re.sub(rf"\{{({'|'.join(filled)})\}}", lambda m: filled[m[1]], prompt)


def parse(text: str, options: tuple[str, ...]) -> str | None:
    """The letter of the option that an answer names; None when it names none or several.

    In this order: 1 unfinished thinking is removed. 2 a frame around the answer (<answer>, \\boxed,
    JSON "result") is removed. 3 the answer is only a letter (Y and N stand for Yes and No). 4 it is
    an option's text. 5 a phrase such as "the answer is (B)", the last one. 6 a letter with a mark
    at the beginning ("B. red"). 7 an option's text somewhere in it. 8 a letter in brackets, or a
    single letter at the end.
    """
    text = _unwrap(_strip_thinking(text)).strip()
    letters = LETTERS[: len(options)]
    single = re.fullmatch(r"[\s*_(\[\"'`]*([A-Za-z])[\s*_)\]\"'`.:,]*", text)  # 3
    plain = [_normalize(option) for option in options]
    if single is not None:
        if set(plain) == {"yes", "no"} and single[1].lower() in "yn":
            return LETTERS[[option[0] for option in plain].index(single[1].lower())]
        return single[1].upper() if single[1].upper() in letters else None
    if plain.count(_normalize(text)) == 1:  # 4
        return LETTERS[plain.index(_normalize(text))]
    rules: tuple[Callable[[str, str], str | None], ...] = (_phrase_letter, _leading_letter)
    for rule in rules:  # 5, 6
        if (letter := rule(text, letters)) is not None:
            return letter
    # 7, 8
    return (
        _by_text(_after_phrase(text), plain)
        or _by_text(_normalize(text), plain)
        or _trailing_letter(text, letters)
    )


_PHRASE = re.compile(
    r"\b(?:answer|option|choice)\b(?:\s+(?:is|would be|must be|should be))?\s*:?\s*", re.IGNORECASE
)
_LETTER = re.compile(
    r"(?:option\s+)?[*_\"'`]*"
    r"(?:\(([A-Za-z])\)|(A(?!\s+[a-z])|I(?!\s)|[B-HJ-Z])(?![\w'])|([a-z])(?=[*_\"'`]*[.,;:)]?\s*$))"
)


def _phrase_letter(text: str, letters: str) -> str | None:
    """The letter after the last "answer is".

    "A" before a lower-case word is an article, and so is "a" unless it is the last word.
    """
    for match in reversed(list(_PHRASE.finditer(text))):
        letter = _LETTER.match(text, match.end())
        if letter is not None:
            name = (letter[1] or letter[2] or letter[3]).upper()
            if name in letters:
                return name
    return None


def _after_phrase(text: str) -> str:
    """The normalized text after the last "answer is"; "" without that phrase."""
    matches = list(re.finditer(r"\banswer(?:\s+is|\s*:)\s*", text, re.IGNORECASE))
    return _normalize(text[matches[-1].end() :]) if matches else ""


def _leading_letter(text: str, letters: str) -> str | None:
    match = re.match(
        r"[*_\s]*(?:\(([A-Za-z])\)|([A-Za-z])[.):])(?=\W|$)(?!\s*(?:or|and|/)\b)", text
    )
    name = (match[1] or match[2]).upper() if match else ""
    return name if name and name in letters else None


def _by_text(text: str, plain: list[str]) -> str | None:
    """The one option whose text occurs. An option inside another one that occurs does not count."""
    there = [
        i
        for i, option in enumerate(plain)
        if option and re.search(rf"\b{re.escape(option)}\b", text)
    ]
    longest = [
        i
        for i in there
        if not any(i != j and plain[i] != plain[j] and plain[i] in plain[j] for j in there)
    ]
    return LETTERS[longest[0]] if len(longest) == 1 else None


def _trailing_letter(text: str, letters: str) -> str | None:
    inside = {name for name in re.findall(r"\(([A-Z])\)", text) if name in letters}
    if inside:
        return inside.pop() if len(inside) == 1 else None
    last = re.search(r"(?:^|[\s:])[*_]*([A-Z])[*_]*[.!]?\s*$", text)
    return last[1] if last is not None and last[1] in letters else None


def _strip_thinking(text: str) -> str:
    """The text after the model's thinking; "" while the thinking is unfinished."""
    _, closed, rest = text.rpartition("</think>")
    return rest if closed else text.partition("<think>")[0]


def _unwrap(text: str) -> str:
    for pattern in (
        r"<answer>(.*?)(?:</answer>|$)",
        r"\\boxed\{(.*?)\}",
        r'"(?:result|answer)"\s*:\s*"(.*?)"',
    ):
        matches = re.findall(pattern, text, re.DOTALL)
        if matches:
            return str(matches[-1])
    return text


def _normalize(text: str) -> str:
    """Lower case, single spaces, no punctuation at the ends."""
    return " ".join(text.casefold().split()).strip(string.punctuation + " ")


def _check_prompt(prompt: str) -> None:
    if "{question}" not in prompt:
        raise UserError(f"option_choice.prompt={prompt!r} asks nothing; put {{question}} into it")

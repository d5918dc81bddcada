"""Which option an answer chooses: the one that the model finds likeliest, or the one that its words name.

Knows the reader and nothing of files. Every part takes questions with options and returns what was chosen of each; open
questions do not come here. What names no option is no choice, which counts as wrong and is reported.
"""

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from encoders.errors import UserError
from memory.schema import Evidence
from pipeline.answer.batched_reader import Together, Weighed
from pipeline.answer.reader import Reading
from pipeline.batch.schema import LETTERS, Job
from pipeline.runtime.stage_timer import Clock


@dataclass(frozen=True, slots=True)
class Chosen:
    """What became of one question with options."""

    reading: Reading
    letter: str | None  # None: the answer names no option
    # of each option, the higher the likelier; () where nothing was weighed
    scores: tuple[float, ...] = ()


class Choice(Protocol):
    """How an option is chosen."""

    def __call__(
        self, jobs: Sequence[Job], reader: Together, group: Sequence[Evidence], clock: Clock
    ) -> list[Chosen]: ...


class ByLikelihood:
    """The option with the highest log-likelihood as the answer; decodes nothing, so there is always a choice."""

    def __init__(self, *, prompt: str, candidate: str, per_token: bool) -> None:
        """prompt: what is asked, with {question} and, if they are to be seen, {options}. candidate: what is weighed, the "text"
        of each option or its "letter". per_token: divide by the number of tokens, so that long options are not at a
        disadvantage; a sum is the likelihood that the model says just this."""
        _check_prompt(prompt)
        if candidate not in ("text", "letter"):
            raise UserError(f"choice.candidate={candidate} is not known; use text or letter")
        if candidate == "letter" and "{options" not in prompt:
            raise UserError(
                "choice.candidate=letter needs {options} in choice.prompt: letters say nothing without them"
            )
        self.prompt, self.candidate, self.per_token = prompt, candidate, per_token

    def __call__(
        self, jobs: Sequence[Job], reader: Together, group: Sequence[Evidence], clock: Clock
    ) -> list[Chosen]:
        letters = self.candidate == "letter"
        words = [
            list(LETTERS[: len(job.options)]) if letters else list(job.options) for job in jobs
        ]
        # a word behind a blank is another token than at the beginning, and models differ in which they were taught
        ids = reader.backbone.ids
        forms = [
            [(i, ids(lead + word)) for i, word in enumerate(own) for lead in ("", " ")]
            for own in words
        ]
        weighed = reader.weigh(
            group,
            [asked(self.prompt, job) for job in jobs],
            [[tokens for _, tokens in own] for own in forms],
            clock,
            ends=not letters,
        )
        return [self._chosen(*one) for one in zip(jobs, forms, weighed, strict=True)]

    def _chosen(self, job: Job, forms: Sequence[tuple[int, list[int]]], weighed: Weighed) -> Chosen:
        likelihoods, weights = weighed
        scores = [float("-inf")] * len(job.options)
        for (i, ids), likelihood in zip(forms, likelihoods, strict=True):
            scores[i] = max(scores[i], likelihood / len(ids) if self.per_token else likelihood)
        best = max(range(len(scores)), key=scores.__getitem__)
        return Chosen(Reading(job.options[best], weights), LETTERS[best], tuple(scores))


class ByParsing:
    """The option that the model's own words name."""

    def __init__(self, *, prompt: str) -> None:
        """prompt: what is asked, with {question} and {options}; a row that brings a prompt of its own is asked that."""
        _check_prompt(prompt)
        self.prompt = prompt

    def __call__(
        self, jobs: Sequence[Job], reader: Together, group: Sequence[Evidence], clock: Clock
    ) -> list[Chosen]:
        prompted = [
            replace(
                evidence,
                question=replace(evidence.question, text=asked(job.prompt or self.prompt, job)),
            )
            for job, evidence in zip(jobs, group, strict=True)
        ]
        readings = reader.read(prompted, clock)
        return [
            Chosen(reading, parse(reading.text, job.options))
            for job, reading in zip(jobs, readings, strict=True)
        ]


_FORMS = {  # how options are listed: one of them, and what stands between
    "options": ("{}. {}", "\n"),
    "options_in_brackets": ("({}) {}", "\n"),
    "options_in_line": ("{}. {};", " "),
}


def asked(prompt: str, job: Job) -> str:
    """The prompt with the question in its place, and the options as "A. red", one a line ({options}), as "(A) red"
    ({options_in_brackets}), or as "A. red; B. blue;" ({options_in_line})."""
    filled = {"question": job.question}
    for name, (form, between) in _FORMS.items():
        filled[name] = between.join(
            form.format(*pair) for pair in zip(LETTERS, job.options, strict=False)
        )
    # not str.format: questions and options may hold braces
    return re.sub(rf"\{{({'|'.join(filled)})\}}", lambda m: filled[m[1]], prompt)


def parse(text: str, options: tuple[str, ...]) -> str | None:
    """The letter of the option that an answer names, None when it names none or several.

    In this order: 1 thinking is cut off, 2 a frame around the answer (<answer>, \\boxed, JSON "result") is opened, 3 the answer
    is nothing but a letter (Y and N stand for Yes and No), 4 it is an option's text, 5 a phrase such as "the answer is (B)",
    the last one, 6 a letter with a mark at the beginning ("B. red"), 7 an option's text somewhere in it, 8 a letter in
    brackets, or a single letter at the end.
    """
    text = _opened(_thought(text)).strip()
    known = LETTERS[: len(options)]
    alone = re.fullmatch(r"[\s*_(\[\"'`]*([A-Za-z])[\s*_)\]\"'`.:,]*", text)  # 3
    plain = [_plain(option) for option in options]
    if alone is not None:
        if set(plain) == {"yes", "no"} and alone[1].lower() in "yn":
            return LETTERS[[option[0] for option in plain].index(alone[1].lower())]
        return alone[1].upper() if alone[1].upper() in known else None
    if plain.count(_plain(text)) == 1:  # 4
        return LETTERS[plain.index(_plain(text))]
    rules: tuple[Callable[[str, str], str | None], ...] = (_phrase, _leading)
    for rule in rules:  # 5, 6
        if (letter := rule(text, known)) is not None:
            return letter
    # 7, 8
    return (
        _by_text(_after_phrase(text), plain)
        or _by_text(_plain(text), plain)
        or _trailing(text, known)
    )


_PHRASE = re.compile(
    r"\b(?:answer|option|choice)\b(?:\s+(?:is|would be|must be|should be))?\s*:?\s*", re.IGNORECASE
)
_LETTER = re.compile(
    r"(?:option\s+)?[*_\"'`]*"
    r"(?:\(([A-Za-z])\)|(A(?!\s+[a-z])|I(?!\s)|[B-HJ-Z])(?![\w'])|([a-z])(?=[*_\"'`]*[.,;:)]?\s*$))"
)


def _phrase(text: str, known: str) -> str | None:
    """The letter behind the last "answer is": "A" before a small word is an article, and so is "a" unless it stands last."""
    for found in reversed(list(_PHRASE.finditer(text))):
        letter = _LETTER.match(text, found.end())
        if letter is not None:
            name = (letter[1] or letter[2] or letter[3]).upper()
            if name in known:
                return name
    return None


def _after_phrase(text: str) -> str:
    """What stands behind the last "answer is", in plain words; "" without one."""
    found = list(re.finditer(r"\banswer(?:\s+is|\s*:)\s*", text, re.IGNORECASE))
    return _plain(text[found[-1].end() :]) if found else ""


def _leading(text: str, known: str) -> str | None:
    found = re.match(
        r"[*_\s]*(?:\(([A-Za-z])\)|([A-Za-z])[.):])(?=\W|$)(?!\s*(?:or|and|/)\b)", text
    )
    name = (found[1] or found[2]).upper() if found else ""
    return name if name and name in known else None


def _by_text(text: str, plain: list[str]) -> str | None:
    """The one option whose text occurs; one that is part of another that occurs does not count."""
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


def _trailing(text: str, known: str) -> str | None:
    inside = {name for name in re.findall(r"\(([A-Z])\)", text) if name in known}
    if inside:
        return inside.pop() if len(inside) == 1 else None
    last = re.search(r"(?:^|[\s:])[*_]*([A-Z])[*_]*[.!]?\s*$", text)
    return last[1] if last is not None and last[1] in known else None


def _thought(text: str) -> str:
    """The text behind what a model thought aloud; nothing while it is still thinking."""
    _, closed, rest = text.rpartition("</think>")
    return rest if closed else text.partition("<think>")[0]


def _opened(text: str) -> str:
    for pattern in (
        r"<answer>(.*?)(?:</answer>|$)",
        r"\\boxed\{(.*?)\}",
        r'"(?:result|answer)"\s*:\s*"(.*?)"',
    ):
        found = re.findall(pattern, text, re.DOTALL)
        if found:
            return str(found[-1])
    return text


def _plain(text: str) -> str:
    """Without case, marks at the ends and runs of blanks."""
    return " ".join(text.casefold().split()).strip(string.punctuation + " ")


def _check_prompt(prompt: str) -> None:
    if "{question}" not in prompt:
        raise UserError(f"choice.prompt={prompt!r} asks nothing; put {{question}} into it")

"""Readers whose model is behind an address: Evidence -> answer, by chat requests.

What an answer rests on comes from the numbers that it names, checked against what was sent; where
it names none, from the search. Every reading says which. Knows no bank beyond the pictures of its
films.
"""

import json
import math
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from typing import Any

from encoders.encoder import Timer
from encoders.errors import UserError
from encoders.models.generation import Generation
from memory.schema import GREEDY, Evidence, FrameName
from pipeline.endpoint.chat import ChatPrompt, Frame, chat_prompt, count_tokens
from pipeline.endpoint.client import Completion
from pipeline.endpoint.endpoint import Endpoint
from pipeline.endpoint.film_pictures import FilmPictures, SentPictures
from pipeline.endpoint.forms import Answered, AnswerForm, Forwarding, PlainForm
from pipeline.runtime.cancel import Emit
from pipeline.schema import CitedBy, Reading, Usage

_ONE_TOKEN = {"max_tokens": 1, "logprobs": True, "top_logprobs": 20}
_LETTER = re.compile(r"[\s(\[*\"'`]*([A-Z])[\s)\].:*\"'`]*")  # a token that says a letter alone
_BEST_FRAMES = 3  # of the search, that are cited where the answer names none


def _fields(how: Generation, endpoint: Endpoint) -> dict[str, Any]:
    """What a question asks of its answer, in the words of the API; {}: nothing of its own."""
    if how == GREEDY:
        return {}
    fields: dict[str, Any] = {
        "temperature": how.temperature,
        "max_tokens": how.max_tokens or endpoint.limits().answer_tokens,
    }
    more = {
        "stop": list(how.stop),
        "top_p": how.top_p if how.top_p < 1 else None,
        "seed": how.seed,
        "response_format": _response_format(json.loads(how.form)) if how.form else None,
    }
    return fields | {name: value for name, value in more.items() if value not in (None, [])}


def _response_format(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema in the words of the API."""
    if schema == {"type": "object"}:
        return {"type": "json_object"}
    form = {"name": "answer", "schema": schema, "strict": True}
    return {"type": "json_schema", "json_schema": form}


class EndpointReader:
    """Asks a server about one question's evidence. Threads: many may ask."""

    needs_kv = False

    def __init__(self, endpoint: Endpoint, pictures: FilmPictures, *, search_ranks: bool) -> None:
        """search_ranks: whether the order of recalled frames means anything."""
        self._endpoint, self._pictures = endpoint, pictures
        self.reads_ranking = search_ranks  # the best frames are cited where the answer names none

    @property
    def model_name(self) -> str:
        """As the server calls it."""
        return self._endpoint.model

    @property
    def settings(self) -> str:
        """All beside model and evidence that an answer depends on."""
        return f"{type(self).__name__}, {self._endpoint.settings}"

    def check_form(self, schema: str) -> None:
        """The server checks it with the request."""

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, estimated."""
        return count_tokens(text)

    def read(
        self,
        evidence: Evidence,
        timer: Timer,
        emit: Emit = lambda text: None,
        cancelled: threading.Event | None = None,
    ) -> Reading:
        """Answer the question of the evidence. `emit` gets the text in pieces; joined, they are the
        text.

        UserError if the server gives no answer, or if there is nothing to send. cancelled: once it
        is set, Cancelled is raised.
        """
        endpoint, how = self._endpoint, evidence.question.generation
        form = PlainForm() if how.form else endpoint.form  # the client's own form leaves no room
        with timer("lay_out"):
            prompt, note = self._prompt(evidence, form)
        forwarding = Forwarding(form, emit)
        body = endpoint.request(prompt.content) | _fields(how, endpoint)
        with ExitStack() as stage:
            stage.enter_context(timer("first_token"))
            is_first = True

            def forward(piece: str) -> None:
                nonlocal is_first
                if is_first:
                    is_first = False
                    stage.close()
                    stage.enter_context(timer("decode"))
                forwarding.add(piece)

            done = endpoint.client.complete(body, forward, cancelled)
        answered = form.parse(done.text)
        if how.form and done.finish != "length":
            _check_json(answered.text, endpoint.client.address)
        forwarding.finish(answered.text)
        weights, cited_by = self._weights(evidence, prompt, answered)
        return Reading(
            answered.text,
            weights,
            cited_by,
            self._usage(done),
            self._warning(evidence, prompt, done, note, answered),
            frames_read=len(prompt.frames),
            is_cut=done.finish == "length",
            # its server does not say which end it was; a model seldom says nothing by itself
            is_stopped=bool(how.stop) and done.finish == "stop" and not answered.text.strip(),
        )

    def read_letters(
        self, evidence: Evidence, letters: str, cancelled: threading.Event | None = None
    ) -> tuple[Reading, dict[str, float]]:
        """The first token of the answer where it can be one of these letters, and their
        log-likelihoods: of a letter that the server does not list, that of the least likely token
        that it lists, which is too high. {}: it lists none of them.

        The question of the evidence shows the letters. UserError as `read`, and if the server gives
        no log-probabilities.
        """
        endpoint = self._endpoint
        prompt, note = self._prompt(evidence, PlainForm())
        body = endpoint.request(prompt.content) | _ONE_TOKEN
        body.pop("response_format", None)
        done = endpoint.client.complete(body, cancelled=cancelled)
        scores = letter_scores(done.first_tokens, letters)
        if not done.first_tokens:
            raise endpoint.client.refusals.no_logprobs()
        best = _even([evidence.names[one] for one in self._best(evidence, prompt)])
        usage, left_out = self._usage(done), self._left_out(prompt)
        warning = " ".join(filter(None, [note, left_out]))
        return (
            Reading(done.text, best, "search", usage, warning, frames_read=len(prompt.frames)),
            scores,
        )

    def check_letters(self) -> None:
        """UserError if the server gives no log-probabilities of tokens. Asks it once, for one."""
        endpoint = self._endpoint
        body = endpoint.request("Answer with one letter: A or B?") | _ONE_TOKEN
        body.pop("response_format", None)
        if not endpoint.client.complete(body).first_tokens:
            raise endpoint.client.refusals.no_logprobs()

    def _prompt(self, evidence: Evidence, form: AnswerForm) -> tuple[ChatPrompt, str]:
        """What is sent, and what the user must know of its pictures. UserError if there is nothing
        to send.
        """
        frames, pictures = self._frames(evidence)
        limits = self._endpoint.limits()
        most = max(limits.answer_tokens, evidence.question.generation.max_tokens or 0)
        prompt = chat_prompt(evidence, frames, form, replace(limits, answer_tokens=most))
        if pictures.obstacle and not prompt.frames and not evidence.lines:
            raise UserError(
                f"No picture can be sent to {self._endpoint.client.address}, because "
                f"{pictures.obstacle}, and the bank has no thumbnails; source.keep=jpeg stores "
                "them when a video is encoded"
            )
        return prompt, pictures.note

    def _frames(self, evidence: Evidence) -> tuple[list[Frame], SentPictures]:
        """The recalled frames with their pictures, and what is to be known of these."""
        seconds = (time for run in evidence.runs for time in run.tokens.times.tolist())
        frames = [
            Frame(number, time, None, name.video_id)
            for number, (time, name) in enumerate(zip(seconds, evidence.names, strict=True))
        ]
        notes, obstacle = dict[str, None](), ""
        for video_id in evidence.question.videos if self._endpoint.images else ():
            own = [frame for frame in frames if frame.video_id == video_id]
            pictures = self._pictures.at(video_id, [frame.time for frame in own])
            for frame, uri in zip(own, pictures.uris, strict=True):
                frames[frame.number] = replace(frame, uri=uri)
            notes |= {pictures.note: None}
            obstacle = obstacle or pictures.obstacle
        uris = [frame.uri for frame in frames]
        return frames, SentPictures(uris, " ".join(filter(None, notes)), obstacle)

    def _weights(
        self, evidence: Evidence, prompt: ChatPrompt, answered: Answered
    ) -> tuple[dict[FrameName, float], CitedBy]:
        """The weight of each frame that the answer rests on, and who says so."""
        if answered.sources is not None:
            named = [number for number in answered.sources if number in prompt.sources]
            if named or not answered.sources:
                frames = {one for number in named for one in prompt.sources[number]}
                return _even([evidence.names[one] for one in sorted(frames)]), "model"
        best = self._best(evidence, prompt)
        return _even([evidence.names[one] for one in best]), "search"

    def _best(self, evidence: Evidence, prompt: ChatPrompt) -> list[int]:
        """The numbers of the frames that rank highest among those that were sent, or were shown
        during a line."""
        # where the order of frames means nothing, the lines alone were found
        known = {*prompt.beside_lines, *(prompt.frames if self.reads_ranking else ())}
        ranked = [one for one in evidence.ranking if one in known]
        return ranked[:_BEST_FRAMES]

    def _usage(self, done: Completion) -> Usage:
        cost = self._endpoint.cost(done.prompt_tokens, done.answer_tokens)
        return Usage(done.prompt_tokens, done.answer_tokens, cost)

    def _warning(
        self,
        evidence: Evidence,
        prompt: ChatPrompt,
        done: Completion,
        note: str,
        answered: Answered,
    ) -> str:
        sentences = {
            note: bool(note),
            self._left_out(prompt): prompt.left_out > 0,
            "The answer was cut off at backbone.max_tokens=.": (
                done.finish == "length" and evidence.question.generation.max_tokens is None
            ),
            "The server withheld a part of the answer.": done.finish == "content_filter",
            "The server sent an empty answer.": not answered.text,
        }
        return " ".join(text for text, is_so in sentences.items() if is_so)

    def _left_out(self, prompt: ChatPrompt) -> str:
        count = prompt.left_out
        return f"{count} frames did not fit into the request." if count else ""


class EndpointGroup:
    """Several questions at once, each in a request of its own."""

    def __init__(self, reader: EndpointReader, parallel: int) -> None:
        self._reader, self._parallel = reader, parallel

    def read(self, group: Sequence[Evidence], timer: Timer) -> list[Reading | UserError]:
        """The answers in order. A question that fails has its error in its place."""
        if not group:
            return []
        with timer("decode"), ThreadPoolExecutor(min(self._parallel, len(group))) as pool:
            return list(pool.map(self._one, group))

    def read_letters(
        self, group: Sequence[Evidence], letters: Sequence[str], timer: Timer
    ) -> list[tuple[Reading, dict[str, float]] | UserError]:
        """`EndpointReader.read_letters` of each question, in order, or its error."""
        if not group:
            return []
        with timer("options"), ThreadPoolExecutor(min(self._parallel, len(group))) as pool:
            return list(pool.map(self._letters_of_one, group, letters))

    def check_letters(self) -> None:
        """As `EndpointReader.check_letters`."""
        self._reader.check_letters()

    def _letters_of_one(
        self, evidence: Evidence, letters: str
    ) -> tuple[Reading, dict[str, float]] | UserError:
        try:
            return self._reader.read_letters(evidence, letters)
        except UserError as error:
            return error

    def _one(self, evidence: Evidence) -> Reading | UserError:
        try:
            return self._reader.read(evidence, _untimed)
        except UserError as error:
            return error


def letter_scores(tokens: Sequence[tuple[str, float]], letters: str) -> dict[str, float]:
    """Log-likelihood of each letter, from tokens with log-probabilities: that of all tokens which
    say it. As `EndpointReader.read_letters`.
    """
    logs: dict[str, list[float]] = {letter: [] for letter in letters}
    for token, log in tokens:
        match = _LETTER.fullmatch(token)
        if match is not None and match[1] in logs:
            logs[match[1]].append(log)
    if not any(logs.values()):
        return {}
    least = min(log for _, log in tokens)
    return {
        letter: max(own) + math.log(sum(math.exp(log - max(own)) for log in own)) if own else least
        for letter, own in logs.items()
    }


def _check_json(text: str, address: str) -> None:
    """UserError where an answer is no JSON although it was asked for."""
    try:
        json.loads(text)
    except ValueError:
        raise UserError(
            f"{address} did not keep to response_format; ask for the form in the question, or use "
            "a server that can be held to it"
        ) from None


def _even(names: Sequence[FrameName]) -> dict[FrameName, float]:
    return dict.fromkeys(names, 1.0 / len(names)) if names else {}


def _untimed(stage: str) -> AbstractContextManager[None]:
    return nullcontext()

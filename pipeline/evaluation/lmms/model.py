"""Reelbank as a chat model of lmms-eval.

    python -m lmms_eval --model reelbank --model_args bank=DIR,backbone=NAME,fps=2 --tasks ...
        --include_path pipeline/evaluation/lmms/tasks

Knows lmms-eval's interface and nothing of banks.
"""

import os
from collections.abc import Iterator
from typing import Any

from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from loguru import logger
from tqdm import tqdm

from encoders.errors import UserError
from pipeline.evaluation.lmms.answer import Answers
from pipeline.evaluation.lmms.requests import VideoRequest, request_of


class Reelbank(lmms):
    """`generate_until` over videos.

    --model_args takes every setting of `reelbank ask`. A task's max_new_tokens goes before
    reader.max_new_tokens.
    """

    is_simple = False

    def __init__(
        self,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        **settings: Any,
    ) -> None:
        """batch_size: 1, as questions are answered one by one. device: the same as backbone.device.

        UserError on a setting that does not fit.
        """
        super().__init__()
        if str(batch_size) != "1" or max_batch_size is not None:
            raise UserError(
                f"--batch_size {batch_size}: Reelbank answers one question at a time; leave batch "
                "sizes out."
            )
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError(
                "A bank has one writer; start lmms-eval as one process, or share the questions "
                "with --offset."
            )
        if device is not None:
            settings.setdefault("backbone.device", device)
        self._answers = Answers(settings, info=logger.info, error=logger.error)

    def generate_until(self, requests: list[Instance]) -> Iterator[GenerationResult]:
        """A generator: with --use_cache, each answer is stored as it comes.

        A run that was stopped continues behind the last stored answer.
        """
        with tqdm(total=len(requests), desc="Model Responding") as bar:
            for answer in self._answers.to([self._request_of(request) for request in requests]):
                bar.update()
                yield GenerationResult(answer.text, TokenCounts(output_tokens=answer.tokens))

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise NotImplementedError(
            "Reelbank answers each question by itself; tasks of several rounds are not supported."
        )

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise NotImplementedError(
            "Reelbank generates answers; tasks by log-likelihood are not supported."
        )

    def clean(self) -> None:
        """Close the bank; lmms-eval calls this after the last answer."""
        self._answers.close()
        super().clean()

    def _request_of(self, request: Instance) -> VideoRequest:
        _, to_messages, settings, number, task, split = request.args
        return request_of(
            f"{task} {number}", to_messages(self.task_dict[task][split][number]), settings
        )

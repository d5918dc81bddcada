"""Replies of judges on disk, so that a prompt that was judged is not asked again.

A file for each reply, named by what the reply depends on: prompt, model and settings. The prompt
has the answer in it. Two processes may write at the same time.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from encoders.user_cache import user_cache
from memory.storage.atomic import write_atomically
from pipeline.scorers.schema import Judgement


class JudgementCache:
    """Judgements by their prompt, the judge's model, and its settings."""

    def __init__(self, folder: str) -> None:
        """folder: "" = judge/ in the user's cache. UserError where there can be none."""
        try:
            self._folder = Path(folder) if folder else user_cache("judge")
        except OSError as error:
            raise UserError(f"{error.strerror}, or score.judge.cache=DIR") from error

    def get(self, model: str, prompt: str, settings: Mapping[str, Any]) -> Judgement | None:
        """What this judge said of the prompt; None where it was not asked, or the file is
        damaged."""
        try:
            values = json.loads(self._path(model, prompt, settings).read_bytes())
            return Judgement(model, prompt, str(values["reply"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, judgement: Judgement, settings: Mapping[str, Any]) -> None:
        """Store a judgement. UserError when the disk does not take it."""
        path = self._path(judgement.model, judgement.prompt, settings)
        data = json.dumps(asdict(judgement) | {"settings": dict(settings)}, ensure_ascii=False)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, data.encode(errors="backslashreplace"))
        except OSError as error:
            raise UserError(
                f"{path.parent} cannot be written ({error.strerror}); use another "
                "score.judge.cache="
            ) from error

    def _path(self, model: str, prompt: str, settings: Mapping[str, Any]) -> Path:
        key = json.dumps([model, prompt, dict(settings)], sort_keys=True)
        name = hashlib.sha256(key.encode()).hexdigest()
        return self._folder / name[:2] / f"{name}.json"

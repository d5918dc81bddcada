"""Which recognizer hears a film: its name, its weights, and what it lacks. Loads none."""

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from encoders.errors import UserError
from encoders.extras import missing_line
from encoders.sources.container import fingerprint
from encoders.text.speech.whisper_weights import ENGLISH_ONLY, PACKAGED

AUTO = "auto"
SPHINX = "pocketsphinx"
# the values of text.asr.model=, the best one first
NAMES = (*PACKAGED, SPHINX)


@dataclass(frozen=True, slots=True)
class SpeechModel:
    """A recognizer.

    name: one of NAMES, or "" for a faster-whisper model in the folder `path`.
    """

    name: str
    path: str = ""

    @property
    def is_whisper(self) -> bool:
        """False for pocketsphinx."""
        return self.name != SPHINX

    @property
    def is_english_only(self) -> bool:
        """True if it is known to know English only; a model in a folder says so when loaded."""
        return self.name in ENGLISH_ONLY or self.name == SPHINX

    @property
    def title(self) -> str:
        """The name in a sentence."""
        return PACKAGED[self.name].name if self.name in PACKAGED else self.name or self.path

    def missing(self) -> str:
        """What is not installed, with the remedy; "" if nothing is missing."""
        if not self.is_whisper:
            return missing_line("asr-rough", SPHINX)
        weights = PACKAGED.get(self.name)
        absent = missing_line(weights.extra if weights else "asr", "faster_whisper")
        return absent or (weights.missing() if weights else "")

    def version(self) -> str:
        """What a line's wording depends on: packages and weights."""
        if not self.is_whisper:
            return f"{SPHINX} {importlib.metadata.version(SPHINX)}, rough"
        packages = ", ".join(
            f"{name} {importlib.metadata.version(name)}"
            for name in ("faster-whisper", "ctranslate2")
        )
        weights = PACKAGED.get(self.name)
        mark = weights.fingerprint if weights else fingerprint(Path(self.path) / "model.bin")
        return f"{packages}, {self.name or 'model'} {mark}"

    def folder(self) -> Path:
        """The folder of a Whisper model, with checked files if a package holds them.

        UserError if a file differs from what it should be.
        """
        weights = PACKAGED.get(self.name)
        return weights.folder() if weights else Path(self.path)


def choose(model: str, path: str, language: str) -> SpeechModel:
    """The recognizer that settings name; for auto the best one that is installed.

    UserError if there is no such model, or if it does not know the language.
    """
    if path:
        if model != AUTO:
            raise UserError(
                f"text.asr.path= and text.asr.model={model} name two models; give one of them"
            )
        if not (Path(path) / "model.bin").is_file():
            raise UserError(
                f"text.asr.path={path} holds no faster-whisper model (no model.bin); give the "
                "folder of one"
            )
        return SpeechModel("", path)
    if model not in (AUTO, *NAMES):
        raise UserError(
            f"text.asr.model={model} is not known; use {AUTO}, {', '.join(NAMES[:-1])} or "
            f"{NAMES[-1]}"
        )
    models = [SpeechModel(name) for name in (NAMES if model == AUTO else (model,))]
    able = [one for one in models if language in (AUTO, "en") or not one.is_english_only]
    if not able:
        raise UserError(
            f"text.asr.language={language} is not heard by {models[0].title}, which knows English "
            "only; use text.asr.model=base (pip install 'reelbank[asr-base]')"
        )
    ready = [one for one in able if not one.missing()]
    # where nothing is installed, the smallest one that would do is missed
    return ready[0] if ready else next((one for one in able[::-1] if one.is_whisper), able[0])

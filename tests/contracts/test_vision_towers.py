"""The contract of every family: its vision tower leaves memory, and encodes the same afterwards."""

import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from encoders.errors import UserError
from encoders.models.families.llava_onevision import LlavaOneVision
from tests.support import families, more_families
from tests.support.families import FAMILIES, frames_for
from tests.support.more_families import MORE
from tests.support.paths import ROOT
from tests.support.toys import toy_checkpoint, toy_frames


def tensors(tower: Any) -> Iterator[torch.Tensor]:
    """Everything that a tower holds: parameters, buffers, and weights in oneDNN's order."""
    for module in tower.modules():
        for own in (module._parameters, module._buffers, vars(module)):
            yield from (one for one in own.values() if isinstance(one, torch.Tensor))


@pytest.mark.parametrize(
    "name", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]
)
def test_a_tower_leaves_memory_and_encodes_the_same_afterwards(name):
    family = (FAMILIES | MORE)[name]
    if family.needs:
        pytest.importorskip(family.needs)
    folder = families.folder(name) if name in FAMILIES else more_families.folder(name)
    # a tower in bfloat16 is packed for oneDNN where the processor has it
    backbone = family.adapter(str(folder), dtype="bfloat16", **family.settings)
    frames = frames_for(backbone, 4)
    before = backbone.encode_frames(frames)
    rest = {id(one) for one in tensors(backbone.decoder)}
    tower = backbone.model.get_encoder(modality="video")
    parts = [weakref.ref(one) for one in tensors(tower)]
    kinds = [type(module) for module in tower.modules()]
    del tower
    assert len(parts) > 20 and backbone.tower.release() and backbone.tower.release()
    assert not any(part() is not None for part in parts)
    assert {id(one) for one in tensors(backbone.decoder)} == rest
    after = backbone.encode_frames(frames)
    assert torch.equal(before.tokens, after.tokens) and torch.equal(before.pos, after.pos)
    assert [type(m) for m in backbone.model.get_encoder(modality="video").modules()] == kinds


def test_a_tower_stays_while_somebody_encodes(monkeypatch):
    backbone = LlavaOneVision(str(toy_checkpoint()))
    released = []
    own = backbone._features

    def features(pixels):
        released.append(backbone.tower.release())
        return own(pixels)

    monkeypatch.setattr(backbone, "_features", features)
    backbone.encode_frames(toy_frames(2))
    assert released == [False] and backbone.tower.release()


def test_a_tower_is_not_loaded_from_another_checkpoint(tmp_path):
    folder = shutil.copytree(toy_checkpoint(), tmp_path / "model")
    backbone = LlavaOneVision(str(folder))
    backbone.tower.release()
    (weights,) = folder.glob("*.safetensors")
    stamp = weights.stat().st_mtime_ns
    os.utime(weights, ns=(stamp, stamp + 1))
    for _ in range(2):  # an error changes nothing
        with pytest.raises(UserError, match="has changed since it was loaded; start again"):
            backbone.encode_frames(toy_frames(2))
    os.utime(weights, ns=(stamp, stamp))
    assert len(backbone.encode_frames(toy_frames(2)).times) == 2


WEIGH = """
import sys
from encoders.models.families.llava_onevision import LlavaOneVision

def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

backbone = LlavaOneVision(sys.argv[1], dtype="bfloat16")
before = resident()
assert backbone.tower.release()
print(before - resident())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc says how much memory is resident")
def test_the_process_gives_the_memory_back(tmp_path):
    from transformers import LlavaOnevisionForConditionalGeneration, SiglipVisionConfig

    folder = toy_checkpoint()
    small = LlavaOnevisionForConditionalGeneration.from_pretrained(folder)
    config = small.config
    config.vision_config = SiglipVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=4, num_attention_heads=16,
        image_size=56, patch_size=14, vision_use_head=False,
    )  # fmt: skip
    large = LlavaOnevisionForConditionalGeneration(config).bfloat16()
    weights = sum(one.nbytes for one in large.get_encoder(modality="video").parameters())
    shutil.copytree(folder, tmp_path / "model")
    large.save_pretrained(tmp_path / "model")
    out = subprocess.run(
        [sys.executable, "-c", WEIGH, tmp_path / "model"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    ).stdout  # fmt: skip
    assert int(out) > 0.9 * weights > 90e6

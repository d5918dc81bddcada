"""Use a compressor of your own without touching the package: name its class as `_target_`.

    python examples/own_compressor.py

`guides/add-a-compressor.md` shows how to add one to Reelbank for good.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from encoders.schema import VisualTokens
from memory.schema import Question
from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config.compose import compose
from pipeline.needle_world import video as needle_video


@dataclass(frozen=True)
class EveryOther:
    """Keep every n-th visual token of each frame, beginning with its first."""

    every: int = 2

    def __call__(self, visual: VisualTokens) -> VisualTokens:
        firsts = visual.offsets[:-1].repeat_interleave(visual.offsets.diff())  # [N]
        place = torch.arange(len(visual.tokens)) - firsts  # [N] place of a token in its frame
        return visual.keep(place % self.every == 0)


def main() -> None:
    """The same film with and without the compressor: bytes of the bank."""
    sys.modules.setdefault("own_compressor", sys.modules[__name__])  # where Hydra looks for it
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        footage = needle_video.procedural_footage(seed=1, size=(480, 270))
        card = needle_video.parse("code:4821@8", 0)
        needle_video.write(film, (card,), 20.0, footage, size=(480, 270))
        for name, overrides in {
            "none": [],
            "every other": ["compressor._target_=own_compressor.EveryOther"],
        }.items():
            settings = compose("ingest", [f"video={film}", f"bank={folder}/{name}", *overrides])
            backbone = build_backbone(settings)
            source = build_source(settings, backbone)
            qa = build_qa(settings, backbone)
            with qa.bank:
                qa.ingest(source)
                answer = qa.ask(Question("What is the code on the card?", source.info.video_id))
                print(f"{name:12} {qa.bank.catalog.nbytes() / 1e6:.1f} MB, answer: {answer.text}")


if __name__ == "__main__":
    main()

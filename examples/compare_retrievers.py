"""Ask one question with every retriever, with a budget of six frames out of sixty.

    python examples/compare_retrievers.py

Each retriever gets the same film and the same question. `reelbank needle` does this with hundreds
of questions and intervals; this script only shows the shape of such a comparison.
"""

import tempfile
from pathlib import Path

from memory.schema import Question
from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config.compose import compose
from pipeline.needle_world import video as needle_video

FRAMES = 6
QUESTION = "What is the code on the card?"


def main() -> None:
    """One bank per retriever, one answer each."""
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        footage = needle_video.procedural_footage(seed=1, size=(480, 270))
        card = needle_video.parse("code:4821@33", 0)
        needle_video.write(film, (card,), 60.0, footage, size=(480, 270))
        for name in ("fused", "clip", "kv", "uniform"):
            settings = compose(
                "ingest", [f"video={film}", f"bank={folder}/{name}", f"retriever={name}"]
            )
            backbone = build_backbone(settings)
            settings.read_tokens = FRAMES * backbone.tokens_per_frame
            source = build_source(settings, backbone)
            qa = build_qa(settings, backbone)
            with qa.bank:
                qa.ingest(source)
                answer = qa.ask(Question(QUESTION, source.info.video_id))
            print(f"{name:8} {answer.text:18} read {answer.frames_read} frames")


if __name__ == "__main__":
    main()

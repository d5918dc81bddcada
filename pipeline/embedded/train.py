"""Train the embedded models stage by stage, and write the weights that `embedded` options load.

    python -m pipeline.embedded.footage ../shared/data/clips runs/footage.npz   # optional
    python -m pipeline.embedded.train --out runs/embedded --footage runs/footage.npz

Stages: tower (supervised directly), lm (on the frozen tower's tokens), clip (from a copy of the
tower). Each resumes from its checkpoint in --out. A fixed seed and shard numbers decide the data.

With --start-from, stages lm and clip start from a finished checkpoint's tower, and lm from its
language model; export writes that checkpoint again, with rows for tokens added since.

Imports torch, transformers, numpy and Pillow; only the clip stage imports open_clip.
"""

import argparse
from pathlib import Path

import torch

from pipeline.embedded import checkpoint, model, tokenizer, train_lm, train_tower
from pipeline.needle_world import questions

WEIGHTS = Path(__file__).parent / "weights"


def main() -> None:
    """Parse the command line and run the stages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/embedded"))
    parser.add_argument("--footage", type=Path)
    parser.add_argument("--stage", choices=("all", "tower", "lm", "clip", "export"), default="all")
    parser.add_argument("--pool-shards", type=int, default=12)
    parser.add_argument("--clip-shards", type=int, default=20)
    parser.add_argument(
        "--start-from",
        type=Path,
        help="a checkpoint folder, such as pipeline/embedded/weights/video_llm",
    )
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    words = tokenizer.build(questions.corpus())
    video_llm = model.build(words)
    if args.stage in ("all", "tower"):
        train_tower.train(video_llm, args.out, args.footage)
    if args.start_from is not None:
        video_llm.load_state_dict(
            model.with_vocabulary(
                type(video_llm).from_pretrained(args.start_from), words
            ).state_dict()
        )
    elif args.stage != "tower":
        state = torch.load(args.out / "tower.pt", weights_only=True)["model"]
        video_llm.load_state_dict(
            {k: v for k, v in state.items() if "language_model" not in k}, strict=False
        )
    if args.stage in ("all", "lm"):
        train_lm.train(video_llm, words, args.out, args.footage, args.pool_shards)
    if args.stage in ("all", "clip"):
        from pipeline.embedded import train_clip

        clip = train_clip.train(
            video_llm.model.vision_tower, args.out, args.footage, args.clip_shards
        )
        train_clip.save(clip, WEIGHTS / "clip")
    if args.stage in ("all", "lm", "export"):
        if args.stage != "export" or args.start_from is None:
            video_llm.load_state_dict(torch.load(args.out / "lm.pt", weights_only=True)["model"])
        checkpoint.save(video_llm.float(), words, WEIGHTS / "video_llm")


if __name__ == "__main__":
    main()

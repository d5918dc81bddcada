"""Where the tests find the repository and the clips beside it. Knows nothing of ours."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
SHARED = (
    ROOT.parent / "shared"
)  # real clips and speech; absent in a plain clone, and their tests skip
CLIPS = SHARED / "data" / "clips"

"""Values out of range are refused in one sentence that names the key."""

import math

import pytest

from encoders.errors import UserError
from pipeline.config.checks import check_ranges
from pipeline.config.compose import compose
from pipeline.config.tasks.question_settings import AskSettings

LARGE = 2**63
WRONG = {
    "fps": (0.0, -1.0, math.nan, 1e-4),
    "read_tokens": (0, -1),
    "recent_frames": (-1, LARGE),
    "read_text_tokens": (-1, LARGE),
    "cite_share": (-0.1, 1.5, math.nan),
    "threads": (-1, 1025),
    "ram_mb": (-1, LARGE),
    "device_mb": (-1, LARGE),
    "prefetch_frames": (-1, 100_001),
    "keep_freed_mb": (-1, LARGE),
    "seed": (-LARGE - 1, LARGE),
    "kv_dtype": ("int3",),
    "token_dtype": ("int3",),
    "began": ("yesterday",),
}
RIGHT = {
    "fps": (1e-3, 60.0),
    "read_tokens": (1, None),
    "cite_share": (0.0, 1.0),
    "threads": (0, 1024),
    "prefetch_frames": (0, 100_000),
    "seed": (1 - LARGE, LARGE - 1),
    "kv_dtype": ("int8", "int4", "bfloat16", None),
}


@pytest.fixture(scope="module")
def usual() -> AskSettings:
    return compose("ask", [])


@pytest.mark.parametrize("key", WRONG)
def test_a_value_out_of_range_is_refused(usual: AskSettings, key: str) -> None:
    for value in WRONG[key]:
        with pytest.raises(UserError, match=f"^{key}=") as refusal:
            check_ranges(usual.changed(**{key: value}))
        sentence = str(refusal.value)
        assert ("; use " in sentence or "; write " in sentence) and "\n" not in sentence


@pytest.mark.parametrize("key", RIGHT)
def test_the_last_values_in_range_are_taken(usual: AskSettings, key: str) -> None:
    for value in RIGHT[key]:
        check_ranges(usual.changed(**{key: value}))

"""A profile of channels: made by the program, and used by a search."""

import json
import sys
from pathlib import Path

import pytest

from memory.retrieval.block_score.channel_subset import ChannelSubset
from pipeline.evaluation.profiles import channel_profile
from tests.support.toys import toy_parts


@pytest.mark.slow
def test_a_profile_is_made_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """The toy model has 3 layers, 2 KV heads, and 16 channels."""
    out = tmp_path / "profile.json"
    given = [str(out), "--films", "1", "--seconds", "24", *toy_parts()]
    monkeypatch.setattr(sys, "argv", ["channel_profile", *given])
    channel_profile.PROGRAM.run()
    assert "3 layers, 2 heads, 16 channels" in capsys.readouterr().out
    importance = json.loads(out.read_text())["importance"]
    assert [len(importance), len(importance[0]), len(importance[0][0])] == [3, 2, 16]
    for head in (head for layer in importance for head in layer):
        assert sum(head) == pytest.approx(1, abs=1e-3) and min(head) >= 0
        assert len(set(head)) > 8  # channels differ
    assert ChannelSubset(count=4, profile=str(out)).numbers(16) == 4

"""Law 5, provenance: a bank opens only with the model, settings and format that made it."""

import json

import pytest

from encoders.errors import UserError
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from tests.support.banks import PROVENANCE, opened


def test_another_provenance_is_refused_in_one_sentence(tmp_path):
    opened(tmp_path).close()
    other = {"model": "m", "fps": 2.0, "dtype": "bfloat16"}
    with pytest.raises(UserError) as refused:
        MemoryBank.open(tmp_path, other, UniformRetriever(), recent_frames=1)
    text = str(refused.value)
    for part in (
        "dtype=absent (this run: bfloat16)",
        "fps=1.0 (this run: 2.0)",
        "quantisation=None",
        "bank=DIR",
    ):
        assert part in text
    assert "model" not in text and "\n" not in text
    opened(tmp_path).close()  # the bank is as it was
    with MemoryBank.open(tmp_path, None, UniformRetriever(), recent_frames=1) as bank:
        assert bank.provenance == PROVENANCE


def test_another_format_is_refused(tmp_path):
    opened(tmp_path).close()
    path = tmp_path / "bank.json"
    data = json.loads(path.read_text())
    assert len(data.pop("sum")) == 32  # older formats had none
    assert data == {"format": 3, "provenance": PROVENANCE}
    path.write_text(json.dumps(data | {"format": 2}))
    with pytest.raises(
        UserError,
        match="has format 2 and this Reelbank reads format 3; encode its videos into another bank",
    ):
        opened(tmp_path)
    path.write_text(json.dumps(data | {"format": 4}))
    with pytest.raises(
        UserError, match="has format 4 and this Reelbank reads format 3; use a newer Reelbank"
    ):
        opened(tmp_path)
    path.write_text("{")
    with pytest.raises(UserError, match=r"bank\.json is damaged"):
        opened(tmp_path)


def test_what_is_no_bank_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no bank at"):
        opened(tmp_path / "missing", create=False)
    assert not (tmp_path / "missing").exists()
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"not a bank and not empty \(holiday.jpg"):
        opened(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        opened(tmp_path / "holiday.jpg")
    (tmp_path / "new").mkdir()
    # left by a crash in the middle of creation
    (tmp_path / "new" / "bank.json.1.tmp").write_bytes(b"")
    opened(tmp_path / "new").close()

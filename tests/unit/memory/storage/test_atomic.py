"""`replacing` shows the old bytes or all of the new ones, and leaves no temporary behind."""

import pytest

from memory.storage.atomic import replacing


@pytest.mark.parametrize("durable", [False, True])
def test_new_bytes_replace_old_ones_at_the_end(tmp_path, durable):
    path = tmp_path / "film.mp4"
    path.write_bytes(b"old")
    with replacing(path, durable=durable) as temporary:
        temporary.write_bytes(b"new")
        assert temporary.parent == tmp_path and temporary.suffix == ".mp4"
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_bytes_alone(tmp_path, error):
    path = tmp_path / "rows.json"
    path.write_bytes(b"old")
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_bytes(b"ne")
        raise error
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError), replacing(tmp_path / "rows.json"):
        raise ValueError
    assert list(tmp_path.iterdir()) == []

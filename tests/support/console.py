"""What a command leaves behind: files, and one sentence on stderr."""

from pathlib import Path


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder."""
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
        for p in sorted(folder.rglob("*"))
    }


def sentence(err: str, *words: str) -> None:
    """One line, one form, and it says what it should."""
    assert err.endswith(".\n") and err.count("\n") == 1 and not err.endswith("..\n"), err
    assert err.startswith("reelbank: "), err
    for word in words:
        assert word in err, err

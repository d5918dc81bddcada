"""The folders whose films a client may add. Knows paths; no bank."""

from collections.abc import Sequence
from pathlib import Path

from encoders.errors import UserError


class FilmRoots:
    """Folders that were given at the start. A link in them counts as what it leads to."""

    def __init__(self, folders: Sequence[str]) -> None:
        """UserError where one is no folder."""
        for folder in folders:
            if not Path(folder).is_dir():
                raise UserError(f"root={folder} is no folder; give one with films")
        self._roots = [Path(folder).resolve() for folder in folders]

    def film(self, path: str, what: str = "film") -> Path:
        """The real path of a film below a root; a relative path is looked for in each root.

        what: the file is, in errors. UserError outside of the roots, whether or not something is
        there, and where no file is.
        """
        if not self._roots:
            raise UserError(
                f"No {what} can be read, as this server has no folder of films; start it with "
                "--root DIR"
            )
        try:
            places = [(root / path).resolve() for root in self._roots]
        except (OSError, ValueError, RuntimeError):  # a zero byte, or a circle of links
            raise UserError(f"{path!r} is no path of a {what}; give another one") from None
        inside = [place for place in places if any(map(place.is_relative_to, self._roots))]
        if not inside:
            roots = ", ".join(map(str, self._roots))
            raise UserError(
                f"{path} is outside of the folders that this server may read; give a {what} below "
                f"{roots}"
            )
        film = next((place for place in inside if place.is_file()), None)
        if film is None:
            raise UserError(f"{path} is no file; give the path of a {what}")
        return film

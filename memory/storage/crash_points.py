"""Named moments of a commit, at which a test may stop the process. Knows nothing of what happens between them.

`reached(name)` stands after each system call that a commit rests on; with no hook, as always outside tests, it does
nothing. A hook may end the process or raise what the system call might have raised; it must not change anything else.
"""

from collections.abc import Callable

hook: Callable[[str], None] | None = None


def reached(name: str) -> None:
    """Say that the step of this name is done."""
    if hook is not None:
        hook(name)

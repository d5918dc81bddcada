"""Names of controls=[...] -> controls. Each is a file of conf/control/."""

from collections.abc import Sequence

from encoders.errors import UserError
from pipeline.config.compose import options
from pipeline.config.parts import check, instantiate
from pipeline.config.settings import PartSettings
from pipeline.controls.schema import Control


def control_settings(names: Sequence[str], full_tokens: int) -> dict[str, PartSettings]:
    """The settings of each control, in this order. UserError on one that there is not, or twice.

    full_tokens: visual tokens of the longest video with the control `full`.
    """
    every = options("control", {"full_tokens": full_tokens})
    for name in names:
        if name not in every:
            raise UserError(
                f"controls has {name!r}, which is no control; use some of {', '.join(every)}."
            )
    if len(set(names)) < len(names):
        raise UserError(f"controls=[{','.join(names)}] has one twice; name each once.")
    return {name: every[name] for name in names}


def build_control(settings: PartSettings) -> Control:
    """UserError when its settings have a wrong name or type."""
    check("control", settings)
    control: Control = instantiate("control", settings)
    return control

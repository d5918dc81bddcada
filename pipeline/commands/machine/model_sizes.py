"""How large published models are, and where: those of conf/backbone that have a path.

A test counts them in transformers' classes and looks the repositories up in open_clip's table.
Written down because `reelbank doctor` must not import these libraries, which takes seconds.
"""

BYTES = 2  # of a weight in bfloat16, the dtype of every published backbone here

PARAMETERS: dict[str, int] = {
    "embedded": 5_587_712,
    "glm4_1v_9b": 10_292_777_472,
    "glm4_6v_flash": 10_292_777_472,
    "internvl3_14b": 15_117_256_704,
    "internvl3_1b": 938_193_024,
    "internvl3_2b": 2_088_957_440,
    "internvl3_38b": 38_388_164_992,
    "internvl3_5_14b": 15_119_523_840,
    "internvl3_5_1b": 1_060_897_792,
    "internvl3_5_2b": 2_348_347_392,
    "internvl3_5_38b": 38_390_405_504,
    "internvl3_5_4b": 4_732_489_216,
    "internvl3_5_8b": 8_528_318_464,
    "internvl3_8b": 7_944_373_760,
    "llava_ov_0p5b": 893_675_552,
    "llava_ov_7b": 8_030_807_584,
    "qwen2_5_vl_32b": 33_452_718_336,
    "qwen2_5_vl_3b": 3_754_622_976,
    "qwen2_5_vl_72b": 73_410_777_344,
    "qwen2_5_vl_7b": 8_292_166_656,
    "qwen2_vl_2b": 2_208_985_600,
    "qwen2_vl_7b": 8_291_375_616,
    "qwen3_5_4b": 4_539_265_536,
    "qwen3_5_9b": 9_409_813_744,
    "qwen3_6_27b": 27_356_728_560,
    "qwen3_6_35b_a3b": 35_107_181_936,
    "qwen3_vl_2b": 2_127_532_032,
    "qwen3_vl_30b_a3b": 31_070_754_032,
    "qwen3_vl_30b_a3b_thinking": 31_070_754_032,
    "qwen3_vl_32b": 33_357_390_064,
    "qwen3_vl_4b": 4_437_815_808,
    "qwen3_vl_8b": 8_767_123_696,
    "qwen3_vl_8b_thinking": 8_767_123_696,
    "smolvlm2_256m": 256_484_928,
    "smolvlm2_2b": 2_246_784_880,
    "smolvlm2_500m": 507_482_304,
    "videollama3_2b": 1_959_993_584,
    "videollama3_7b": 8_044_744_944,
}


# name in conf/clip -> its repository, as open_clip's table has it
CLIP_REPOSITORIES = {
    "b32": "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    "mobileclip2": "timm/MobileCLIP2-S2-OpenCLIP",
    "siglip": "timm/ViT-B-16-SigLIP",
    "siglip2": "timm/ViT-B-16-SigLIP2",
}
CLIP_WEIGHTS = "open_clip_model.safetensors"


def weight_bytes(name: str) -> int:
    """Bytes of a backbone's weights in bfloat16."""
    return PARAMETERS[name] * BYTES

"""The common part of all families of video-LLMs: loading, frames and the text around them.

The prompt's other text is in `prompt_text.py`, the decoder in `language_model.py`. One subclass per
family (`families/`) adds how it encodes frames and which text surrounds each. Uses transformers'
public interfaces only: no patched forward, no copied model code. Knows no bank, no retrieval, and
no disk but the checkpoint's.

A prompt is: preamble | frame frame ... frame | suffix. A frame is its time tag, its visual tokens
and the text that the family puts after them. The suffix is what follows a video: the question and
the start of the assistant's turn.
"""

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import encoders.models.torchvision_ops  # noqa: F401  (first: transformers imports torchvision)

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from encoders.errors import UserError
from encoders.hub_cache import cached_folder
from encoders.models.acceleration.device import check_device
from encoders.models.acceleration.onednn_linear import MIN_WEIGHTS_DECODER, pack
from encoders.models.attention import ATTENTIONS, register
from encoders.models.backbone import Backbone
from encoders.models.language_model import LanguageModel
from encoders.models.loading.checkpoint import (
    check_memory,
    check_weights,
    first_line,
    is_offline,
    largest_file,
    memory_errors_as_user_errors,
    out_of_memory,
    quiet_loading,
    read_config,
    stored_bytes,
    straight_to,
)
from encoders.models.loading.vision_tower import VisionTower
from encoders.models.prompt_text import PromptText
from encoders.schema import FrameEmbeds, Frames, VisualTokens

from transformers import AutoConfig, AutoProcessor, PreTrainedConfig  # isort: skip

# for a model without keys of single frames
_WITHOUT_KEYS = "use reader=tokens prefill=none retriever=clip clip=b32"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class LoadOptions(TypedDict, total=False):
    """The options of `VideoLLM.__init__`. A family's constructor passes them on: `**options:
    Unpack[LoadOptions]`.
    """

    dtype: str
    device: str
    attention: str
    revision: str | None
    batch: int | None
    reads_text: bool
    questions: str | None
    enable_thinking: bool
    weights: bool


class VideoLLM:
    """A transformers video-LLM as a Backbone. D is the width of the model."""

    model_class: Any  # transformers' class of the family
    family: str  # transformers' model type
    # hub id -> configuration as its authors published it
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    # True if tests/laws/test_1_families.py compares its logits with transformers' own forward
    checked_equal = False
    # sampled frames that the tower merges into one; segments contain a multiple of it
    temporal_patch = 1
    # True if `frame_size_for` depends on the film; False if all frames have `frame_size`
    keeps_shape = False
    # True if `opening_ids` says the number of frames
    counts_frames = False
    # True if an answer's frames are numbered in their order there
    renumbers_frames = False
    batch = 8  # frames that pass through the tower at once

    def __init__(
        self,
        path: str,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        attention: str = "sdpa",
        revision: str | None = None,
        batch: int | None = None,
        reads_text: bool = True,
        questions: str | None = None,
        enable_thinking: bool = False,
        weights: bool = True,
    ) -> None:
        """path: a local folder or a hub id. batch: frames (or temporal patches) that pass through
        the tower at once; bounds memory and changes nothing else; None = the family's default.
        reads_text: False for a model that was never taught to read text beside frames.
        questions: the only questions that the model knows, such as needle_world; None = any.
        enable_thinking: let the model think before it answers. False asks its chat template for no
        thought, where the template knows that; a checkpoint that always thinks still does.
        weights: False reads none of them: such a model says how large frames are, how many tokens
        they have, and which checkpoint it is, and computes nothing.
        UserError if the checkpoint cannot be loaded, is of another family, or does not fit into
        memory.
        """
        if dtype not in DTYPES:
            raise UserError(f"backbone.dtype={dtype} is not known; use one of {', '.join(DTYPES)}.")
        if attention not in ATTENTIONS:
            raise UserError(
                f"backbone.attention={attention} is not known; use one of {', '.join(ATTENTIONS)}."
            )
        self.path, self.dtype, self.device = path, DTYPES[dtype], check_device(device)
        self.has_weights = weights
        self._revision = revision
        self.reads_text, self.questions = reads_text, questions
        self.enable_thinking = enable_thinking
        self.batch = self.batch if batch is None else batch
        common: dict[str, Any] = {
            "revision": revision,
            "local_files_only": is_offline(path),
            "trust_remote_code": False,
        }
        config = read_config(path, self.family, revision, local_only=common["local_files_only"])
        check_weights(path)
        if weights:
            self._straight = straight_to(self.device)
            check_memory(
                path,
                self._weight_bytes(config, revision),
                self.dtype,
                self.device,
                largest_file(path, revision) if self._straight else None,
            )
        self.processor = self._load_processor(**common)
        register()
        implementation = {
            "text_config": ATTENTIONS[attention],
            "vision_config": attention if attention == "eager" else ATTENTIONS[attention],
        }
        with memory_errors_as_user_errors(path, self.dtype, self.device):
            self._settings = common | {"attn_implementation": implementation}
            self.model = self._load(**self._settings) if weights else self._shell(config)
            if weights:
                self.model.to(self.device)
        self.model.eval().requires_grad_(False)
        if weights:
            pack(self.model)
            # its shapes change in every step, so no graph is traced of it
            pack(self.decoder, MIN_WEIGHTS_DECODER)
        self.config = config
        self.prompt = PromptText(
            self.processor.tokenizer,
            self.model.generation_config,
            *self._split_chat(),
            thinks=enable_thinking,
        )
        self.language_model = LanguageModel(
            self.model, self.decoder, config, self.prompt, dtype=self.dtype, device=self.device
        )
        self.is_narrow = self.language_model.is_narrow
        self._files = self._stamps()
        self.tower = VisionTower(self.model, self._load_tower, self._forget_tower)

    def _weight_bytes(self, config: PreTrainedConfig, revision: str | None) -> int:
        """Bytes of the weights in memory: by the checkpoint's files, or, before a download, by its
        configuration.
        """
        stored = stored_bytes(self.path, config, self.dtype, revision)
        if stored is not None:
            return stored
        weights = self._shell(config).parameters()
        return sum(weight.numel() for weight in weights) * self.dtype.itemsize

    def _shell(self, config: PreTrainedConfig) -> Any:
        """The model without its weights; nothing is allocated."""
        with torch.device("meta"):
            return self.model_class(config)

    def _load_processor(self, **settings: Any) -> Any:
        """The checkpoint's processor. UserError if it cannot be loaded."""
        try:
            return AutoProcessor.from_pretrained(self.path, **settings)
        except (OSError, ValueError, ImportError) as error:
            # ImportError: the processor's own package is missing; the error names it
            raise UserError(
                f"Cannot load a model from backbone.path={self.path}: {first_line(error)}"
            ) from error

    def _load(self, *, partial: bool = False, **settings: Any) -> Any:
        """The model with its weights. partial: the checkpoint has more than these. UserError if
        they cannot be read or are incomplete.
        """
        try:
            with quiet_loading(partial or Path(self.path).is_dir(), partial=partial):
                model, report = self.model_class.from_pretrained(
                    self.path,
                    dtype=self.dtype,
                    use_safetensors=True,
                    output_loading_info=True,
                    **self._straight,
                    **settings,
                )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            if out_of_memory(error):
                raise
            if "scaled_dot_product_attention" in str(error):
                raise UserError(
                    f"transformers has no fused attention for the model at {self.path}; use "
                    "backbone.attention=eager."
                ) from error
            raise UserError(
                f"Cannot load the weights at backbone.path={self.path}: {first_line(error)}"
            ) from error
        if report["missing_keys"]:  # transformers would continue with random numbers in their place
            missing = sorted(report["missing_keys"])
            raise UserError(
                f"The checkpoint at {self.path} lacks {len(missing)} of the model's weights, such "
                f"as {missing[0]}; "
                "copy it again."
            )
        return model

    # -- the vision tower --------------------------------------------------------------------------

    def encode_frames(self, frames: Frames) -> VisualTokens:
        """Run the vision tower and the projector: T frames -> their visual tokens. No state, no
        neighbors. UserError where a tower that was released cannot be read again.
        """
        with self.tower.loaded():
            return self._encode(frames)

    def _load_tower(self) -> Any:
        """The tower alone, as it was in the model. transformers loads whole models only, so this
        one has a single layer of text, and its other parts are dropped at once.
        """
        if self._stamps() != self._files:
            raise UserError(
                f"The checkpoint at {self.path} has changed since it was loaded; start again."
            )
        config = copy.deepcopy(self.config)
        text = config.get_text_config()
        text.num_hidden_layers = 1
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[:1]
        with memory_errors_as_user_errors(self.path, self.dtype, self.device):
            model = self._load(**self._settings, config=config, partial=True)
            tower = model.get_encoder(modality="video").to(self.device)
        tower.eval().requires_grad_(False)
        pack(tower)
        return tower

    def _forget_tower(self) -> None:
        """Drop what refers to the weights of the tower, beside the model."""

    def _stamps(self) -> list[tuple[str, int, int]]:
        """Name, size and time of each file of weights in a folder; none of a hub id, whose files
        never change.
        """
        stats = ((file.name, file.stat()) for file in Path(self.path).glob("*.safetensors"))
        return sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)

    # -- what differs between families -------------------------------------------------------------

    @property
    def decoder(self) -> Any:
        """The language model without its head: hidden states in, hidden states out."""
        return self.model.model.language_model

    def _encode(self, frames: Frames) -> VisualTokens:
        """`encode_frames`, with the tower in memory."""
        raise NotImplementedError

    def after_video(self) -> Tensor:
        """[n, D] embeddings that are not text, between the last frame and the suffix; n
        may be 0.
        """
        return self.language_model.embed([])

    def frame_text_ids(self, start: float, end: float) -> tuple[list[int], list[int]]:
        """Token ids before and after the visual tokens of a frame. Its images were sampled from
        `start` to `end` seconds; the two differ only for temporal patches. Default: the time tag,
        and nothing.
        """
        return self.prompt.time_tag_ids(end), []

    @staticmethod
    def frame_grid(config: Any, width: int = 0, height: int = 0) -> tuple[int, int]:
        """(rows, columns) of a frame's visual tokens before compression, from the configuration
        alone. width, height: pixels of a frame; families with a fixed size ignore them.
        """
        raise NotImplementedError

    @classmethod
    def frame_tokens(cls, config: Any, width: int = 0, height: int = 0) -> int:
        """Number of visual tokens of a frame (or temporal patch) before compression."""
        rows, columns = cls.frame_grid(config, width, height)
        return rows * columns

    @classmethod
    def published_config(cls, path: str) -> PreTrainedConfig | None:
        """The configuration of a hub id as its authors published it; None for any other id."""
        return AutoConfig.for_model(**cls.published[path]) if path in cls.published else None

    def grid(self) -> tuple[int, int]:
        """(rows, columns) of a frame's visual tokens before compression."""
        return self.frame_grid(self.config, *self.frame_size)

    @property
    def tokens_per_frame(self) -> int:
        """Number of visual tokens that `encode_frames` makes of a frame, before compression."""
        return self.frame_tokens(self.config, *self.frame_size)

    @property
    def frame_size(self) -> tuple[int, int]:
        """(width, height) in pixels that `encode_frames` expects of a film whose shape is not
        known.
        """
        raise NotImplementedError

    def frame_size_for(self, ratio: float) -> tuple[int, int]:
        """(width, height) in pixels for a film of this width over height. Families whose processor
        squeezes every film into one size return `frame_size`.
        """
        return self.frame_size

    def _process(self, frames: np.ndarray) -> Any:
        """The output of the checkpoint's own processor for one clip, [T, H, W, 3] uint8. The frames
        have their final size, so the processor must not choose another one from the length of the
        clip.
        """
        return self.processor.video_processor(
            videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)],
            do_resize=False,
            do_sample_frames=False,
            return_tensors="pt",
        )

    # -- the text around frames --------------------------------------------------------------------

    def _split_chat(self) -> tuple[str, str]:
        """The chat template's text before the video, and the text after it with "{question}" in the
        question's place.
        """
        marker = "\u0001question\u0001"
        parts = [{"type": "video"}, {"type": "text", "text": marker}]
        knows = "enable_thinking" in str(self.processor.chat_template)
        switch = {"enable_thinking": self.enable_thinking} if knows else {}
        text = self.processor.apply_chat_template(
            [{"role": "user", "content": parts}],
            tokenize=False,
            add_generation_prompt=True,
            **switch,
        )
        before, after = text.split(self.processor.video_token)
        return before, after.replace(marker, "{question}")

    def opening_ids(self, frames: int, seconds: float) -> list[int]:
        """Token ids before the first of so many frames, the last one sampled at `seconds`."""
        return self.prompt.preamble_ids()

    def _texts(self, visual: VisualTokens, whole: bool) -> list[tuple[list[int], list[int]]]:
        """`frame_text_ids` of each frame. whole: these are all frames of a prompt, in its order."""
        times = zip(visual.starts.tolist(), visual.times.tolist(), strict=True)
        return [self.frame_text_ids(start, end) for start, end in times]

    def frame_embeds(self, visual_tokens: VisualTokens, *, whole: bool = False) -> FrameEmbeds:
        """Every frame's visual tokens with the text around them. A repeated frame continues where
        the frame that it repeats ends, without a time tag. If the family puts text after a frame,
        the repeated frame keeps its text: marks come in pairs, and with three axes the text after a
        frame determines where the next one begins.
        """
        width = self.model.get_input_embeddings().weight.shape[1]
        lengths: list[int] = []
        text: list[int] = []
        visual: list[Tensor] = []
        places: list[Tensor] = []
        repeats = (
            [False] * len(visual_tokens.times)
            if visual_tokens.repeats is None
            else visual_tokens.repeats.tolist()
        )
        own = max(self.grid())
        sides = (
            [own] * len(visual_tokens.times)
            if visual_tokens.sides is None
            else [side or own for side in visual_tokens.sides.tolist()]
        )
        texts = self._texts(visual_tokens, whole)
        for (a, b), (before, behind), repeated, side in zip(
            visual_tokens.ranges(), texts, repeats, sides, strict=True
        ):
            if repeated and not behind:
                before = []
            text += before + behind
            lengths.append(len(before) + b - a + len(behind))
            visual.append(torch.zeros(lengths[-1], dtype=torch.bool))
            visual[-1][len(before) : len(before) + b - a] = True
            if self.language_model.positions.axes == 3:
                places.append(
                    self._frame_pos(len(before), visual_tokens.pos[a:b], len(behind), side)
                )
        is_visual = torch.cat(visual)
        embeds = torch.empty(len(is_visual), width, dtype=self.dtype, device=self.device)
        # [N, D] or, with DeepStack, [N, D * (1 + levels)]
        tokens = visual_tokens.tokens.to(self.device, self.dtype)
        embeds[is_visual.to(self.device)] = tokens[:, :width]
        embeds[~is_visual.to(self.device)] = self.language_model.embed(text).to(self.dtype)
        return FrameEmbeds(
            embeds,
            torch.tensor([0, *lengths]).cumsum(0),
            is_visual,
            torch.cat(places) if places else None,
            tokens[:, width:].split(width, dim=1) if tokens.shape[1] > width else (),
        )

    @staticmethod
    def _frame_pos(before: int, pos: Tensor, behind: int, side: int) -> Tensor:
        """[before + n + behind, 3] int32: text with equal positions on all axes, the grid at one
        moment, then text after the grid's longer side.
        """
        grid = pos.clone()
        grid[:, 0] = 0
        end = before + side
        text = [
            torch.arange(a, b, dtype=pos.dtype)[:, None].expand(-1, 3)
            for a, b in ((0, before), (end, end + behind))
        ]
        return torch.cat([text[0], grid + before, text[1]])

    def frame_text_length(self, seconds: float = 0.0) -> int:
        """Number of tokens of the text around a frame at this time."""
        return sum(len(ids) for ids in self.frame_text_ids(seconds, seconds))

    # -- identity ----------------------------------------------------------------------------------

    def fingerprint(self) -> str:
        """16 hex digits over the checkpoint's configuration and weights; a bank records them."""
        digest = hashlib.sha256(
            json.dumps(self.config.to_diff_dict(), sort_keys=True, default=str).encode()
        )
        folder = Path(self.path)
        if folder.is_dir():
            for file in sorted(folder.glob("*.safetensors")):
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
        else:
            # the commit, which transformers' configuration no longer knows
            cached = cached_folder(self.path, self._revision)
            digest.update((cached.name if cached else "None").encode())
        return digest.hexdigest()[:16]


def require_full_attention(backbone: Backbone) -> None:
    """UserError unless keys and values of single frames can be kept and recalled for this model."""
    layers = backbone.language_model.other_layers
    if layers:
        raise UserError(
            f"The model at {backbone.path} has layers of type {layers}, whose keys and values "
            f"cannot be recalled frame by frame; {_WITHOUT_KEYS}."
        )
    if backbone.has_weights and backbone.language_model.rotary_form is None:
        raise UserError(
            f"The model at {backbone.path} rotates its keys in a way that is not known here, so "
            f"stored keys would be wrong ones; {_WITHOUT_KEYS}."
        )

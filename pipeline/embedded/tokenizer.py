"""The embedded model's tokenizer and chat template, built from the question templates.

No download, and the same bytes each time. Words of the needle world are one token each; anything
else falls back to bytes, so any text can be asked.
"""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")
# A video message: frames first, then the question. `content` is a list of parts, as in the hub's
# LLaVA-OneVision.
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% for c in m.content if c.type == 'video' %}<video>{% endfor %}"
    "{% for c in m.content if c.type == 'text' %}{{ '\n' + c.text }}{% endfor %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def minute(number: int) -> str:
    """The middle of a time tag "[hh:mm:ss]"."""
    return f"{number:02d}:"


def build(corpus: Iterable[str], size: int = 1536) -> PreTrainedTokenizerFast:
    """Byte-level BPE over the corpus; every digit is a token.

    Time tags are two tokens, "[mm:" and "ss]", and beyond 100 minutes three: "[hh:", "mm:", "ss]".
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d| ?[A-Za-z]+|\s|[^\sA-Za-z\d]"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(corpus, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="right",
    )
    tokenizer.add_tokens(
        [f"[{i:02d}:" for i in range(100)]
        + [f"{i:02d}]" for i in range(60)]
        + [minute(i) for i in range(60)]
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer

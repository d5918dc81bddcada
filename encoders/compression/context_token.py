"""A frame as few means, and one token that depends on the question.

LLaMA-VID (arXiv 2311.17043) reads a frame X as two tokens: a content token, the mean of X, and a
context token, what the question's tokens Q look at:
    e = mean over Q of softmax(Q X^T) X
There Q and X are trained for it. Here Q are the words of the question as the language model embeds
them, x the stored tokens, and cosines stand in for trained products:
    w(p) = mean over q of softmax_p(beta cos(q, x_p)),   e = sum over p of w(p) x_p
Knows tokens and grids; nothing of words.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from encoders.compression.frame_pooling import pooled_frame
from encoders.schema import VisualTokens


def with_context_token(frame: VisualTokens, count: int, words: Tensor, beta: float) -> VisualTokens:
    """One frame (T = 1) with exactly `count` tokens, 1 to fewer than it has: count - 1 means of
    cells (`pooled_frame`), and the context token. With one token, it is the mean.

    words: [n, D] of the question; of tokens with DeepStack levels, the first D numbers are
    compared. beta: 0 weighs all tokens alike. The context token stands at the place of the token
    that weighs most and has no other. n * m * D products for m tokens.
    """
    if count < 2:
        return pooled_frame(frame, count)
    cells, x = pooled_frame(frame, count - 1), frame.tokens.float()
    weights = question_weights(x, words, beta)
    same = (frame.pos[None] == cells.pos[:, None]).all(-1)  # [count - 1, m]
    free = weights.cpu().masked_fill(same.any(0), -1.0)
    places = torch.cat([same.int().argmax(1), free.argmax()[None]])
    order = places.argsort()
    tokens = torch.cat([cells.tokens, (weights @ x)[None].to(cells.tokens.dtype)])
    return replace(
        frame,
        tokens=tokens[order.to(tokens.device)],
        pos=frame.pos[places[order]],
        offsets=torch.tensor([0, count]),
    )


def question_weights(x: Tensor, words: Tensor, beta: float) -> Tensor:
    """[m] float32, sum 1: w(p) above, of tokens x [m, D or more] float32. words: [n, D]."""
    query = normalize(words.to(x.device, torch.float32), dim=1)
    cosine = query @ normalize(x[:, : query.shape[1]], dim=1).T  # [n, m]
    return torch.softmax(beta * cosine, dim=-1).mean(0)

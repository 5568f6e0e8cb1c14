"""Attention written out, for layers that reach it by the attention interface under the name `eager`."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention over `(batch, heads, steps, head_dim)` with as many key heads as query heads, softmax in float32.

    Returns:
        The output `(batch, steps, heads, head_dim)` and the weights `(batch, heads, steps, steps)`.
    """
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


__all__ = ["eager_attention_forward"]

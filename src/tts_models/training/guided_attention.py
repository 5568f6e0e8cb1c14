"""Guided attention: shows a language model that speech follows its text from left to right (Tachibana et al., 2018).

A plain causal model finds out by itself which part of the text it is speaking, but only after far more examples than a
small computer sees. One head is told: the further an audio token is into the speech, the further into the text it
should look. The model itself stays as it is; only training changes.
"""

from collections.abc import Collection

import torch
from transformers import Trainer


def diagonal_weights(
    is_text: torch.BoolTensor, is_speech: torch.BoolTensor, width: float, margin: float
) -> torch.Tensor:
    r"""
    How well each text position fits each speech position, in 0 … 1.

    Args:
        is_text (`torch.BoolTensor` of shape `(batch, length)`): Positions of the text.
        is_speech (`torch.BoolTensor` of shape `(batch, length)`): Positions that predict an audio token.
        width (`float`): Standard deviation of the diagonal, as a share of the text.
        margin (`float`): Audio tokens of silence before and after the text.

    Returns:
        `torch.FloatTensor` of shape `(batch, length, length)`: speech in rows, text in columns, zero elsewhere.
    """
    text_place = (is_text.cumsum(1) - 0.5) / is_text.sum(1, keepdim=True).clamp(min=1)
    spoken = is_speech.sum(1, keepdim=True)
    speech_place = (is_speech.cumsum(1) - 0.5 - margin) / (spoken - 2 * margin).clamp(min=1)
    distance = speech_place.clamp(0, 1)[:, :, None] - text_place[:, None]
    weights = torch.exp(-distance.square() / (2 * width**2))
    return weights * is_speech[:, :, None] * is_text[:, None]


def guided_attention_loss(
    attention: torch.Tensor, is_text: torch.BoolTensor, is_speech: torch.BoolTensor, width: float, margin: float
) -> torch.Tensor:
    """Mean negative logarithm of the attention `(batch, length, length)` that falls on the diagonal; a scalar."""
    on_diagonal = (attention.float() * diagonal_weights(is_text, is_speech, width, margin)).sum(-1)
    return -torch.log(on_diagonal[is_speech] + 1e-4).mean()


class GuidedAttentionTrainer(Trainer):
    r"""
    `Trainer` that adds the guided-attention loss of one head. The language model must use `eager` attention.

    Args:
        text_token_ids (`Collection[int]`): Ids that are text to be spoken, such as the phonemes.
        guide_weight (`float`): Weight of the loss.
        guide_until (`float`): Share of the training steps after which the head is left to itself.
        guide_layer (`int`): Layer of the head; its first head is guided.
        guide_width (`float`): Width of the diagonal, see [`diagonal_weights`].
        guide_margin (`float`): Silent audio tokens at both ends.
        kwargs: As `Trainer`.
    """

    def __init__(
        self,
        *args,
        text_token_ids: Collection[int],
        guide_weight: float = 0.5,
        guide_until: float = 0.7,
        guide_layer: int = 1,
        guide_width: float = 0.08,
        guide_margin: float = 0.0,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.text_token_ids = torch.tensor(sorted(text_token_ids))
        self.guide_weight, self.guide_until, self.guide_layer = guide_weight, guide_until, guide_layer
        self.guide_width, self.guide_margin = guide_width, guide_margin

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        """The language model's loss, plus the guide's while it applies (training steps only)."""
        applies = model.training and self.state.global_step < self.guide_until * self.state.max_steps
        if not applies:
            return super().compute_loss(model, inputs, return_outputs=return_outputs, **kwargs)
        outputs = model(**inputs, output_attentions=True)
        is_text = torch.isin(inputs["input_ids"], self.text_token_ids.to(inputs["input_ids"].device))
        is_speech = torch.nn.functional.pad(inputs["labels"][:, 1:] != -100, (0, 1))
        guide = guided_attention_loss(
            outputs.attentions[self.guide_layer][:, 0], is_text, is_speech, self.guide_width, self.guide_margin
        )
        loss = outputs.loss + self.guide_weight * guide
        return (loss, outputs) if return_outputs else loss

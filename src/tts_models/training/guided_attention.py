"""Guided attention: shows a language model which part of its text it is speaking (Tachibana et al., 2018).

A plain causal model finds out by itself where in the text it is, but only after far more examples than a small
computer sees. Some heads are told: the phoneme spoken now, where the data says so, or else the one as far into the
text as the audio token is into the speech. The model itself stays as it is; only training changes.
"""

from collections.abc import Collection, Sequence

import torch
from transformers import Trainer


def diagonal_places(is_text: torch.BoolTensor, is_speech: torch.BoolTensor, margin: float) -> torch.Tensor:
    r"""
    Text token that is probably spoken at each speech position: text and speech advance at one pace.

    Args:
        is_text (`torch.BoolTensor` of shape `(batch, length)`): Positions of the text.
        is_speech (`torch.BoolTensor` of shape `(batch, length)`): Positions that predict an audio token.
        margin (`float`): Audio tokens of silence before and after the text.

    Returns:
        `torch.FloatTensor` of shape `(batch, length)`: how many text tokens lie before the place, -1 outside speech.
    """
    spoken = is_speech.sum(1, keepdim=True)
    share = (is_speech.cumsum(1) - 0.5 - margin) / (spoken - 2 * margin).clamp(min=1)
    places = share.clamp(0, 1) * is_text.sum(1, keepdim=True) - 0.5
    return torch.where(is_speech, places, -1.0)


def guided_attention_loss(
    attention: torch.Tensor, is_text: torch.BoolTensor, places: torch.Tensor, width: float
) -> torch.Tensor:
    """Mean negative logarithm of the attention that falls on the right text; a scalar.

    Args:
        attention: Attention weights of a head, `(batch, length, length)`.
        is_text: Positions of the text, `(batch, length)`.
        places: Text token, counted from 0, that each position should look at, `(batch, length)`; -1 for none.
        width: How far off a look may be: standard deviation of a bell curve, in text tokens.
    """
    distance = places[:, :, None] - (is_text.cumsum(1) - 1.0)[:, None]
    weights = torch.exp(-distance.square() / (2 * width**2)) * is_text[:, None]
    return -torch.log((attention.float() * weights).sum(-1)[places > -1] + 1e-4).mean()


class GuidedAttentionTrainer(Trainer):
    r"""
    `Trainer` that adds the guided-attention loss of some heads. The language model must use `eager` attention.

    Examples may say under `text_places` which text token each position should look at (see
    [`guided_attention_loss`]); otherwise it is the diagonal.

    Args:
        text_token_ids (`Collection[int]`): Ids that are text to be spoken, such as the phonemes.
        guide_weight (`float`): Weight of the loss.
        guide_until (`float`): Share of the training steps after which the heads are left to themselves.
        guide_layers (`Sequence[int]`): Layers whose first head is guided.
        guide_width (`float`): See [`guided_attention_loss`].
        guide_margin (`float`): Silent audio tokens at both ends, for the diagonal.
        kwargs: As `Trainer`.
    """

    def __init__(
        self,
        *args,
        text_token_ids: Collection[int],
        guide_weight: float = 0.5,
        guide_until: float = 0.7,
        guide_layers: Sequence[int] = (1,),
        guide_width: float = 3.0,
        guide_margin: float = 0.0,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.text_token_ids = torch.tensor(sorted(text_token_ids))
        self.guide_weight, self.guide_until, self.guide_layers = guide_weight, guide_until, tuple(guide_layers)
        self.guide_width, self.guide_margin = guide_width, guide_margin

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        """The language model's loss, plus the guide's while it applies (training steps only)."""
        places = inputs.pop("text_places", None)
        applies = model.training and self.state.global_step < self.guide_until * self.state.max_steps
        if not applies:
            return super().compute_loss(model, inputs, return_outputs=return_outputs, **kwargs)
        outputs = model(**inputs, output_attentions=True)
        is_text = torch.isin(inputs["input_ids"], self.text_token_ids.to(inputs["input_ids"].device))
        if places is None:
            is_speech = torch.nn.functional.pad(inputs["labels"][:, 1:] != -100, (0, 1))
            places = diagonal_places(is_text, is_speech, self.guide_margin)
        guides = [
            guided_attention_loss(outputs.attentions[layer][:, 0], is_text, places, self.guide_width)
            for layer in self.guide_layers
        ]
        loss = outputs.loss + self.guide_weight * torch.stack(guides).mean()
        return (loss, outputs) if return_outputs else loss

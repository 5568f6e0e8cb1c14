"""Token-by-token decoding of a batch whose rows advance together and leave it when they are done."""

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from .decoder_step import DecoderStep, sees_every_position
from .kv_cache import ReservedCache
from .small_llama import SmallLlama


class LockstepDecoder:
    """Runs a decoder-only backbone one token per row and step, with a cache, for left-padded prompts.

    A row that is done is taken out with `select`: the others go on exactly as they would alone.

    Args:
        backbone: The model below the language-model head, such as `LlamaForCausalLM.model`.
        input_ids: int64 prompts `(batch, length)`, left-padded.
        attention_mask: `(batch, length)`, 1 for tokens and 0 for padding.
        inputs_embeds: The prompts as rows `(batch, length, hidden_size)` instead of `input_ids`; the steps then take
            rows too ([`LockstepDecoder.step_embeds`]).
        fast_step: Takes the steps after the prompt instead of the backbone. Without one, those of a small Llama are
            [`SmallLlama`]'s.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        fast_step: DecoderStep | None = None,
    ) -> None:
        self.backbone = backbone
        self.input_ids, self.inputs_embeds = input_ids, inputs_embeds
        self.attention_mask = attention_mask
        self.cache = ReservedCache(backbone.config.num_hidden_layers)
        self.is_padded = not bool(attention_mask.all())
        self.positions = attention_mask.sum(-1, keepdim=True)
        self._mask: torch.Tensor | None = None
        self._length = attention_mask.shape[-1]
        self._fast_step = fast_step
        takes_masks = backbone.config._attn_implementation in ("sdpa", "eager")
        self._takes_ready_mask = takes_masks and sees_every_position(backbone)
        self._has_fast_steps = fast_step is not None or SmallLlama.suits(backbone)
        self._small: SmallLlama | None = None

    def prefill(self) -> torch.Tensor:
        """Read the prompts; returns the last hidden state `(batch, hidden_size)` of each row."""
        positions = (self.attention_mask.cumsum(-1) - 1).clamp(min=0)
        mask = self.attention_mask if self.is_padded else None
        if self.inputs_embeds is not None:
            return self._run(mask, positions, inputs_embeds=self.inputs_embeds)
        return self._run(mask, positions, input_ids=self.input_ids)

    def step(self, token_ids: torch.LongTensor, is_present: torch.BoolTensor | None = None) -> torch.Tensor:
        """Read one more token `(batch,)` per row; returns the hidden state `(batch, hidden_size)` after it.

        Where `is_present` `(batch,)` is false, the row waits: its token is never seen, its state of no use.
        """
        waiting = None if is_present is None or bool(is_present.all()) else ~is_present
        if waiting is not None:
            self._hide_next(waiting)
        if self._has_fast_steps:
            table = self.backbone.get_input_embeddings().weight
            hidden_state = self._run_fast(F.embedding(token_ids, table), self._step_mask())
        else:
            hidden_state = self._run(self._step_mask(), self.positions, input_ids=token_ids[:, None])
        self._length += 1
        self.positions = self.positions + (1 if waiting is None else (~waiting).long()[:, None])
        return hidden_state

    def step_embeds(self, embeds: torch.Tensor) -> torch.Tensor:
        """Read one more row `(batch, hidden_size)` each; returns the hidden state `(batch, hidden_size)` after it."""
        if self._has_fast_steps:
            hidden_state = self._run_fast(embeds, self._step_mask())
        else:
            hidden_state = self._run(self._step_mask(), self.positions, inputs_embeds=embeds[:, None])
        self._length += 1
        self.positions = self.positions + 1
        return hidden_state

    # Spares every small operation the bookkeeping of views and versions.
    @torch.inference_mode()
    def _run_fast(self, embeds: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        if self._fast_step is None:
            if self._small is None:
                self._small = SmallLlama(self.backbone, self.cache)
            return self._small.step(embeds, self.positions, mask)
        # An upper bound of the positions, known without asking the device.
        self._fast_step.reserve_positions(self._length + 1)
        rotation = self._fast_step.rotation(self.positions)
        return self._fast_step(embeds[:, None], rotation, mask, self.cache.layers)[:, -1]

    def select(self, index: torch.LongTensor) -> None:
        """Go on with the rows `index` (int64) only."""
        (self.cache if self._small is None else self._small).batch_select_indices(index)
        self.positions = self.positions[index]
        self.attention_mask = self.attention_mask[index]
        self._mask = None if self._mask is None else self._mask[index]

    def _run(
        self, attention_mask: torch.Tensor | None, position_ids: torch.LongTensor, **inputs: torch.Tensor
    ) -> torch.Tensor:
        outputs = self.backbone(
            **inputs,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=self.cache,
            use_cache=True,
        )
        return outputs.last_hidden_state[:, -1]

    def _step_mask(self) -> torch.Tensor | None:
        """The mask of one new token: none without padding, else ready made where the attention takes it so."""
        if not self.is_padded:
            return None
        length = self._length + 1
        if self._mask is None or self._mask.shape[-1] < length:
            known, self._mask = self._mask, self._build_mask(2 * length)
            if known is not None:
                self._mask[..., : known.shape[-1]] = known
        return self._mask[..., :length]

    def _hide_next(self, waiting: torch.BoolTensor) -> None:
        """Hide the next token of the rows `waiting`, for good."""
        self.is_padded = True
        mask = self._step_mask()
        blocked = 0 if mask.dim() == 2 else torch.finfo(mask.dtype).min
        mask[waiting, ..., -1] = blocked

    def _build_mask(self, length: int) -> torch.Tensor:
        new_tokens = length - self.attention_mask.shape[-1]
        mask = F.pad(self.attention_mask, (0, new_tokens), value=1)
        if not self._has_fast_steps and not self._takes_ready_mask:
            return mask
        blocked = torch.finfo(self.backbone.dtype).min
        additive = torch.zeros(mask.shape, dtype=self.backbone.dtype, device=mask.device)
        return additive.masked_fill(mask == 0, blocked)[:, None, None]


__all__ = ["LockstepDecoder"]

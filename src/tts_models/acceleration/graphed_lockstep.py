"""Token-by-token decoding whose steps are recorded as CUDA graphs, a launch each."""

from collections.abc import Callable
from functools import partial

import torch
from transformers import PreTrainedModel

from .cuda_graph import CapturedCall
from .decoder_step import DecoderStep
from .kv_cache import SlotLayer
from .lockstep import LockstepDecoder
from .programs import KeptPrograms
from .projections import project_as_is


class StepProgram:
    """One token per row, in tensors that keep their shape and place.

    Args:
        backbone: A decoder like `Qwen2Model`, see [`DecoderStep`].
        batch_size: Rows.
        room: The most positions, prompt included.
    """

    def __init__(self, backbone: PreTrainedModel, batch_size: int, room: int) -> None:
        config, table = backbone.config, backbone.get_input_embeddings().weight
        self.device, self.dtype, self.table = table.device, table.dtype, table
        self.decoder_step = DecoderStep(backbone, project_as_is)
        self.decoder_step.reserve_positions(room)
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (batch_size, config.num_key_value_heads, room, head_dim)
        self.cache = [SlotLayer(shape, self.dtype, self.device) for _ in range(config.num_hidden_layers)]
        for layer in self.cache:
            layer.slots = self.cache[0].slots
        self.slot = self.cache[0].slots
        self.tokens = torch.zeros(batch_size, dtype=torch.long, device=self.device)
        self.positions = torch.zeros(batch_size, 1, dtype=torch.long, device=self.device)
        self.mask = torch.zeros(batch_size, 1, 1, room, dtype=self.dtype, device=self.device)
        self.hidden = torch.zeros(batch_size, config.hidden_size, dtype=self.dtype, device=self.device)
        self.run: Callable[[], None] = self._run
        if self.device.type == "cuda":
            self.run = CapturedCall(self._run, self.device)

    def load(self, decoder: LockstepDecoder) -> None:
        """Go on where `decoder` has read its prompts."""
        length = decoder.attention_mask.shape[1]
        self.slot.fill_(length)
        self.positions.copy_(decoder.positions)
        self.mask.fill_(torch.finfo(self.dtype).min)
        self.mask[..., :length].masked_fill_(decoder.attention_mask[:, None, None].bool(), 0.0)
        for layer, known in zip(self.cache, decoder.cache.layers, strict=True):
            layer.fill(known.keys, known.values)

    @torch.no_grad()
    def _run(self) -> None:
        self.mask.index_fill_(3, self.slot, 0.0)
        embeds = self.table.index_select(0, self.tokens)[:, None]
        rotation = self.decoder_step.rotation(self.positions)
        self.hidden.copy_(self.decoder_step(embeds, rotation, self.mask, self.cache)[:, -1])
        self.slot.add_(1)
        self.positions.add_(1)


class GraphedLockstepDecoder(LockstepDecoder):
    """A [`LockstepDecoder`] whose steps are one CUDA graph each; on other devices they are taken in the same tensors.

    Rows that are done stay in the batch, unheard, so that its size does not change.

    Args:
        programs: Where the recorded steps are kept; its `lock` must be held while the decoder is used.
        backbone: The model below the language-model head.
        input_ids: int64 prompts `(batch, length)`, left-padded.
        attention_mask: `(batch, length)`, 1 for tokens and 0 for padding.
        max_steps: The most tokens that are read after the prompts.
    """

    def __init__(
        self,
        programs: KeptPrograms,
        backbone: PreTrainedModel,
        input_ids: torch.LongTensor,
        attention_mask: torch.LongTensor,
        max_steps: int,
    ) -> None:
        super().__init__(backbone, input_ids, attention_mask)
        room = input_ids.shape[1] + max_steps
        make = partial(StepProgram, backbone)
        self.program = programs.get(make, backbone.norm.weight, len(input_ids), room)
        self.rows = torch.arange(len(input_ids), device=input_ids.device)

    def prefill(self) -> torch.Tensor:
        """As the parent's."""
        states = super().prefill()
        self.program.load(self)
        return states

    def step(self, token_ids: torch.LongTensor, is_present: torch.BoolTensor | None = None) -> torch.Tensor:
        """As the parent's, without rows that wait.

        Raises:
            ValueError: a row is to wait.
        """
        if is_present is not None:
            raise ValueError("`is_present` must be `None`: no row can wait in a recorded step.")
        self.program.tokens.index_copy_(0, self.rows, token_ids)
        self.program.run()
        return self.program.hidden.index_select(0, self.rows)

    def select(self, index: torch.LongTensor) -> None:
        """As the parent's."""
        self.rows = self.rows[index]


__all__ = ["GraphedLockstepDecoder", "StepProgram"]

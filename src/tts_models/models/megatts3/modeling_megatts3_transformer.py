# Copyright 2026 The tts_models authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""MegaTTS3's diffusion transformer: phones, tones, durations and a prompt to latents of the WaveVAE."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput, can_return_tuple

from ...acceleration.attention import eager_attention_forward
from ...acceleration.cuda_graph import GraphedFunction
from ...acceleration.projections import Projection, project_int8
from ...audio.lengths import length_mask
from ...streaming.generators import RowGenerators, resolve_row_generators
from .configuration_megatts3 import MegaTTS3TransformerConfig
from .flow_megatts3 import (
    CONDITIONS,
    FlowNoise,
    draw_flow_noise,
    guidance_weights,
    integrate,
    step_coefficients,
    sway_times,
)
from .modeling_megatts3_base import MegaTTS3PreTrainedModel
from .modeling_megatts3_text_encoder import MegaTTS3TextEncoder
from .training_megatts3_transformer import MegaTTS3TrainingDraws, draw_training, masked_mean_square


# Tones that the transformer was trained with: padding, the first, the Chinese ones. All others count as none.
KNOWN_TONES = (0, 4, 11, 12, 13, 14, 15)
NO_TONE = 3


# trf-ignore: TRF057
@dataclass
class MegaTTS3TransformerOutput(ModelOutput):
    r"""
    Output of [`MegaTTS3TransformerModel`].

    loss (`torch.FloatTensor` of shape `()`): Flow-matching loss, where `labels` were given.
    latents (`torch.FloatTensor` of shape `(batch, steps, latent_dim)`): The solution, where they were not: float32,
        beginning with the prompt's latents, zero after a row's end.
    latent_lengths (`torch.LongTensor` of shape `(batch,)`): Latents of each row, prompt included.
    """

    loss: torch.FloatTensor | None = None
    latents: torch.FloatTensor | None = None
    latent_lengths: torch.LongTensor | None = None


class MegaTTS3TimeEmbedding(nn.Module):
    """Sinusoids of the time, then two linear layers."""

    def __init__(self, config: MegaTTS3TransformerConfig):
        super().__init__()
        self.channels = config.time_embedding_size
        self.linear_1 = nn.Linear(self.channels, config.hidden_size)
        self.linear_2 = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, times: torch.Tensor) -> torch.Tensor:
        """Times `(rows,)` in [0, 1] to `(rows, hidden_size)`; half precision is too coarse for the sinusoids."""
        half = self.channels // 2
        step = -math.log(10000.0) / (half - 1)
        frequencies = torch.exp(torch.arange(half, device=times.device, dtype=torch.float32) * step)
        angles = 1000.0 * times.float()[:, None] * frequencies
        features = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return self.linear_2(F.silu(self.linear_1(features.to(self.linear_1.weight.dtype))))


def rotary_angles(config: MegaTTS3TransformerConfig, steps: int, device: torch.device) -> torch.Tensor:
    """Rotations of neighbouring pairs: cosines and sines `(steps, head_dim / 2, 2)`, float32."""
    exponents = torch.arange(0, config.head_dim, 2, device=device, dtype=torch.float32) / config.head_dim
    positions = torch.arange(steps, device=device, dtype=torch.float32)
    angles = torch.outer(positions, 1.0 / config.rope_theta**exponents)
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def rotate_pairs(states: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """`(batch, heads, steps, head_dim)` turned by `rotary_angles`, in float32."""
    pairs = torch.view_as_complex(states.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * torch.view_as_complex(rotation)).flatten(-2).to(states.dtype)


def modulated_norm(states: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, eps: float) -> torch.Tensor:
    """Layer norm of (batch, steps, width) with a scale and a shift `(rows, width)` of the time, `rows` 1 or batch."""
    if len(scale) == 1:
        return F.layer_norm(states, states.shape[-1:], scale[0], shift[0], eps)
    return torch.addcmul(shift[:, None], F.layer_norm(states, states.shape[-1:], eps=eps), scale[:, None])


class MegaTTS3TransformerAttention(nn.Module):
    """Attention of every step to every step, with rotary positions."""

    def __init__(self, config: MegaTTS3TransformerConfig, layer_idx: int):
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        self.head_dim, self.scaling = config.head_dim, config.head_dim**-0.5
        self.is_causal = False
        size = config.hidden_size
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(size, size) for _ in range(4))
        # Products of 8 bits, where they are used: of query, key and value at once, and of the output.
        self.int8: tuple[Projection, Projection] | None = None

    def forward(
        self, hidden_states: torch.Tensor, rotation: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> torch.Tensor:
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        joined, project_out = self._projections()
        query, key, value = (part.view(shape).transpose(1, 2) for part in joined(hidden_states))
        query, key = rotate_pairs(query, rotation), rotate_pairs(key, rotation)
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, _ = attention_interface(
            self, query, key, value, attention_mask, scaling=self.scaling, dropout=0.0, is_causal=False
        )
        return project_out(output.flatten(2))

    def _projections(self) -> tuple[Callable, Callable]:
        if self.int8 is None or torch.is_grad_enabled():
            return lambda states: (self.q_proj(states), self.k_proj(states), self.v_proj(states)), self.o_proj
        joined, project_out = self.int8
        return lambda states: joined(states).chunk(3, dim=-1), project_out


class MegaTTS3TransformerMLP(nn.Module):
    """Linear layer, SiLU, linear layer."""

    def __init__(self, config: MegaTTS3TransformerConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.int8: tuple[Projection, Projection] | None = None

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        first, second = self.int8 if self.int8 and not torch.is_grad_enabled() else (self.fc1, self.fc2)
        return second(F.silu(first(hidden_states)))


class MegaTTS3TransformerLayer(GradientCheckpointingLayer):
    """Attention and feed-forward layer, whose norms and gates the time sets (adaptive layer norm, gates from zero)."""

    def __init__(self, config: MegaTTS3TransformerConfig, layer_idx: int):
        super().__init__()
        self.eps = config.layer_norm_eps
        self.modulation = nn.Linear(config.hidden_size, 6 * config.hidden_size)
        self.self_attn = MegaTTS3TransformerAttention(config, layer_idx)
        self.mlp = MegaTTS3TransformerMLP(config)

    def modulate(self, time: torch.Tensor) -> torch.Tensor:
        """Shift, scale and gate of both halves `(rows, 6, hidden_size)`, of activated times `(rows, hidden_size)`."""
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.modulation(time).chunk(6, dim=-1)
        return torch.stack([shift, 1 + scale, gate, mlp_shift, 1 + mlp_scale, mlp_gate], dim=1)

    def forward(
        self,
        hidden_states: torch.Tensor,
        modulation: torch.Tensor,
        rotation: torch.Tensor,
        attention_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation.unbind(1)
        normed = modulated_norm(hidden_states, scale, shift, self.eps)
        attended = self.self_attn(normed, rotation, attention_mask)
        hidden_states = torch.addcmul(hidden_states, gate[:, None], attended)
        transformed = self.mlp(modulated_norm(hidden_states, mlp_scale, mlp_shift, self.eps))
        return torch.addcmul(hidden_states, mlp_gate[:, None], transformed)


@dataclass(frozen=True)
class MegaTTS3Conditions:
    r"""
    What the velocity depends on beside the state and the time: of the rows of a batch, or of three times as many.

    Args:
        states (`torch.Tensor` of shape `(rows, steps, hidden_size)`): Prompt, its mask, and the text, projected.
        target_mask (`torch.Tensor` of shape `(batch, steps, 1)`): 1 where latents are wanted, 0 in prompt and padding.
        valid (`torch.BoolTensor` of shape `(batch, steps)`): False in the padding.
    """

    states: torch.Tensor
    target_mask: torch.Tensor
    valid: torch.Tensor


# trf-ignore: TRF057
class MegaTTS3TransformerModel(MegaTTS3PreTrainedModel):
    r"""
    The diffusion transformer of MegaTTS3: latents (25 a second) of phones with known durations, that continue those of
    a prompt. `forward` integrates the flow from noise, or, with `labels`, returns the loss that trains it.

    Example:

    ```python
    >>> import torch
    >>> from tts_models import MegaTTS3TransformerConfig, MegaTTS3TransformerModel

    >>> config = MegaTTS3TransformerConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, latent_dim=8)
    >>> model = MegaTTS3TransformerModel(config).eval()
    >>> phones, tones = torch.tensor([[145, 3, 20, 145]]), torch.tensor([[3, 11, 4, 3]])
    >>> frame_map = torch.arange(1, 5).repeat_interleave(8)[None]
    >>> model(phones, tones, frame_map, prompt_latents=torch.randn(1, 3, 8), num_inference_steps=2).latents.shape
    torch.Size([1, 8, 8])
    ```
    """

    config: MegaTTS3TransformerConfig
    config_class = MegaTTS3TransformerConfig
    base_model_prefix = "transformer"
    main_input_name = "phone_ids"
    _no_split_modules = ["MegaTTS3TransformerLayer", "MegaTTS3TextLayer"]

    def __init__(self, config: MegaTTS3TransformerConfig):
        super().__init__(config)
        size, local = config.hidden_size, config.local_condition_size
        self.text_encoder = MegaTTS3TextEncoder(config.text_encoder_config)
        self.text_downsampler = nn.ModuleList(nn.Conv1d(size, size, 4, stride=2, padding=1) for _ in range(2))
        self.context_mask_projection = nn.Linear(1, config.context_mask_size)
        self.local_condition_projection = nn.Linear(config.latent_dim + config.context_mask_size, local)
        self.local_condition_in = nn.Linear(local, size)
        self.latent_in = nn.Linear(config.latent_dim, size)
        self.time_embedding = MegaTTS3TimeEmbedding(config)
        self.layers = nn.ModuleList(MegaTTS3TransformerLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm_out = nn.Linear(size, 2 * size)
        self.out_proj = nn.Linear(size, size)
        self.latent_out = nn.Linear(size, config.latent_dim)
        self.gradient_checkpointing = False
        self.use_cuda_graphs(None)
        self.post_init()

    # trf-ignore: TRF057
    @can_return_tuple
    def forward(
        self,
        phone_ids: torch.LongTensor,
        tone_ids: torch.LongTensor,
        frame_map: torch.LongTensor,
        lengths: torch.LongTensor | None = None,
        labels: torch.Tensor | None = None,
        prompt_lengths: torch.LongTensor | None = None,
        training_draws: MegaTTS3TrainingDraws | None = None,
        generator: RowGenerators = None,
        **solver: Any,
    ) -> MegaTTS3TransformerOutput:
        r"""
        Latents of a text that continue a prompt, as `solve` gives them; or, with `labels`, the loss that trains the
        flow.

        Args:
            phone_ids, tone_ids, frame_map, lengths: As for `solve`.
            labels (`torch.FloatTensor` of shape `(batch, steps, latent_dim)`, *optional*):
                Latents of the whole row, for training; the prompt is its beginning.
            prompt_lengths (`torch.LongTensor` of shape `(batch,)`, *optional*):
                Latents of each row's prompt. In training they are drawn when absent.
            training_draws ([`MegaTTS3TrainingDraws`], *optional*): The random part of the loss; drawn when absent.
            generator (`torch.Generator` or a list with one per row, *optional*): Where noise is drawn from.
            solver: The other arguments of `solve`, without `labels`.

        Raises:
            ValueError: ids outside the tables, shapes or lengths that do not fit, or an option out of range.
        """
        counted = self._check_lengths(lengths, self._check_frames(frame_map, phone_ids))
        if labels is not None:
            loss = self._loss(
                phone_ids, tone_ids, frame_map, counted, labels, prompt_lengths, training_draws, generator
            )
            return MegaTTS3TransformerOutput(loss=loss)
        latents = self.solve(
            phone_ids,
            tone_ids,
            frame_map,
            prompt_lengths=prompt_lengths,
            lengths=counted,
            generator=generator,
            **solver,
        )
        return MegaTTS3TransformerOutput(latents=latents, latent_lengths=counted)

    @torch.no_grad()
    def solve(
        self,
        phone_ids: torch.LongTensor,
        tone_ids: torch.LongTensor,
        frame_map: torch.LongTensor,
        prompt_latents: torch.Tensor | None = None,
        prompt_lengths: torch.LongTensor | None = None,
        lengths: torch.LongTensor | None = None,
        num_inference_steps: int | None = None,
        intelligibility_weight: float | torch.Tensor | None = None,
        similarity_weight: float | torch.Tensor | None = None,
        initial_noise: torch.Tensor | None = None,
        step_noise: torch.Tensor | None = None,
        generator: RowGenerators = None,
        sequential: bool = False,
    ) -> torch.Tensor:
        r"""
        Latents of a text that continue a prompt: integrates the flow from noise.

        Args:
            phone_ids, tone_ids (`torch.LongTensor` of shape `(batch, phones)`):
                The prompt's and then the text's, padded on the right with 0. Tones of English stress count as none.
            frame_map (`torch.LongTensor` of shape `(batch, frames)`):
                Which phone (from 1 on) each frame of 10 ms belongs to, a multiple of 4 frames; 0 is padding.
            prompt_latents (`torch.FloatTensor` of shape `(batch, prompt_steps, latent_dim)`, *optional*):
                Latents of the prompt, one per 4 of its frames.
            prompt_lengths (`torch.LongTensor` of shape `(batch,)`, *optional*):
                Latents of each row's prompt; by default all of `prompt_latents`.
            lengths (`torch.LongTensor` of shape `(batch,)`, *optional*):
                Latents of each row, prompt included; by default those of its frames.
            num_inference_steps (`int`, *optional*): Steps of the solver.
            intelligibility_weight, similarity_weight (`float` or `torch.Tensor` of shape `(batch,)`, *optional*):
                Strengths of the guidance by the text (upstream's `p_w`) and by the prompt (`t_w`).
            initial_noise (`torch.FloatTensor` of shape `(batch, steps, latent_dim)`, *optional*):
                Where the flow begins; drawn when absent.
            step_noise (`torch.FloatTensor` of shape `(batch, num_inference_steps, steps, latent_dim)`, *optional*):
                What the solver's steps add; drawn when absent.
            generator (`torch.Generator` or a list with one per row, *optional*): Where they are drawn from.
            sequential (`bool`, defaults to `False`):
                Compute the three conditions of a step one after the other: a third of the memory for the activations.

        Returns:
            `torch.FloatTensor` of shape `(batch, steps, latent_dim)`: float32, beginning with the prompt's latents,
            zero after a row's end.

        Raises:
            ValueError: ids outside the tables, shapes or lengths that do not fit, or an option out of range.
        """
        config, batch_size = self.config, phone_ids.shape[0]
        lengths = self._check_lengths(lengths, self._check_frames(frame_map, phone_ids))
        prompt, prompt_lengths = self.check_prompt(prompt_latents, prompt_lengths, lengths)
        inference_steps = self._check_steps(num_inference_steps)
        weights = guidance_weights(
            config.intelligibility_weight if intelligibility_weight is None else intelligibility_weight,
            config.similarity_weight if similarity_weight is None else similarity_weight,
            batch_size,
            self.device,
        )
        noise = self._noise(lengths, inference_steps, initial_noise, step_noise, generator)
        conditions = self.guidance_conditions(phone_ids, tone_ids, frame_map, prompt, prompt_lengths, lengths)
        times = sway_times(inference_steps, config.sway_coefficient, self.device)
        solved = self.solve_conditions(conditions, noise, times, weights, sequential)
        in_prompt = length_mask(prompt_lengths, solved.shape[1])[..., None]
        solved = torch.where(in_prompt, prompt.to(solved), solved)
        return solved * length_mask(lengths, solved.shape[1])[..., None]

    # Conditions

    def guidance_conditions(
        self,
        phone_ids: torch.Tensor,
        tone_ids: torch.Tensor,
        frame_map: torch.Tensor,
        prompt: torch.Tensor,
        prompt_lengths: torch.Tensor,
        lengths: torch.Tensor,
    ) -> MegaTTS3Conditions:
        """Conditions of three rows per row, in the order of [`guidance_weights`]: what no step of a solver changes.

        The first two have the same text, which is encoded once.
        """
        absent = phone_ids > 0
        phones = torch.cat([phone_ids, absent * self.config.dropped_phone_id])
        tones = torch.cat([self.clean_tones(tone_ids), absent * self.config.dropped_tone_id])
        text, no_text = self.text_states(phones, tones, frame_map.repeat(2, 1), lengths.repeat(2)).chunk(2)
        in_prompt = length_mask(prompt_lengths, prompt.shape[1])[..., None].to(text.dtype)
        given = self.local_states(prompt.to(text.dtype), in_prompt)
        not_given = self.local_states(torch.zeros_like(prompt, dtype=text.dtype), in_prompt)
        states = torch.cat([given + text, not_given + text, not_given + no_text])
        return self._make_conditions(states, in_prompt, lengths)

    @staticmethod
    def _make_conditions(states: torch.Tensor, in_prompt: torch.Tensor, lengths: torch.Tensor) -> MegaTTS3Conditions:
        valid = length_mask(lengths, states.shape[1])
        return MegaTTS3Conditions(states, (1 - in_prompt) * valid[..., None], valid)

    @staticmethod
    def clean_tones(tone_ids: torch.Tensor) -> torch.Tensor:
        """The tones, with those of English stress replaced by none: the transformer does not know them."""
        return torch.where(torch.isin(tone_ids, tone_ids.new_tensor(KNOWN_TONES)), tone_ids, NO_TONE)

    def text_states(
        self, phone_ids: torch.Tensor, tone_ids: torch.Tensor, frame_map: torch.Tensor, lengths: torch.Tensor
    ) -> torch.Tensor:
        """Encoded phones, repeated for their frames and brought to the rate of the latents: (rows, steps, hidden)."""
        encoded = F.pad(self.text_encoder(phone_ids, tone_ids), (0, 0, 1, 0))
        hidden_states = encoded.gather(1, frame_map[..., None].expand(-1, -1, encoded.shape[2])).transpose(1, 2)
        for rate, convolution in zip((2, 1), self.text_downsampler, strict=True):
            hidden_states = convolution(hidden_states)
            hidden_states = hidden_states * length_mask(rate * lengths, hidden_states.shape[2])[:, None]
        return hidden_states.transpose(1, 2)

    def local_states(self, prompt: torch.Tensor, in_prompt: torch.Tensor) -> torch.Tensor:
        """Prompt latents `(rows, steps, latent_dim)` with the mask of their place `(rows, steps, 1)`, projected."""
        joined = torch.cat([prompt * in_prompt, self.context_mask_projection(in_prompt)], dim=-1)
        return self.local_condition_in(self.local_condition_projection(joined))

    # Velocity

    def modulations(self, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What times `(rows,)` set in the layers `(layers, rows, 6, hidden)` and in the last norm `(rows, 2, hidden)`.

        Nothing else depends on the time, so a solver computes it once for all its steps.
        """
        embedded = F.silu(self.time_embedding(times))
        scale, shift = self.norm_out(embedded).chunk(2, dim=-1)
        return torch.stack([layer.modulate(embedded) for layer in self.layers]), torch.stack([1 + scale, shift], 1)

    def hidden_velocity(
        self,
        inputs: torch.Tensor,
        modulations: torch.Tensor,
        last: torch.Tensor,
        rotation: torch.Tensor,
        attention_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """The layers and the last norm: what `latent_velocity` projects is linear in it."""
        hidden_states = inputs
        for layer, modulation in zip(self.layers, modulations, strict=True):
            hidden_states = layer(hidden_states, modulation, rotation, attention_mask)
        scale, shift = last.unbind(1)
        return modulated_norm(hidden_states, scale, shift, self.config.layer_norm_eps)

    def latent_velocity(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Velocity (rows, steps, latent_dim) of `hidden_velocity`'s result."""
        return self.latent_out(self.out_proj(hidden_states))

    def velocity(self, state: torch.Tensor, times: torch.Tensor, conditions: MegaTTS3Conditions) -> torch.Tensor:
        r"""
        One evaluation without guidance.

        Args:
            state (`torch.Tensor` of shape `(rows, steps, latent_dim)`): Noisy latents.
            times (`torch.Tensor` of shape `(1,)` or `(rows,)`): In [0, 1].
            conditions ([`MegaTTS3Conditions`]): Of as many rows.
        """
        inputs = self.latent_in((state * conditions.target_mask).to(conditions.states.dtype)) + conditions.states
        mask = self.attention_mask(inputs, conditions.valid)
        modulations, last = self.modulations(times)
        rotation = rotary_angles(self.config, inputs.shape[1], inputs.device)
        return self.latent_velocity(self.hidden_velocity(inputs, modulations, last, rotation, mask))

    def attention_mask(self, inputs: torch.Tensor, valid: torch.Tensor) -> torch.Tensor | None:
        """What the attention takes to leave out padded steps; `None` where there are none."""
        return create_bidirectional_mask(
            config=self.config, inputs_embeds=inputs, attention_mask=None if bool(valid.all()) else valid
        )

    # Solver

    def use_cuda_graphs(self, bucket_latents: int | None = 32) -> "MegaTTS3TransformerModel":
        """Launch a whole solution as one CUDA graph, recorded once per batch size, step number and length bucket.

        It changes nothing on other devices.

        Args:
            bucket_latents (`int`, *optional*, defaults to 32):
                Latents (40 ms, prompt included) that lengths are rounded up to; `None` ends it.

        Returns:
            The model itself.

        Raises:
            ValueError: if `bucket_latents` is not positive.
        """
        if bucket_latents is not None and bucket_latents < 1:
            raise ValueError(f"`bucket_latents` must be at least 1 or `None`, got {bucket_latents}.")
        self._bucket_latents = bucket_latents
        self._graphed_solution = GraphedFunction(
            lambda *tensors: self._solution(*tensors), lambda: self.latent_out.weight.data_ptr()
        )
        return self

    def use_int8_products(self, enabled: bool = True) -> "MegaTTS3TransformerModel":
        """Solve with weights and inputs of 8 bits in the layers' products, for a CPU without products of bfloat16.

        The model keeps its own weights, for training and saving; call it again when they have changed.

        Returns:
            The model itself.

        Raises:
            ValueError: the model is not on the CPU, or its layers have adapters.
        """
        for layer in self.layers:
            attention, mlp = layer.self_attn, layer.mlp
            attention.int8 = mlp.int8 = None
            if enabled:
                joined = project_int8(attention.q_proj, attention.k_proj, attention.v_proj)
                attention.int8 = joined, project_int8(attention.o_proj)
                mlp.int8 = project_int8(mlp.fc1), project_int8(mlp.fc2)
        return self

    def solve_conditions(
        self,
        conditions: MegaTTS3Conditions,
        noise: FlowNoise,
        times: torch.Tensor,
        weights: torch.Tensor,
        sequential: bool,
    ) -> torch.Tensor:
        r"""
        Integrate from noise to latents, guided by conditions. What the steps share is computed once.

        Args:
            conditions ([`MegaTTS3Conditions`]): Of `guidance_conditions`.
            noise ([`FlowNoise`]): Where to begin, and what the steps add.
            times (`torch.Tensor` of shape `(inference_steps + 1,)`): From 0 to 1.
            weights (`torch.Tensor` of shape `(3, batch, 1, 1)`): Of [`guidance_weights`].
            sequential (`bool`): Compute the conditions one after the other.

        Returns:
            `torch.Tensor` of shape `(batch, steps, latent_dim)`: float32; nothing of use in prompt and padding.
        """
        steps = noise.initial.shape[1]
        uses_graph = self._bucket_latents is not None and noise.initial.is_cuda and not sequential
        missing = -steps % self._bucket_latents if uses_graph else 0
        states, target_mask, initial, each_step = (
            F.pad(tensor, (0, 0, 0, missing))
            for tensor in (conditions.states, conditions.target_mask, noise.initial, noise.each_step)
        )
        valid = F.pad(conditions.valid, (0, missing)).repeat(1 if sequential else CONDITIONS, 1)
        mask = self.attention_mask(states[: len(valid)], valid)
        rotation = rotary_angles(self.config, steps + missing, states.device)
        coefficients = step_coefficients(times, self.config.overshoot)
        modulations, last = self.modulations(times[:-1])
        tensors = (initial, each_step, coefficients, modulations, last, rotation, states, target_mask, weights)
        if uses_graph:
            return self._graphed_solution(*tensors, *(() if mask is None else (mask,)))[:, :steps]
        return self._solution(*tensors, mask, sequential)

    def _solution(
        self,
        initial: torch.Tensor,
        each_step: torch.Tensor,
        coefficients: torch.Tensor,
        modulations: torch.Tensor,
        last: torch.Tensor,
        rotation: torch.Tensor,
        states: torch.Tensor,
        target_mask: torch.Tensor,
        weights: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        sequential: bool = False,
    ) -> torch.Tensor:
        """The steps: tensors in, a tensor out, so that they can be recorded."""
        groups, batch_size = CONDITIONS if sequential else 1, len(initial)

        def velocity(state: torch.Tensor, step: int) -> torch.Tensor:
            latent = self.latent_in((state * target_mask).to(states.dtype))
            at_step = (modulations[:, step : step + 1], last[step : step + 1], rotation, attention_mask)
            guided = torch.zeros((), device=state.device)
            for group, weight in zip(states.chunk(groups), weights.chunk(groups), strict=True):
                inputs = group.unflatten(0, (-1, batch_size)) + latent
                hidden_states = self.hidden_velocity(inputs.flatten(0, 1), *at_step)
                # What follows is linear, and the weights sum to 1: it is done once, for the guided states.
                guided = guided + (weight * hidden_states.unflatten(0, (-1, batch_size))).sum(0)
            return self.latent_velocity(guided.to(states.dtype)).float()

        return integrate(velocity, FlowNoise(initial, each_step), coefficients)

    # Training

    def _loss(
        self,
        phone_ids: torch.Tensor,
        tone_ids: torch.Tensor,
        frame_map: torch.Tensor,
        lengths: torch.Tensor,
        labels: torch.Tensor,
        prompt_lengths: torch.Tensor | None,
        draws: MegaTTS3TrainingDraws | None,
        generator: RowGenerators,
    ) -> torch.Tensor:
        """Mean squared error of the velocity at a random time of the straight path from noise to the latents."""
        batch_size, steps = frame_map.shape[0], frame_map.shape[1] // self.config.frames_per_latent
        shape = (batch_size, steps, self.config.latent_dim)
        if tuple(labels.shape) != shape:
            raise ValueError(f"`labels` must have shape {shape}, got {tuple(labels.shape)}.")
        if draws is None:
            generators = resolve_row_generators(generator, batch_size)
            draws = draw_training(labels, lengths, self.config.condition_dropout, generators)
        if prompt_lengths is None:
            prompt_lengths = draws.prompt_lengths
        prompt_lengths = self._check_prompt_lengths(prompt_lengths, lengths)
        conditions = self._training_conditions(phone_ids, tone_ids, frame_map, lengths, labels, prompt_lengths, draws)
        time = draws.time[:, None, None]
        state = time * labels + (1 - time) * draws.noise
        predicted = self.velocity(state, draws.time, conditions)
        return masked_mean_square(predicted.float(), labels - draws.noise, conditions.target_mask)

    def _training_conditions(
        self,
        phone_ids: torch.Tensor,
        tone_ids: torch.Tensor,
        frame_map: torch.Tensor,
        lengths: torch.Tensor,
        labels: torch.Tensor,
        prompt_lengths: torch.Tensor,
        draws: MegaTTS3TrainingDraws,
    ) -> MegaTTS3Conditions:
        """Conditions of a batch, of which some rows lose their prompt, and some of those their text."""
        present, has_text = phone_ids > 0, draws.has_text[:, None]
        phones = torch.where(has_text, phone_ids, present * self.config.dropped_phone_id)
        tones = torch.where(has_text, self.clean_tones(tone_ids), present * self.config.dropped_tone_id)
        text = self.text_states(phones, tones, frame_map, lengths)
        in_prompt = length_mask(prompt_lengths, labels.shape[1])[..., None].to(text.dtype)
        prompt = (labels * draws.has_prompt[:, None, None]).to(text.dtype)
        return self._make_conditions(self.local_states(prompt, in_prompt) + text, in_prompt, lengths)

    # Checks

    def _check_frames(self, frame_map: torch.Tensor, phone_ids: torch.Tensor) -> torch.Tensor:
        """Latents of each row, as many as its frames make."""
        ratio, longest = self.config.frames_per_latent, self.config.max_position_embeddings
        if frame_map.dim() != 2 or not frame_map.shape[1] or frame_map.shape[1] % ratio:
            raise ValueError(
                f"`frame_map` must have shape (batch, frames) with a positive multiple of {ratio} frames, got "
                f"{tuple(frame_map.shape)}."
            )
        if phone_ids.dim() != 2 or len(phone_ids) != len(frame_map):
            raise ValueError(
                f"`phone_ids` must have shape ({len(frame_map)}, phones) beside `frame_map`, got "
                f"{tuple(phone_ids.shape)}."
            )
        phones = phone_ids.shape[1]
        if frame_map.device.type == "cpu" and not 0 <= int(frame_map.min()) <= int(frame_map.max()) <= phones:
            raise ValueError(
                f"`frame_map` must hold numbers in 0 … {phones}, the phones of a row, got {int(frame_map.min())} … "
                f"{int(frame_map.max())}."
            )
        if frame_map.shape[1] > ratio * longest:
            raise ValueError(
                f"`frame_map` must have at most {ratio * longest} frames (`max_position_embeddings={longest}`), got "
                f"{frame_map.shape[1]}."
            )
        return ((frame_map > 0).sum(1) + ratio - 1) // ratio

    def _check_lengths(self, lengths: torch.Tensor | None, counted: torch.Tensor) -> torch.LongTensor:
        lengths = counted if lengths is None else torch.as_tensor(lengths, device=counted.device).long()
        if lengths.shape != counted.shape or int(lengths.min()) < 1 or bool((lengths > counted).any()):
            raise ValueError(
                "`lengths` must give each row 1 latent or more, and none beyond its frames "
                f"({counted.tolist()}), got {lengths.tolist()}."
            )
        return lengths

    @staticmethod
    def _check_prompt_lengths(prompt_lengths: torch.Tensor, lengths: torch.Tensor) -> torch.LongTensor:
        prompt_lengths = torch.as_tensor(prompt_lengths, device=lengths.device).long()
        fits = prompt_lengths.shape == lengths.shape
        if not fits or not bool(((prompt_lengths >= 0) & (prompt_lengths < lengths)).all()):
            raise ValueError(
                f"`prompt_lengths` must hold a number per row, at least 0 and below its latents ({lengths.tolist()}), "
                f"got {prompt_lengths.tolist()}."
            )
        return prompt_lengths

    def check_prompt(
        self, prompt_latents: torch.Tensor | None, prompt_lengths: torch.Tensor | None, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The prompt's latents as long as the batch, and how many of each row are a prompt."""
        batch_size, width, steps = len(lengths), self.config.latent_dim, int(lengths.max())
        if prompt_latents is None:
            prompt_latents = torch.zeros(batch_size, 0, width, device=self.device)
        given = tuple(prompt_latents.shape)
        if len(given) != 3 or (given[0], given[2]) != (batch_size, width):
            raise ValueError(f"`prompt_latents` must have shape ({batch_size}, steps, {width}), got {given}.")
        if not prompt_latents.isfinite().all():
            raise ValueError("`prompt_latents` must hold finite numbers, got NaN or infinity.")
        if prompt_lengths is None:
            prompt_lengths = torch.full((batch_size,), given[1])
        prompt_lengths = self._check_prompt_lengths(prompt_lengths, lengths)
        if int(prompt_lengths.max()) > given[1]:
            raise ValueError(
                f"`prompt_lengths` must be at most {given[1]}, the steps of `prompt_latents`, got "
                f"{prompt_lengths.tolist()}."
            )
        prompt = prompt_latents.to(self.device, torch.float32)[:, :steps]
        return F.pad(prompt, (0, 0, 0, steps - prompt.shape[1])), prompt_lengths

    def _check_steps(self, num_inference_steps: int | None) -> int:
        steps = self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise ValueError(f"`num_inference_steps` must be an integer of at least 1, got {steps!r}.")
        return steps

    def _noise(
        self,
        lengths: torch.Tensor,
        inference_steps: int,
        initial: torch.Tensor | None,
        each_step: torch.Tensor | None,
        generator: RowGenerators,
    ) -> FlowNoise:
        """What was given, or noise drawn for what was not."""
        batch_size, longest, width = len(lengths), int(lengths.max()), self.config.latent_dim
        shapes = {
            "initial_noise": (initial, (batch_size, longest, width)),
            "step_noise": (each_step, (batch_size, inference_steps, longest, width)),
        }
        for name, (tensor, shape) in shapes.items():
            if tensor is not None and tuple(tensor.shape) != shape:
                raise ValueError(f"`{name}` must have shape {shape}, got {tuple(tensor.shape)}.")
        if initial is None or each_step is None:
            drawn = draw_flow_noise(lengths.tolist(), width, inference_steps, generator, self.device)
            initial = drawn.initial if initial is None else initial
            each_step = drawn.each_step if each_step is None else each_step
        return FlowNoise(*(tensor.to(self.device, torch.float32) for tensor in (initial, each_step)))


__all__ = ["MegaTTS3Conditions", "MegaTTS3TransformerModel", "MegaTTS3TransformerOutput"]

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
"""Lean steps of MetaVoice's first stage, and what `enable_fast_steps` switches on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from ...acceleration.decoder_step import DecoderStep, RunLayer, layer_step
from ...acceleration.kv_cache import LayerCache
from ...acceleration.lockstep import LockstepDecoder
from ...acceleration.programs import weights_fingerprint
from ...acceleration.projections import (
    Projection,
    is_unwrapped,
    project_as_is,
    project_int8,
    project_joined,
    project_packed,
)
from .decoding_metavoice_first_stage import FirstStageBatch, Guidance


if TYPE_CHECKING:
    from .modeling_metavoice_first_stage import MetaVoiceFirstStageForCausalLM
    from .program_metavoice import StepProgram


class PositionedStep(DecoderStep):
    """One decoding step of a decoder with learned positions: their rows take the place of the rotation."""

    def __call__(
        self,
        embeds: torch.Tensor,
        rotation: tuple[torch.Tensor, None],
        mask: torch.Tensor | None,
        cache: Sequence[LayerCache],
        run_layer: RunLayer = layer_step,
    ) -> torch.Tensor:
        """As the parent's, of rows without their positions."""
        return super().__call__(embeds + rotation[0], (None, None), mask, cache, run_layer)

    def rotation(self, positions: torch.LongTensor) -> tuple[torch.Tensor, None]:
        """Rows `(batch, new, hidden_size)` of `positions` `(batch, new)`."""
        return F.embedding(positions, self.backbone.embed_positions.weight), None

    def reserve_positions(self, needed: int) -> None:
        """Nothing: the table is there."""


@dataclass(frozen=True)
class FastStepOptions:
    """
    How the steps after the prompt run; see [`~MetaVoiceFirstStageForCausalLM.enable_fast_steps`].

    Raises:
        ValueError: `int8` or `pack_weights` together with compilation or CUDA graphs, or with each other.
    """

    int8: bool = False
    use_compile: bool = False
    use_cuda_graphs: bool = False
    pack_weights: bool = False

    def __post_init__(self) -> None:
        if self.int8 and self.has_fixed_shapes:
            raise ValueError("`int8` runs on the CPU as it is: it goes with neither compilation nor CUDA graphs.")
        if self.pack_weights and (self.int8 or self.has_fixed_shapes):
            raise ValueError("`pack_weights` is for float32 on the CPU: it goes with no other option.")

    @property
    def has_fixed_shapes(self) -> bool:
        """Whether every step must have the same shapes."""
        return self.use_compile or self.use_cuda_graphs


class FastSteps:
    """The first stage's weights as the lean steps read them.

    Args:
        first_stage: The model.
        options: How it runs; `None` for the weights as they are.

    Raises:
        ValueError: the options do not fit the model's device, or the model's blocks are not Llama's.
    """

    def __init__(self, first_stage: "MetaVoiceFirstStageForCausalLM", options: FastStepOptions | None = None) -> None:
        _check(first_stage, options)
        self.uses_cuda_graphs = options is not None and options.use_cuda_graphs
        self.has_fixed_shapes = options is not None and options.has_fixed_shapes
        is_compiled = options is not None and options.use_compile
        self.run_layer = torch.compile(layer_step, fullgraph=True, dynamic=False) if is_compiled else layer_step
        project = project_as_is
        if options is not None:
            project = project_int8 if options.int8 else project_packed if options.pack_weights else project_joined
        self.step = PositionedStep(first_stage.model, project)
        # The head shares its weight with the table of tokens, which must keep its layout.
        has_copies = project in (project_int8, project_packed)
        self.head: Projection = project(first_stage.lm_head) if has_copies else first_stage.lm_head
        self.fingerprint = weights_fingerprint(first_stage)
        self.programs: list[StepProgram] = []


def _check(first_stage: "MetaVoiceFirstStageForCausalLM", options: FastStepOptions | None) -> None:
    device = first_stage.device.type
    if options is not None and options.use_cuda_graphs and device != "cuda":
        raise ValueError(f"`use_cuda_graphs` needs the model on a CUDA device; it is on {device!r}.")
    for name in ("int8", "pack_weights"):
        if options is not None and getattr(options, name) and device != "cpu":
            raise ValueError(f"`{name}` needs the model on the CPU; it is on {device!r}.")
    if options is not None and not is_in_one_place(first_stage):
        raise ValueError("Fast steps need the whole first stage on one device, without offloading.")
    if not first_stage.config.has_llama_blocks:
        raise ValueError("Fast steps need Llama's blocks (`norm_type`, `use_gated_mlp`), and a speaker on every row.")
    layers = first_stage.model.layers
    linear = [module for name, module in layers.named_modules() if name.endswith("_proj")]
    if options is not None and options.has_fixed_shapes and not all(map(is_unwrapped, linear)):
        raise ValueError("Compilation and CUDA graphs need unwrapped linear layers: merge the adapters first.")


class StepOptimizer:
    """Holds the fast steps of a model, and makes them anew when its weights have changed.

    A copy of a model makes its own.

    Args:
        options: How they run.
    """

    def __init__(self, options: FastStepOptions) -> None:
        self.options = options
        self._steps: FastSteps | None = None

    def steps(self, first_stage: "MetaVoiceFirstStageForCausalLM") -> FastSteps:
        """The fast steps over the model's present weights."""
        if self._steps is None or self._steps.fingerprint != weights_fingerprint(first_stage):
            self._steps = None
            self._steps = FastSteps(first_stage, self.options)
        return self._steps

    def __reduce__(self) -> tuple[type, tuple[FastStepOptions]]:
        return type(self), (self.options,)

    def __deepcopy__(self, memo: dict[int, Any]) -> "StepOptimizer":
        return type(self)(self.options)


def is_in_one_place(first_stage: "MetaVoiceFirstStageForCausalLM") -> bool:
    """Whether lean steps can run the model: no part of it on another device, or moved there when it is called."""
    parameters = list(first_stage.parameters())
    is_hooked = any("forward" in module.__dict__ for module in first_stage.modules())
    return len({p.device for p in parameters}) == 1 and parameters[0].device.type != "meta" and not is_hooked


class CachedRunner:
    """Reads prompts, then one id per row and step, with a cache that grows.

    Args:
        first_stage: The model.
        batch: The prompts.
        steps: Take the steps after the prompts instead of the model's layers.
    """

    def __init__(
        self, first_stage: "MetaVoiceFirstStageForCausalLM", batch: FirstStageBatch, steps: FastSteps | None
    ) -> None:
        model = first_stage.model
        self.steps = steps
        self.table, self.head = model.embed_tokens, first_stage.lm_head if steps is None else steps.head
        self.speaker_term = model.embed_speaker(batch.speaker_embeddings)
        spoken = model.mask_speaker(self.speaker_term[:, None], batch.input_ids)
        # Of the rows that have not come to the id with which the speaker begins, if there is one.
        self.start_id = model.config.speaker_start_token_id
        self.is_silent = None if self.start_id is None else (batch.input_ids != self.start_id).all(-1)
        self.decoder = LockstepDecoder(
            model,
            attention_mask=batch.attention_mask,
            inputs_embeds=self.table(batch.input_ids) + spoken,
            fast_step=None if steps is None else steps.step,
        )

    def prefill(self) -> torch.Tensor:
        """Scores `(rows, vocab_size)` after the prompts."""
        return self.head(self.decoder.prefill())

    def step(self, ids: torch.LongTensor) -> torch.Tensor:
        """Scores `(rows, vocab_size)` after `ids` `(rows,)`."""
        term = self.speaker_term
        if self.is_silent is not None:
            self.is_silent = self.is_silent & (ids != self.start_id)
            term = term.masked_fill(self.is_silent[:, None], 0.0)
        return self.head(self.decoder.step_embeds(self.table(ids) + term))

    def select(self, guidance: Guidance, index: torch.LongTensor) -> None:
        """Go on with the rows `index` (int64), each as often as guidance has it."""
        times = len(guidance.factors)
        count = len(self.speaker_term) // times
        every = torch.cat([index + number * count for number in range(times)])
        self.decoder.select(every)
        self.speaker_term = self.speaker_term[every]
        self.is_silent = None if self.is_silent is None else self.is_silent[every]


__all__ = ["CachedRunner", "FastStepOptions", "FastSteps", "PositionedStep", "StepOptimizer", "is_in_one_place"]

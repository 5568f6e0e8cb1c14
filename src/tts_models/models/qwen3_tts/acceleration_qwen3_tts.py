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
"""The fast loops of Qwen3-TTS: what `enable_streaming_optimizations` switches on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import LogitsProcessorList

from ...acceleration.decoder_step import DecoderStep, RunLayer, has_plain_positions, layer_step
from ...acceleration.kv_cache import LayerCache, RepeatedLayer
from ...acceleration.programs import weights_fingerprint
from ...acceleration.projections import Projection, is_plain, project_int8, project_joined
from ...acceleration.sampling import RowSampler


if TYPE_CHECKING:
    from .modeling_qwen3_tts import Qwen3TTSTalker
    from .program_qwen3_tts import FrameProgram


# The modes that record no CUDA graphs of their own: the loop is recorded as a whole.
COMPILE_MODES = ("default", "max-autotune-no-cudagraphs")


@dataclass(frozen=True)
class Qwen3TTSOptimizations:
    """
    How the frame loop runs; see [`~Qwen3TTSGenerationMixin.enable_streaming_optimizations`].

    Raises:
        ValueError: an unknown `compile_mode`, or `int8` together with compilation or CUDA graphs.
    """

    use_compile: bool = False
    use_cuda_graphs: bool = False
    compile_mode: str = "default"
    compile_codebook_predictor: bool = False
    int8: bool = False

    def __post_init__(self) -> None:
        if self.compile_mode not in COMPILE_MODES:
            raise ValueError(f"`compile_mode` must be one of {', '.join(COMPILE_MODES)}; got {self.compile_mode!r}.")
        if self.int8 and self.has_fixed_shapes:
            raise ValueError("`int8` runs on the CPU as it is: it goes with neither compilation nor CUDA graphs.")

    @property
    def is_compiled(self) -> bool:
        """Whether anything is compiled."""
        return self.use_compile or self.compile_codebook_predictor

    @property
    def has_fixed_shapes(self) -> bool:
        """Whether every frame must have the same shapes."""
        return self.is_compiled or self.use_cuda_graphs


class FastLoops:
    """The weights of talker and code predictor as the fast loops read them.

    Args:
        talker: The network.
        options: How it runs.

    Raises:
        ValueError: the options do not fit the model.
    """

    def __init__(self, talker: "Qwen3TTSTalker", options: Qwen3TTSOptimizations) -> None:
        _check(talker, options)
        predictor = talker.code_predictor
        project = project_int8 if options.int8 else project_joined
        self.talker, self.options = talker, options
        self.talker_step = DecoderStep(talker.model, project)
        self.predictor_step = DecoderStep(predictor.model, project)
        self.codec_head = project(talker.codec_head)
        self.heads = [project(head) for head in predictor.lm_head]
        self.widen = self._project_inputs(predictor.small_to_mtp_projection, project)
        self.tables = [table.weight for table in predictor.model.codec_embedding]
        self.num_groups = len(self.heads)
        self.predictor_step.reserve_positions(self.num_groups + 1)
        # The code predictor reads two positions, then one at a time.
        self.spans = [(0, 2), *((start, start + 1) for start in range(2, self.num_groups + 1))]
        positions = torch.arange(self.num_groups + 1, device=talker.device)[None]
        self.rotations = [self.predictor_step.rotation(positions[:, start:end]) for start, end in self.spans]
        self.programs: list[FrameProgram] = []
        self.talker_layer = self._compile() if options.use_compile else layer_step
        self.predictor_layer = self._compile() if options.compile_codebook_predictor else layer_step
        self.fingerprint = weights_fingerprint(talker)

    @staticmethod
    def _project_inputs(module: nn.Module, project: Callable[..., Projection]) -> Projection:
        # CODEPATH: the 0.6B checkpoints have no projection between talker and predictor.
        return project(module) if isinstance(module, nn.Linear) else module

    def _compile(self) -> RunLayer:
        """One layer, compiled for all layers and steps: they differ in nothing but the tensors."""
        return torch.compile(layer_step, mode=self.options.compile_mode, fullgraph=True, dynamic=False)

    def write_codes(
        self,
        hidden_states: torch.Tensor,
        first_embeds: torch.Tensor,
        select_slots: Callable[[int], tuple[Sequence[LayerCache], torch.Tensor | None]],
        pick: Callable[[torch.Tensor, int], torch.LongTensor],
        run_layer: RunLayer = layer_step,
    ) -> tuple[torch.LongTensor, torch.Tensor, list[torch.Tensor]]:
        """The codes of a frame after the first; see [`FrameWriter.write`].

        Args:
            hidden_states: The talker's state before the frame, `(batch, talker_hidden_size)`.
            first_embeds: Its row of the first code, `(batch, talker_hidden_size)`.
            select_slots: Gives cache and mask for the number of a code.
            pick: Picks from scores `(batch, vocab_size)`, given the number of the code.
            run_layer: Runs a layer.
        """
        inputs = torch.stack([hidden_states, first_embeds], dim=1)
        frame_embeds, codes, all_scores = first_embeds, [], []
        for group, table in enumerate(self.tables):
            cache, mask = select_slots(group)
            states = self.predictor_step(self.widen(inputs), self.rotations[group], mask, cache, run_layer)
            scores = self.heads[group](states[:, -1]).float()
            picked = pick(scores, group)
            row = F.embedding(picked, table)
            inputs, frame_embeds = row[:, None], frame_embeds + row
            codes.append(picked)
            all_scores.append(scores)
        return torch.stack(codes, dim=1), frame_embeds, all_scores


class FastFrameWriter:
    """[`FrameWriter`] through the fast loops: one cache for all frames, no operation that a frame does not need.

    Args:
        loops: The weights.
        processors: Applied to the scores of every code; they look at nothing else.
        sampler: Picks from the scores.
    """

    def __init__(self, loops: FastLoops, processors: LogitsProcessorList, sampler: RowSampler) -> None:
        self.loops, self.processors, self.sampler = loops, processors, sampler
        self.cache, self.batch_size = [], 0
        # The first two positions are read at once; the mask hides the second from the first.
        blocked = torch.finfo(loops.talker.dtype).min
        mask = torch.tensor([[0, blocked], [0, 0]], dtype=loops.talker.dtype, device=loops.talker.device)
        self.first_mask = mask[None, None]

    @torch.inference_mode()
    def write(
        self, hidden_states: torch.Tensor, first_embeds: torch.Tensor
    ) -> tuple[torch.LongTensor, torch.Tensor, list[torch.Tensor]]:
        """As [`FrameWriter.write`]."""
        if len(hidden_states) != self.batch_size:
            self.batch_size = len(hidden_states)
            self.cache = self._make_cache()
        return self.loops.write_codes(hidden_states, first_embeds, self._select_slots, self._pick)

    def _make_cache(self) -> list[RepeatedLayer]:
        talker, ends = self.loops.talker, [end for _, end in self.loops.spans]
        config = talker.code_predictor.config
        shape = (self.batch_size, config.num_key_value_heads, ends[-1], config.head_dim)
        layers = self.loops.predictor_step.layers
        return [RepeatedLayer(shape, ends, talker.dtype, talker.device) for _ in layers]

    def _select_slots(self, group: int) -> tuple[Sequence[LayerCache], torch.Tensor | None]:
        for layer in self.cache:
            layer.step = group
        return self.cache, None if group else self.first_mask

    def _pick(self, scores: torch.Tensor, group: int) -> torch.LongTensor:
        return self.sampler(self.processors(None, scores))


class LoopOptimizer:
    """Holds the fast loops of a model, and makes them anew when its weights have changed.

    A copy of a model makes its own.

    Args:
        options: How the loops run.
    """

    def __init__(self, options: Qwen3TTSOptimizations) -> None:
        self.options = options
        self._loops: FastLoops | None = None

    def loops(self, talker: "Qwen3TTSTalker") -> FastLoops:
        """The fast loops over the talker's present weights."""
        loops = self._loops
        if loops is None or loops.talker is not talker or loops.fingerprint != weights_fingerprint(talker):
            self._loops = None
            self._loops = FastLoops(talker, self.options)
        return self._loops

    def __reduce__(self) -> tuple[type, tuple[Qwen3TTSOptimizations]]:
        return type(self), (self.options,)

    def __deepcopy__(self, memo: dict[int, Any]) -> "LoopOptimizer":
        return type(self)(self.options)


def restore_layout(talker: "Qwen3TTSTalker") -> None:
    """Give every weight memory of its own again, in the usual layout."""
    for module in talker.modules():
        weight = getattr(module, "weight", None) if isinstance(module, nn.Linear) else None
        if weight is not None and (not weight.is_contiguous() or weight.untyped_storage().nbytes() > weight.nbytes):
            weight.data = weight.detach().clone(memory_format=torch.contiguous_format)


def _check(talker: "Qwen3TTSTalker", options: Qwen3TTSOptimizations) -> None:
    devices = {parameter.device for parameter in talker.parameters()}
    if len(devices) > 1 or talker.device.type == "meta":
        raise ValueError(f"The talker must be on one device; it is on {sorted(map(str, devices))}.")
    device = talker.device.type
    if options.use_cuda_graphs and device != "cuda":
        raise ValueError(f"`use_cuda_graphs` needs the model on a CUDA device; it is on {device!r}.")
    if options.int8 and device != "cpu":
        raise ValueError(f"`int8` needs the model on the CPU; it is on {device!r}.")
    for name, part in (("talker_config", talker.model), ("code_predictor_config", talker.code_predictor.model)):
        if not has_plain_positions(part):
            raise ValueError(
                f"The fast loops know neither sliding windows nor rotations that depend on the length; `{name}` has "
                f"{sorted(set(part.config.layer_types))} and {part.config.rope_parameters}."
            )
    layers = (*talker.model.layers, *talker.code_predictor.model.layers)
    linear = [module for layer in layers for name, module in layer.named_modules() if name.endswith("_proj")]
    if options.has_fixed_shapes and not all(map(is_plain, linear)):
        raise ValueError("Compilation and CUDA graphs need plain linear layers: merge the adapters first.")


__all__ = [
    "COMPILE_MODES",
    "FastFrameWriter",
    "FastLoops",
    "LoopOptimizer",
    "Qwen3TTSOptimizations",
    "restore_layout",
]

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
"""What every network of MegaTTS3 shares as a `PreTrainedModel`."""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.models.vits.modeling_vits import VitsAttention

from ...loading import CompleteCheckpointMixin
from .configuration_megatts3 import MegaTTS3Config


# trf-ignore: TRF057
class MegaTTS3PreTrainedModel(CompleteCheckpointMixin, PreTrainedModel):
    """Base of MegaTTS3's networks: attention kinds, initial weights, no silently random ones."""

    config_class = MegaTTS3Config
    config: MegaTTS3Config
    conversion_script = "convert_megatts3_to_hf.py"
    base_model_prefix = "model"
    main_input_name = "phone_ids"
    input_modalities = ("text", "audio")
    supports_gradient_checkpointing = True
    # The losses are means: `Trainer` divides them by its accumulation steps.
    accepts_loss_kwargs = False
    _skip_keys_device_placement = ["past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, VitsAttention):
            for rows in (module.emb_rel_k, module.emb_rel_v):
                init.normal_(rows, mean=0.0, std=module.scaling)


def check_ids(name: str, ids: torch.Tensor, rows: int) -> None:
    """Refuses what is not a non-empty int64 `(batch, length)` of ids below `rows`; values are only read on a CPU.

    Raises:
        ValueError: the ids have another shape or dtype, or lie outside the table.
    """
    if ids.dim() != 2 or ids.dtype != torch.long or not ids.numel():
        raise ValueError(f"`{name}` must be int64 of shape (batch, length); got {ids.dtype} {tuple(ids.shape)}.")
    # On other devices this would wait for the device, and the table itself raises.
    if ids.device.type == "cpu" and not 0 <= int(ids.min()) <= int(ids.max()) < rows:
        raise ValueError(f"`{name}` must be in 0…{rows - 1}; got {int(ids.min())}…{int(ids.max())}.")


__all__ = ["MegaTTS3PreTrainedModel"]

"""Names of S3Gen's parts: upstream's parameter names on the left, ours on the right.

Used by `convert_s3gen_to_hf.py`, and by whatever converts a checkpoint that holds one of the parts. A part's rules are
tried in order; each name must match exactly one of them from its beginning to its end.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from checkpoint_tools import ConversionError, fuse_weight_norm


Rules = Sequence[tuple[str, str]]

# What a model computes itself: the S3 tokenizer's mel filters and window.
TOKENIZER_CONSTANTS = ("_mel_filters", "window")

TOKENIZER_RULES: Rules = (
    (r"encoder\.(conv[12]\..*)", r"encoder.\1"),
    (r"encoder\.blocks\.(\d+)\.attn\.query\.(.*)", r"encoder.layers.\1.self_attn.q_proj.\2"),
    (r"encoder\.blocks\.(\d+)\.attn\.key\.(.*)", r"encoder.layers.\1.self_attn.k_proj.\2"),
    (r"encoder\.blocks\.(\d+)\.attn\.value\.(.*)", r"encoder.layers.\1.self_attn.v_proj.\2"),
    (r"encoder\.blocks\.(\d+)\.attn\.out\.(.*)", r"encoder.layers.\1.self_attn.out_proj.\2"),
    (r"encoder\.blocks\.(\d+)\.attn\.fsmn_block\.(.*)", r"encoder.layers.\1.self_attn.memory.\2"),
    (r"encoder\.blocks\.(\d+)\.attn_ln\.(.*)", r"encoder.layers.\1.self_attn_layer_norm.\2"),
    (r"encoder\.blocks\.(\d+)\.mlp\.0\.(.*)", r"encoder.layers.\1.fc1.\2"),
    (r"encoder\.blocks\.(\d+)\.mlp\.2\.(.*)", r"encoder.layers.\1.fc2.\2"),
    (r"encoder\.blocks\.(\d+)\.mlp_ln\.(.*)", r"encoder.layers.\1.final_layer_norm.\2"),
    (r"quantizer\._codebook\.project_down\.(.*)", r"quantizer.project_down.\1"),
)

SPEAKER_ENCODER_RULES: Rules = (
    (r"head\.((?:conv|bn)[12]\..*)", r"head.\1"),
    (r"head\.layer1\.0\.shortcut\.0\.(.*)", r"head.blocks.0.shortcut_conv.\1"),
    (r"head\.layer1\.0\.shortcut\.1\.(.*)", r"head.blocks.0.shortcut_bn.\1"),
    (r"head\.layer2\.0\.shortcut\.0\.(.*)", r"head.blocks.2.shortcut_conv.\1"),
    (r"head\.layer2\.0\.shortcut\.1\.(.*)", r"head.blocks.2.shortcut_bn.\1"),
    (r"head\.layer1\.([01])\.((?:conv|bn)[12]\..*)", r"head.blocks.\1.\2"),
    (r"head\.layer2\.0\.((?:conv|bn)[12]\..*)", r"head.blocks.2.\1"),
    (r"head\.layer2\.1\.((?:conv|bn)[12]\..*)", r"head.blocks.3.\1"),
    (r"xvector\.tdnn\.linear\.(.*)", r"conv.\1"),
    (r"xvector\.tdnn\.nonlinear\.batchnorm\.(.*)", r"bn.\1"),
    (r"xvector\.block(\d+)\.tdnnd(\d+)\.nonlinear([12])\.batchnorm\.(.*)", r"blocks.<\1>.layers.<\2>.bn\3.\4"),
    (r"xvector\.block(\d+)\.tdnnd(\d+)\.linear1\.(.*)", r"blocks.<\1>.layers.<\2>.bottleneck.\3"),
    (
        r"xvector\.block(\d+)\.tdnnd(\d+)\.cam_layer\.linear_local\.(.*)",
        r"blocks.<\1>.layers.<\2>.gated_convolution.convolution.\3",
    ),
    (
        r"xvector\.block(\d+)\.tdnnd(\d+)\.cam_layer\.linear1\.(.*)",
        r"blocks.<\1>.layers.<\2>.gated_convolution.squeeze.\3",
    ),
    (
        r"xvector\.block(\d+)\.tdnnd(\d+)\.cam_layer\.linear2\.(.*)",
        r"blocks.<\1>.layers.<\2>.gated_convolution.excite.\3",
    ),
    (r"xvector\.transit(\d+)\.nonlinear\.batchnorm\.(.*)", r"blocks.<\1>.bn.\2"),
    (r"xvector\.transit(\d+)\.linear\.(.*)", r"blocks.<\1>.transition.\2"),
    (r"xvector\.out_nonlinear\.batchnorm\.(.*)", r"output_bn.\1"),
    (r"xvector\.dense\.linear\.(.*)", r"projection.\1"),
    (r"xvector\.dense\.nonlinear\.batchnorm\.(.*)", r"projection_bn.\1"),
)

VOCODER_RULES: Rules = (
    (r"m_source\.l_linear\.(.*)", r"harmonic_source.linear.\1"),
    (r"f0_predictor\.condnet\.([02468])\.(.*)", r"f0_predictor.layers.</\1>.\2"),
    (r"f0_predictor\.classifier\.(.*)", r"f0_predictor.classifier.\1"),
    (r"ups\.(\d+\..*)", r"upsampler.\1"),
    (r"((?:conv_pre|conv_post|source_downs\.\d+)\..*)", r"\1"),
    (r"((?:source_)?resblocks\.\d+\.convs[12]\.\d+\..*)", r"\1"),
    (r"((?:source_)?resblocks\.\d+\.activations[12]\.\d+\.alpha)", r"\1"),
)


def rename(name: str, rules: Rules) -> str:
    """Our name of upstream's `name`; marked as unknown when no rule knows it.

    In a rule's right side `<n>` counts from 0 what upstream counts from 1, and `</n>` halves.
    """
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, name)
        if match:
            renamed = match.expand(replacement)
            renamed = re.sub(r"</(\d+)>", lambda number: str(int(number[1]) // 2), renamed)
            return re.sub(r"<(\d+)>", lambda number: str(int(number[1]) - 1), renamed)
    return f"(unknown) {name}"


def renamed(state_dict: Mapping[str, torch.Tensor], rules: Rules) -> dict[str, torch.Tensor]:
    """A state dict under our names.

    Raises:
        ConversionError: two tensors would get the same name.
    """
    result = {rename(name, rules): tensor for name, tensor in state_dict.items()}
    if len(result) != len(state_dict):
        raise ConversionError(f"{len(state_dict)} tensors would become {len(result)}: some carry the same name")
    return result


def convert_tokenizer(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of [`S3TokenizerModel`] from those of upstream's `tokenizer`, its constants left out."""
    kept = {name: tensor for name, tensor in state_dict.items() if name not in TOKENIZER_CONSTANTS}
    return renamed(kept, TOKENIZER_RULES)


def convert_speaker_encoder(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of [`CAMPPlusModel`] from those of upstream's `speaker_encoder`."""
    return renamed(state_dict, SPEAKER_ENCODER_RULES)


def convert_vocoder(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Plain weights of [`HiFTNetModel`] from those of upstream's `mel2wav`, in either spelling of weight norm."""
    converted = renamed(fuse_weight_norm(state_dict), VOCODER_RULES)
    return {
        name: tensor.reshape(1, -1, 1) if name.endswith(".alpha") else tensor for name, tensor in converted.items()
    }


def part_of(state_dict: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The entries below `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state_dict.items() if name.startswith(prefix)}


def outside(names: Iterable[str], prefixes: Iterable[str]) -> list[str]:
    """The names that begin with none of the prefixes, sorted."""
    return sorted(name for name in names if not name.startswith(tuple(prefixes)))

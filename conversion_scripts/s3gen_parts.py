"""The parts of S3Gen that are models of their own: names, sizes and weights of S3 tokenizer, CAM++ and HiFTNet.

Used by `convert_s3gen_to_hf.py`, and by whatever converts a checkpoint that holds one of the parts. No configuration
is published with them, so sizes are read off the tensors.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from checkpoint_tools import ConversionError, account_for, fuse_weight_norm, state_shapes
from transformers import PreTrainedConfig, PreTrainedModel

from tts_models import (
    CAMPPlusConfig,
    CAMPPlusFeatureExtractor,
    CAMPPlusModel,
    HiFTNetConfig,
    HiFTNetFeatureExtractor,
    HiFTNetModel,
    S3TokenizerConfig,
    S3TokenizerFeatureExtractor,
    S3TokenizerModel,
)
from tts_models.audio.mel import mel_filters


Rules = Sequence[tuple[str, str]]
StateDict = Mapping[str, torch.Tensor]

# Part -> upstream's prefix, which is also its name in our model.
PREFIXES = {
    "tokenizer": "tokenizer.",
    "speaker_encoder": "speaker_encoder.",
    "flow": "flow.",
    "vocoder": "mel2wav.",
}


def whisper_layer_rules(side: str) -> Rules:
    """Rules of the layers of the `encoder` or `decoder` of a network that is built like OpenAI's Whisper."""
    ours = rf"{side}.layers.\1"
    projections = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
    attention = [
        (rf"{side}\.blocks\.(\d+)\.{theirs}\.{name}\.(.+)", rf"{ours}.{kind}.{projection}.\2")
        for theirs, kind in (("attn", "self_attn"), ("cross_attn", "encoder_attn"))
        for name, projection in projections.items()
    ]
    return (
        *attention,
        (rf"{side}\.blocks\.(\d+)\.attn_ln\.(.+)", rf"{ours}.self_attn_layer_norm.\2"),
        (rf"{side}\.blocks\.(\d+)\.cross_attn_ln\.(.+)", rf"{ours}.encoder_attn_layer_norm.\2"),
        (rf"{side}\.blocks\.(\d+)\.mlp_ln\.(.+)", rf"{ours}.final_layer_norm.\2"),
        (rf"{side}\.blocks\.(\d+)\.mlp\.0\.(.+)", rf"{ours}.fc1.\2"),
        (rf"{side}\.blocks\.(\d+)\.mlp\.2\.(.+)", rf"{ours}.fc2.\2"),
    )


# Upstream's names on the left, ours on the right. The first rule that matches a whole name counts.

# What a model computes itself: the S3 tokenizer's mel filters and window.
TOKENIZER_CONSTANTS = ("_mel_filters", "window")

TOKENIZER_RULES: Rules = (
    (r"encoder\.(conv[12]\..*)", r"encoder.\1"),
    *whisper_layer_rules("encoder"),
    (r"encoder\.blocks\.(\d+)\.attn\.fsmn_block\.(.*)", r"encoder.layers.\1.self_attn.memory.\2"),
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


def renamed(state_dict: StateDict, rules: Rules) -> dict[str, torch.Tensor]:
    """A state dict under our names.

    Raises:
        ConversionError: two tensors would get the same name.
    """
    result = {rename(name, rules): tensor for name, tensor in state_dict.items()}
    if len(result) != len(state_dict):
        raise ConversionError(f"{len(state_dict)} tensors would become {len(result)}: some carry the same name")
    return result


def convert_tokenizer(state_dict: StateDict) -> dict[str, torch.Tensor]:
    """Weights of [`S3TokenizerModel`] from those of upstream's `tokenizer`, its constants left out."""
    kept = {name: tensor for name, tensor in state_dict.items() if name not in TOKENIZER_CONSTANTS}
    return renamed(kept, TOKENIZER_RULES)


def convert_speaker_encoder(state_dict: StateDict) -> dict[str, torch.Tensor]:
    """Weights of [`CAMPPlusModel`] from those of upstream's `speaker_encoder`."""
    return renamed(state_dict, SPEAKER_ENCODER_RULES)


def convert_vocoder(state_dict: StateDict) -> dict[str, torch.Tensor]:
    """Plain weights of [`HiFTNetModel`] from those of upstream's `mel2wav`, in either spelling of weight norm."""
    converted = renamed(fuse_weight_norm(state_dict), VOCODER_RULES)
    return {
        name: tensor.reshape(1, -1, 1) if name.endswith(".alpha") else tensor for name, tensor in converted.items()
    }


def part_of(state_dict: StateDict, prefix: str) -> dict[str, torch.Tensor]:
    """The entries below `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state_dict.items() if name.startswith(prefix)}


def outside(names: Iterable[str], prefixes: Iterable[str]) -> list[str]:
    """The names that begin with none of the prefixes, sorted."""
    return sorted(name for name in names if not name.startswith(tuple(prefixes)))


# Configurations, from names and shapes


def count_of(names: Iterable[str], pattern: str) -> int:
    """How many different numbers stand in the group of `pattern`."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})


def shape_of(state_dict: StateDict, *names: str) -> tuple[int, ...]:
    """Shape of the first of `names` that is there.

    Raises:
        ConversionError: none is.
    """
    for name in names:
        if name in state_dict:
            return tuple(state_dict[name].shape)
    raise ConversionError(f"the checkpoint has no {names[0]}")


def tokenizer_config(state_dict: StateDict) -> S3TokenizerConfig:
    """Sizes of an S3 tokenizer; its heads have 64 channels."""
    hidden_size, bands, _ = shape_of(state_dict, "encoder.conv1.weight")
    return S3TokenizerConfig(
        num_mel_bins=bands,
        hidden_size=hidden_size,
        intermediate_size=shape_of(state_dict, "encoder.blocks.0.mlp.0.weight")[0],
        num_hidden_layers=count_of(state_dict, r"encoder\.blocks\.(\d+)\."),
        num_attention_heads=max(hidden_size // 64, 1),
        memory_kernel_size=shape_of(state_dict, "encoder.blocks.0.attn.fsmn_block.weight")[2],
        num_digits=shape_of(state_dict, "quantizer._codebook.project_down.weight")[0],
    )


def speaker_encoder_config(state_dict: StateDict) -> CAMPPlusConfig:
    """Sizes of a CAM++ encoder."""
    head_channels = shape_of(state_dict, "head.conv1.weight")[0]
    initial_channels, head_width, _ = shape_of(state_dict, "xvector.tdnn.linear.weight")
    growth_rate, bottleneck, kernel_size = shape_of(state_dict, "xvector.block1.tdnnd1.cam_layer.linear_local.weight")
    blocks = range(1, count_of(state_dict, r"xvector\.block(\d+)\.") + 1)
    return CAMPPlusConfig(
        num_mel_bins=head_width // head_channels * 8,
        embedding_size=shape_of(state_dict, "xvector.dense.linear.weight")[0],
        head_channels=head_channels,
        initial_channels=initial_channels,
        growth_rate=growth_rate,
        bottleneck_factor=bottleneck // growth_rate,
        kernel_size=kernel_size,
        block_layers=[count_of(state_dict, rf"xvector\.block{block}\.tdnnd(\d+)\.") for block in blocks],
    )


def _kernel(state_dict: StateDict, module: str) -> int:
    spellings = ("parametrizations.weight.original1", "weight_v", "weight")
    return shape_of(state_dict, *(f"{module}.{spelling}" for spelling in spellings))[2]


def vocoder_config(state_dict: StateDict) -> HiFTNetConfig:
    """Sizes of a HiFTNet: three upsamplings make the 24 kHz vocoder, two the one for 22.05 kHz."""
    base_channels = shape_of(state_dict, "conv_pre.bias")[0]
    stages = count_of(state_dict, r"ups\.(\d+)\.")
    blocks = count_of(state_dict, r"resblocks\.(\d+)\.") // max(stages, 1)
    kernels = [_kernel(state_dict, f"ups.{stage}") for stage in range(stages)]
    pre = shape_of(state_dict, "conv_pre.parametrizations.weight.original1", "conv_pre.weight_v", "conv_pre.weight")
    is_24_khz = stages == 3
    return HiFTNetConfig(
        in_channels=pre[1],
        f0_predictor_in_channels=pre[1],
        base_channels=base_channels,
        nb_harmonics=shape_of(state_dict, "m_source.l_linear.weight")[1] - 1,
        sampling_rate=24000 if is_24_khz else 22050,
        mel_fft_length=1920 if is_24_khz else 1024,
        upsample_rates=[kernel // 2 for kernel in kernels],
        upsample_kernel_sizes=kernels,
        istft_n_fft=shape_of(state_dict, "conv_post.bias")[0] - 2,
        resblock_kernel_sizes=[_kernel(state_dict, f"resblocks.{block}.convs1.0") for block in range(blocks)],
        resblock_dilation_sizes=[[1, 3, 5]] * blocks,
        source_resblock_kernel_sizes=[
            _kernel(state_dict, f"source_resblocks.{stage}.convs1.0") for stage in range(stages)
        ],
        source_resblock_dilation_sizes=[[1, 3, 5]] * stages,
        f0_predictor_cond_channels=shape_of(state_dict, "f0_predictor.condnet.0.bias")[0],
        f0_predictor_layers=count_of(state_dict, r"f0_predictor\.condnet\.(\d+)\."),
    )


# Models


def check_fit(converted: StateDict, model_class: type[PreTrainedModel], config: PreTrainedConfig) -> None:
    """Raises [`ConversionError`] unless `converted` is every weight of `model_class(config)` and nothing else."""
    with torch.device("meta"):
        expected = state_shapes(model_class(config))
    account_for({name: tuple(tensor.shape) for name, tensor in converted.items()}, expected)


def check_constants(tokenizer: StateDict, config: S3TokenizerConfig) -> None:
    """Raises [`ConversionError`] where a stored mel filter or window is not what the feature extractor computes."""
    computed = dict(
        zip(
            TOKENIZER_CONSTANTS,
            (
                mel_filters(config.fft_length, config.num_mel_bins, 0.0, 8000.0, config.sampling_rate),
                torch.hann_window(config.fft_length),
            ),
            strict=True,
        )
    )
    for name, expected in computed.items():
        stored = tokenizer.get(name)
        if stored is not None and (stored.shape != expected.shape or not torch.allclose(stored, expected, atol=1e-5)):
            raise ConversionError(f"tokenizer.{name} does not hold the values that the feature extractor computes")


PARTS: dict[str, tuple[type[PreTrainedModel], Callable[[StateDict], PreTrainedConfig]]] = {
    "tokenizer": (S3TokenizerModel, tokenizer_config),
    "speaker_encoder": (CAMPPlusModel, speaker_encoder_config),
    "vocoder": (HiFTNetModel, vocoder_config),
}


PART_CONVERTERS: dict[str, Callable[[StateDict], dict[str, torch.Tensor]]] = {
    "tokenizer": convert_tokenizer,
    "speaker_encoder": convert_speaker_encoder,
    "vocoder": convert_vocoder,
}


def load_part(upstream: StateDict, part: str) -> PreTrainedModel:
    """One part of an upstream state dict, or a state dict that holds the part alone, in evaluation mode.

    Raises:
        ConversionError: the part is not complete.
    """
    model_class, config_of = PARTS[part]
    state_dict = part_of(upstream, PREFIXES[part]) or part_of(upstream, "generator.") or upstream
    config = config_of(state_dict)
    if part == "tokenizer":
        check_constants(state_dict, config)
    converted = PART_CONVERTERS[part](state_dict)
    check_fit(converted, model_class, config)
    model = model_class(config)
    model.load_state_dict(converted, strict=True)
    return model.eval()


def feature_extractor_for(config: PreTrainedConfig) -> Any:
    """The feature extractor that fits a part."""
    if isinstance(config, S3TokenizerConfig):
        return S3TokenizerFeatureExtractor(
            config.num_mel_bins, config.sampling_rate, fft_length=config.fft_length, hop_length=config.hop_length
        )
    if isinstance(config, CAMPPlusConfig):
        return CAMPPlusFeatureExtractor(config.num_mel_bins, config.sampling_rate)
    return HiFTNetFeatureExtractor(
        config.in_channels,
        config.sampling_rate,
        fft_length=config.mel_fft_length,
        hop_length=config.hop_length,
        max_frequency=config.mel_max_frequency,
    )

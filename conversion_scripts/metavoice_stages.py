"""The two stages of MetaVoice: upstream's names and sizes, ours, and the weights.

Used by `convert_metavoice_to_hf.py`. Every checkpoint of upstream holds `model_args`, from which the sizes are read
that the tensors do not tell.
"""

from collections.abc import Mapping
from typing import Any

import torch
from checkpoint_tools import ConversionError
from s3gen_parts import count_of, renamed, shape_of

from tts_models.models.metavoice.configuration_metavoice import (
    MetaVoiceFirstStageConfig,
    MetaVoiceSecondStageConfig,
)


StateDict = Mapping[str, torch.Tensor]
COMPILED_PREFIX = "_orig_mod."
FIRST_STAGE_OFFSET, SECOND_STAGE_OFFSET = 2049, 1025
# What upstream's constructor takes for an argument that is not given.
UPSTREAM_DEFAULTS = {"causal": True, "norm_type": "layernorm", "nonlinearity_type": "gelu", "n_head": 12}
# Upstream's names of norms and activations, and ours; whether the MLP of an activation is gated.
NORMS = {"layernorm": "layer_norm", "rmsnorm": "rms_norm"}
ACTIVATIONS = {"gelu": ("gelu", False), "swiglu": ("silu", True)}
# Where the text goes without the speaker, upstream takes this id for the text's end, whatever the vocabulary.
SPEAKER_START = 1537
HEAD, TABLE = "lm_heads.0.weight", "transformer.wtes.0.weight"

# Upstream's names on the left, ours on the right.
BLOCK_RULES = (
    (r"transformer\.h\.(\d+)\.ln_1\.(weight|bias)", r"layers.\1.input_layernorm.\2"),
    (r"transformer\.h\.(\d+)\.ln_2\.(weight|bias)", r"layers.\1.post_attention_layernorm.\2"),
    (r"transformer\.h\.(\d+)\.attn\.([qkv])_proj\.(weight|bias)", r"layers.\1.self_attn.\2_proj.\3"),
    (r"transformer\.h\.(\d+)\.attn\.c_proj\.(weight|bias)", r"layers.\1.self_attn.o_proj.\2"),
    (r"transformer\.h\.(\d+)\.mlp\.swiglu\.w1\.(weight|bias)", r"layers.\1.mlp.gate_proj.\2"),
    (r"transformer\.h\.(\d+)\.mlp\.swiglu\.w3\.(weight|bias)", r"layers.\1.mlp.up_proj.\2"),
    (r"transformer\.h\.(\d+)\.mlp\.c_fc\.(weight|bias)", r"layers.\1.mlp.up_proj.\2"),
    (r"transformer\.h\.(\d+)\.mlp\.c_proj\.(weight|bias)", r"layers.\1.mlp.down_proj.\2"),
    (r"transformer\.ln_f\.(weight|bias)", r"norm.\1"),
    (r"transformer\.wpe\.weight", r"embed_positions.weight"),
    (r"speaker_cond_pos\.weight", r"speaker_projection.weight"),
)
FIRST_STAGE_RULES = (
    *((pattern, f"model.{ours}") for pattern, ours in BLOCK_RULES),
    (r"transformer\.wtes\.0\.weight", r"model.embed_tokens.weight"),
)
SECOND_STAGE_RULES = (
    *BLOCK_RULES,
    (r"transformer\.wtes\.(\d+)\.weight", r"embed_tokens.\1.weight"),
    (r"lm_heads\.(\d+)\.weight", r"heads.\1.weight"),
)


def split_attention(upstream: StateDict) -> dict[str, torch.Tensor]:
    """`upstream` without the prefix of compiled models, queries, keys and values apart."""
    split: dict[str, torch.Tensor] = {}
    for name, tensor in upstream.items():
        name = name.removeprefix(COMPILED_PREFIX)
        prefix, is_joined, rest = name.partition(".c_attn.")
        if not is_joined:
            split[name] = tensor
            continue
        if len(tensor) % 3:
            raise ConversionError(f"{name} has {len(tensor)} rows, which are not three times as many")
        for kind, part in zip("qkv", tensor.chunk(3), strict=True):
            split[f"{prefix}.{kind}_proj.{rest}"] = part
    return split


def convert_first_stage(upstream: StateDict) -> dict[str, Any]:
    """The first stage's weights in our names; the head, which is the table of tokens, is left out.

    Raises:
        ConversionError: the head differs from the table.
    """
    split = split_attention(upstream)
    head = split.pop(HEAD, None)
    if head is not None and not head.is_meta and not torch.equal(head, split.get(TABLE, head)):
        raise ConversionError(f"{HEAD} and {TABLE} should be equal: the model ties them")
    return renamed(split, FIRST_STAGE_RULES)


def convert_second_stage(upstream: StateDict) -> dict[str, Any]:
    """The second stage's weights in our names."""
    return renamed(split_attention(upstream), SECOND_STAGE_RULES)


def common_arguments(upstream: StateDict, model_args: Mapping[str, Any], causal: bool) -> dict[str, Any]:
    """What the configurations of both stages have in common.

    Raises:
        ConversionError: another kind of network.
    """
    given = UPSTREAM_DEFAULTS | dict(model_args)
    norm, activation = given["norm_type"], given["nonlinearity_type"]
    if norm not in NORMS or activation not in ACTIVATIONS or given["causal"] is not causal:
        raise ConversionError(
            f"model_args: norm_type {norm!r}, nonlinearity_type {activation!r} and causal {given['causal']!r} make no "
            f"such stage; allowed are {' and '.join(NORMS)}, {' and '.join(ACTIVATIONS)}, and {causal}"
        )
    hidden_act, is_gated = ACTIVATIONS[activation]
    mlp = "transformer.h.0.mlp.swiglu.w1.weight" if is_gated else "transformer.h.0.mlp.c_fc.weight"
    positions, width = shape_of(upstream, "transformer.wpe.weight")
    has_bias = "transformer.h.0.attn.c_proj.bias" in upstream
    return {
        "hidden_size": width,
        "intermediate_size": shape_of(upstream, mlp)[0],
        "num_hidden_layers": count_of(upstream, r"transformer\.h\.(\d+)\."),
        "num_attention_heads": given["n_head"],
        "max_position_embeddings": positions,
        "rms_norm_eps": float(model_args.get("rmsnorm_eps") or 1e-5),
        "norm_type": NORMS[norm],
        "use_norm_bias": "transformer.ln_f.bias" in upstream,
        "use_gated_mlp": is_gated,
        "hidden_act": hidden_act,
        "attention_bias": has_bias,
        "mlp_bias": has_bias,
        "speaker_embed_size": shape_of(upstream, "speaker_cond_pos.weight")[1],
    }


def first_stage_config(
    upstream: StateDict, model_args: Mapping[str, Any], text_offset: int | None = None
) -> MetaVoiceFirstStageConfig:
    """The first stage's configuration.

    Args:
        upstream: Its tensors, which may be on `meta`.
        model_args: As the checkpoint has them.
        text_offset: Of the tokenizer's ids; 2049 by default.

    Raises:
        ConversionError: another kind of network.
    """
    upstream = {name.removeprefix(COMPILED_PREFIX): tensor for name, tensor in upstream.items()}
    common = common_arguments(upstream, model_args, causal=True)
    rows, offset = shape_of(upstream, TABLE)[0], FIRST_STAGE_OFFSET if text_offset is None else text_offset
    # Text follows the codes of all codebooks and the end of audio.
    codes = (offset - 1) // MetaVoiceFirstStageConfig.num_codebooks
    end_of_audio = codes * MetaVoiceFirstStageConfig.num_codebooks
    return MetaVoiceFirstStageConfig(
        **common,
        vocab_size=rows,
        num_codes=codes,
        eos_token_id=end_of_audio,
        pad_token_id=end_of_audio,
        text_token_offset=offset,
        end_of_text_token_id=rows - 1,
        speaker_dropout=float(model_args.get("spkemb_dropout") or 0.0),
        speaker_start_token_id=None if model_args.get("spk_emb_on_text", True) else SPEAKER_START,
    )


def second_stage_config(
    upstream: StateDict, model_args: Mapping[str, Any], text_offset: int | None = None
) -> MetaVoiceSecondStageConfig:
    """The second stage's configuration; see [`first_stage_config`]."""
    upstream = {name.removeprefix(COMPILED_PREFIX): tensor for name, tensor in upstream.items()}
    common = common_arguments(upstream, model_args, causal=False)
    if model_args.get("spk_emb_on_text", True) is not True:
        raise ConversionError("model_args: spk_emb_on_text is off, which upstream's second stage refuses")
    tables = count_of(upstream, r"transformer\.wtes\.(\d+)\.")
    heads = count_of(upstream, r"lm_heads\.(\d+)\.")
    rows = [shape_of(upstream, f"transformer.wtes.{table}.weight")[0] for table in range(tables)]
    offset = SECOND_STAGE_OFFSET if text_offset is None else text_offset
    return MetaVoiceSecondStageConfig(
        **common,
        vocab_sizes=rows,
        target_vocab_sizes=[shape_of(upstream, f"lm_heads.{head}.weight")[0] for head in range(heads)],
        num_codes=offset - 1,
        pad_token_id=offset - 1,
        text_token_offset=offset,
        end_of_text_token_id=rows[0] - 1,
    )

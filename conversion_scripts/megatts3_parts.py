"""The parts of MegaTTS3: upstream's names and ours, and configurations read off names and shapes.

Used by `convert_megatts3_to_hf.py`, and by whatever has the weights of one part in upstream's names.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from checkpoint_tools import ConversionError, fuse_weight_norm
from s3gen_parts import Rules, StateDict, count_of, renamed, shape_of, whisper_layer_rules

from tts_models import (
    MegaTTS3AlignerConfig,
    MegaTTS3DurationConfig,
    MegaTTS3TextEncoderConfig,
    MegaTTS3TransformerConfig,
    MegaTTS3VAEConfig,
)
from tts_models.models.megatts3.modeling_megatts3_text_encoder import sinusoid_positions


# What the parts have and no model of ours reads.
# The aligner's encoder computes its positions.
UNUSED_ALIGNER = r"encoder\.positional_embedding"
# Upstream never gives the duration model characters; the last is an empty buffer.
UNUSED_DURATION = r"char_encoder\..+|char_empty_embed\.weight|embed_positions\._float_tensor|bert_input_proj\..+"
# Tables that the transformer computes.
UNUSED_TRANSFORMER = r"(?:.+\.)?freqs_cis|ph_pos_embed\..+"
# Without an encoder there is nothing to project.
UNUSED_WITHOUT_ENCODER = r"proj_to_z\.(?:weight|bias)"

# How a name begins that no rule knows.
UNKNOWN = "(unknown) "
HEAD_DIM = 64
TONES, NUM_TONES = "ling_label_embed_layers.tone.weight", 23
# A weight by itself, or its direction in the spellings of weight normalisation.
WEIGHTS = ("weight", "weight_v", "parametrizations.weight.original1")
# What the transformer reads where there is no text.
DROPPED_PHONE, DROPPED_TONE = 301, 31

# Upstream's names on the left, ours on the right. The first rule that matches a whole name counts.


ALIGNER_RULES: Rules = (
    *whisper_layer_rules("encoder"),
    *whisper_layer_rules("decoder"),
    (r"(encoder\.conv[12]\..+)", r"\1"),
    (r"encoder\.ln_post\.(.+)", r"encoder.layer_norm.\1"),
    (r"decoder\.token_embedding\.weight", r"decoder.embed_tokens.weight"),
    (r"decoder\.positional_embedding", r"decoder.embed_positions.weight"),
    (r"decoder\.ln\.(.+)", r"decoder.layer_norm.\1"),
    (r"decoder\.out_proj\.(.+)", r"proj_out.\1"),
)


def _text_encoder_rules(prefix: str, tone: str) -> Rules:
    """Rules of the text encoder that upstream calls `prefix`, with its table of tones."""
    ours, layer = "text_encoder", r"text_encoder.layers.\1"
    norms = (("1", "self_attn_layer_norm"), ("2", "feed_forward_layer_norm"))
    return (
        (tone, rf"{ours}.tone_embedding.weight"),
        (rf"{prefix}\.emb\.weight", rf"{ours}.phone_embedding.weight"),
        (rf"{prefix}\.pre\.conv_layers\.(.+)", rf"{ours}.prenet.convs.\1"),
        (rf"{prefix}\.pre\.norm_layers\.(\d+)\.gamma", rf"{ours}.prenet.norms.\1.weight"),
        (rf"{prefix}\.pre\.norm_layers\.(\d+)\.beta", rf"{ours}.prenet.norms.\1.bias"),
        (rf"{prefix}\.pre\.proj\.(.+)", rf"{ours}.prenet.projection.\1"),
        (rf"{prefix}\.encoder\.attn_layers\.(\d+)\.conv_o\.(.+)", rf"{layer}.self_attn.out_proj.\2"),
        (rf"{prefix}\.encoder\.attn_layers\.(\d+)\.conv_([qkv])\.(.+)", rf"{layer}.self_attn.\2_proj.\3"),
        (rf"{prefix}\.encoder\.attn_layers\.(\d+)\.(emb_rel_[kv])", rf"{layer}.self_attn.\2"),
        *((rf"{prefix}\.encoder\.norm_layers_{n}\.(\d+)\.gamma", rf"{layer}.{name}.weight") for n, name in norms),
        *((rf"{prefix}\.encoder\.norm_layers_{n}\.(\d+)\.beta", rf"{layer}.{name}.bias") for n, name in norms),
        (rf"{prefix}\.encoder\.ffn_layers\.(\d+)\.conv_1\.(.+)", rf"{layer}.feed_forward.conv.\2"),
        (rf"{prefix}\.encoder\.ffn_layers\.(\d+)\.conv_2\.(.+)", rf"{layer}.feed_forward.projection.\2"),
        (rf"{prefix}\.encoder\.last_ln\.gamma", rf"{ours}.norm.weight"),
        (rf"{prefix}\.encoder\.last_ln\.beta", rf"{ours}.norm.bias"),
    )


DURATION_RULES: Rules = (
    *_text_encoder_rules("encoder", r"ling_label_embed_layers\.tone\.weight"),
    (r"encoder\.weight", r"text_encoder.phone_embedding.weight"),
    (r"enc_proj\.(.+)", r"text_projection.\1"),
    (r"code_emb\.weight", r"duration_embedding.weight"),
    (r"layer_norm\.(.+)", r"norm.\1"),
    (r"project_out_dim\.(?:0\.)?(weight|bias)", r"head.\1"),
    (r"layers\.(\d+)\.op\.layer_norm1\.(.+)", r"layers.\1.self_attn_layer_norm.\2"),
    (r"layers\.(\d+)\.op\.layer_norm2\.(.+)", r"layers.\1.final_layer_norm.\2"),
    (r"layers\.(\d+)\.op\.self_attn\.in_proj_weight", r"layers.\1.self_attn.qkv_proj.weight"),
    (r"layers\.(\d+)\.op\.self_attn\.out_proj\.weight", r"layers.\1.self_attn.o_proj.weight"),
    (r"layers\.(\d+)\.op\.ffn\.ffn_1\.1\.(.+)", r"layers.\1.fc1.\2"),
    (r"layers\.(\d+)\.op\.ffn\.ffn_2\.(.+)", r"layers.\1.fc2.\2"),
)

TRANSFORMER_RULES: Rules = (
    *_text_encoder_rules("ph_encoder", r"tone_embed\.weight"),
    (r"ling_pre_net\.(\d+)\.(.+)", r"text_downsampler.\1.\2"),
    (r"ctx_mask_proj\.(.+)", r"context_mask_projection.\1"),
    (r"local_cond_project\.(.+)", r"local_condition_projection.\1"),
    (r"prenet\.(.+)", r"local_condition_in.\1"),
    (r"x_prenet\.(.+)", r"latent_in.\1"),
    (r"postnet\.(.+)", r"latent_out.\1"),
    (r"f5_time_embed\.time_mlp\.0\.(.+)", r"time_embedding.linear_1.\1"),
    (r"f5_time_embed\.time_mlp\.2\.(.+)", r"time_embedding.linear_2.\1"),
    (r"encoder\.layers\.(\d+)\.attention\.w([qkvo])\.(.+)", r"layers.\1.self_attn.\2_proj.\3"),
    (r"encoder\.layers\.(\d+)\.feed_forward\.w([12])\.(.+)", r"layers.\1.mlp.fc\2.\3"),
    (r"encoder\.layers\.(\d+)\.attention_norm\.linear\.(.+)", r"layers.\1.modulation.\2"),
    (r"encoder\.norm\.linear\.(.+)", r"norm_out.\1"),
    (r"encoder\.out_proj\.(.+)", r"out_proj.\1"),
)

# Behind the padding and the first convolution, upstream's generator has an upsampler and residual blocks in turn.
# Then come an activation, padding, the last convolution, and a tanh or one more convolution.
VAE_RULES: Rules = (
    (r"encoder\.encoder\.model\.(.+)\.conv\.conv\.(.+)", r"encoder.layers.\1.conv.\2"),
    (r"encoder\.encoder\.model\.(.+\.lstm\..+)", r"encoder.layers.\1"),
    (r"proj_to_z\.(.+)", r"latent_projection.\1"),
    (r"proj_to_decoder\.(.+)", r"decoder.proj_in.\1"),
    (r"latent_upsampler\.upsample\.3\.(.+)", r"decoder.latent_upsampler.conv.\1"),
    (r"latent_upsampler\.trans_upsample\.1\.(.+)", r"decoder.latent_upsampler.transposed.\1"),
    (r"decoder\.model_up\.1\.(.+)", r"decoder.conv_in.\1"),
    *(
        (rf"decoder\.model_up\.{2 + 2 * n}\.{theirs}\.(.+)", rf"decoder.upsamplers.{n}.{ours}.\1")
        for n in range(8)
        for theirs, ours in ((r"upsample\.3", "conv"), (r"trans_upsample\.1", "transposed"))
    ),
    *(
        (rf"decoder\.model_up\.{3 + 2 * n}\.block(\d+)\.(convs[12]\..+)", rf"decoder.stages.{n}.blocks.<\1>.\2")
        for n in range(8)
    ),
)


def without(state_dict: StateDict, unused: str) -> dict[str, Any]:
    """What does not match the pattern `unused`."""
    return {name: tensor for name, tensor in state_dict.items() if not re.fullmatch(unused, name)}


def _as_products(state_dict: StateDict, pattern: str) -> dict[str, Any]:
    """Convolutions over one step that match `pattern`, as the matrices that our linear layers hold."""
    return {
        name: tensor.squeeze(-1) if re.fullmatch(pattern, name) and tensor.dim() == 3 else tensor
        for name, tensor in state_dict.items()
    }


_TEXT_PRODUCTS = (
    r"text_encoder\.(?:prenet\.projection|layers\.\d+\.(?:self_attn\.\w+_proj|feed_forward\.projection))\.weight"
)


def convert_aligner(upstream: StateDict) -> dict[str, Any]:
    """Weights of [`MegaTTS3AlignerForConditionalGeneration`]."""
    return renamed(without(upstream, UNUSED_ALIGNER), ALIGNER_RULES)


def convert_duration(upstream: StateDict) -> dict[str, Any]:
    """Weights of [`MegaTTS3DurationModel`]."""
    converted = renamed(without(upstream, UNUSED_DURATION), DURATION_RULES)
    # What upstream can leave out is there with zeros: biases, the convolutions' projection, the tones.
    width = shape_of(upstream, "enc_proj.weight")[1]
    if has_text_encoder(upstream) and not any(name.startswith("encoder.pre.") for name in upstream):
        converted["text_encoder.prenet.projection.weight"] = torch.zeros(width, width)
        converted["text_encoder.prenet.projection.bias"] = torch.zeros(width)
    if TONES not in upstream:
        converted["text_encoder.tone_embedding.weight"] = torch.zeros(NUM_TONES, width)
    for name, weight in list(converted.items()):
        if re.fullmatch(r"layers\.\d+\.fc[12]\.weight", name):
            converted.setdefault(name.replace("weight", "bias"), weight.new_zeros(len(weight)))
    return _as_products(converted, rf"{_TEXT_PRODUCTS}|layers\.\d+\.fc1\.weight")


def convert_transformer(upstream: StateDict) -> dict[str, Any]:
    """Weights of [`MegaTTS3TransformerModel`]."""
    return _as_products(renamed(without(upstream, UNUSED_TRANSFORMER), TRANSFORMER_RULES), _TEXT_PRODUCTS)


def convert_vae(upstream: StateDict) -> dict[str, Any]:
    """Plain weights of [`MegaTTS3VAEModel`], with the encoder where there is one."""
    kept = upstream if has_encoder(upstream) else without(upstream, UNUSED_WITHOUT_ENCODER)
    last = 2 * vae_stages(upstream) + 4
    rules = (
        *VAE_RULES,
        (rf"decoder\.model_up\.{last}\.(.+)", r"decoder.conv_out.\1"),
        (rf"decoder\.model_up\.{last + 1}\.(.+)", r"decoder.scale.\1"),
    )
    return renamed(fuse_weight_norm(kept), rules)


# Configurations, from names and shapes


def has_text_encoder(upstream: StateDict) -> bool:
    """Whether the duration model encodes its text; it has a plain table of phones otherwise."""
    return "encoder.weight" not in upstream


def count_tones(upstream: StateDict, tone: str) -> int:
    """Rows of the table of tones called `tone`, which upstream can leave out."""
    return shape_of(upstream, tone)[0] if tone in upstream else NUM_TONES


def text_table_config(upstream: StateDict) -> MegaTTS3TextEncoderConfig:
    """Sizes of the tables of a duration model that does not encode its text."""
    phones, hidden_size = shape_of(upstream, "encoder.weight")
    # Of the layers there are none: what is said of them only has to be possible.
    return MegaTTS3TextEncoderConfig(
        vocab_size=phones,
        num_tones=count_tones(upstream, TONES),
        hidden_size=hidden_size,
        num_hidden_layers=0,
        num_attention_heads=1,
    )


def text_encoder_config(upstream: StateDict, prefix: str, tone: str) -> MegaTTS3TextEncoderConfig:
    """Sizes of the text encoder that upstream calls `prefix`; `tone` is the name of its table of tones."""
    phones, hidden_size = shape_of(upstream, f"{prefix}.emb.weight")
    has_prenet = any(name.startswith(f"{prefix}.pre.") for name in upstream)
    _, relative, head_dim = shape_of(upstream, f"{prefix}.encoder.attn_layers.0.emb_rel_k")
    inner, _, kernel_size = shape_of(upstream, f"{prefix}.encoder.ffn_layers.0.conv_1.weight")
    return MegaTTS3TextEncoderConfig(
        vocab_size=phones,
        num_tones=count_tones(upstream, tone),
        hidden_size=hidden_size,
        intermediate_size=inner,
        num_hidden_layers=count_of(upstream, rf"{prefix}\.encoder\.attn_layers\.(\d+)\."),
        num_attention_heads=hidden_size // head_dim,
        kernel_size=kernel_size,
        prenet_layers=count_of(upstream, rf"{prefix}\.pre\.conv_layers\.(\d+)\.") if has_prenet else 0,
        prenet_kernel_size=shape_of(upstream, f"{prefix}.pre.conv_layers.0.weight")[2] if has_prenet else 5,
        window_size=relative // 2,
        norm_first=f"{prefix}.encoder.last_ln.gamma" in upstream,
    )


def aligner_config(upstream: StateDict, **given: Any) -> MegaTTS3AlignerConfig:
    """Sizes of the aligner; `given` replaces what shapes do not tell, such as the heads (of 64 channels)."""
    width, bands, _ = shape_of(upstream, "encoder.conv1.weight")
    inner = shape_of(upstream, "encoder.blocks.0.mlp.0.weight")[0]
    heads = max(width // HEAD_DIM, 1)
    sizes = {
        "vocab_size": shape_of(upstream, "decoder.token_embedding.weight")[0],
        "num_mel_bins": bands,
        "hidden_size": width,
        "encoder_layers": count_of(upstream, r"encoder\.blocks\.(\d+)\."),
        "decoder_layers": count_of(upstream, r"decoder\.blocks\.(\d+)\."),
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": inner,
        "decoder_ffn_dim": inner,
        "max_target_positions": shape_of(upstream, "decoder.positional_embedding")[0],
    }
    # The table of positions is computed, and may be absent.
    if "encoder.positional_embedding" in upstream:
        sizes["max_source_positions"] = shape_of(upstream, "encoder.positional_embedding")[0]
    sizes["max_new_tokens"] = min(768, sizes["max_target_positions"] - 1)
    return MegaTTS3AlignerConfig(**sizes | given)


def duration_config(upstream: StateDict, **given: Any) -> MegaTTS3DurationConfig:
    """Sizes of the duration model; `given` replaces what shapes do not tell."""
    rows, width = shape_of(upstream, "code_emb.weight")
    encodes = has_text_encoder(upstream)
    sizes = {
        "text_encoder_config": (
            text_encoder_config(upstream, "encoder", TONES) if encodes else text_table_config(upstream)
        ),
        "use_text_encoder": encodes,
        "hidden_size": width,
        "intermediate_size": shape_of(upstream, "layers.0.op.ffn.ffn_2.weight")[1],
        "num_hidden_layers": count_of(upstream, r"layers\.(\d+)\."),
        "num_durations": rows - 2,
        "head_type": "regression" if "project_out_dim.0.weight" in upstream else "classification",
        "norm_first": "layer_norm.weight" in upstream,
        "use_position_embedding": "embed_positions._float_tensor" in upstream,
    }
    return MegaTTS3DurationConfig(**sizes | given)


def transformer_config(upstream: StateDict, **given: Any) -> MegaTTS3TransformerConfig:
    """Sizes of the diffusion transformer; `given` replaces what shapes do not tell, such as its heads."""
    width, latent_dim = shape_of(upstream, "x_prenet.weight")
    text = text_encoder_config(upstream, "ph_encoder", "tone_embed.weight")
    sizes = {
        "text_encoder_config": text,
        # Constants of upstream's, whatever the sizes of the tables.
        "dropped_phone_id": min(DROPPED_PHONE, text.vocab_size - 1),
        "dropped_tone_id": min(DROPPED_TONE, text.num_tones - 1),
        "latent_dim": latent_dim,
        "hidden_size": width,
        "intermediate_size": shape_of(upstream, "encoder.layers.0.feed_forward.w1.weight")[0],
        "num_hidden_layers": count_of(upstream, r"encoder\.layers\.(\d+)\."),
        "num_attention_heads": max(width // HEAD_DIM, 1),
        "local_condition_size": shape_of(upstream, "local_cond_project.weight")[0],
        "context_mask_size": shape_of(upstream, "ctx_mask_proj.weight")[0],
        "time_embedding_size": shape_of(upstream, "f5_time_embed.time_mlp.0.weight")[1],
    }
    return MegaTTS3TransformerConfig(**sizes | given)


def has_encoder(upstream: StateDict) -> bool:
    """Whether WaveVAE's weights hold the encoder."""
    return any(name.startswith("encoder.") for name in upstream)


def vae_stages(upstream: StateDict) -> int:
    """Upsampling stages of WaveVAE's generator."""
    return count_of(upstream, r"decoder\.model_up\.(\d+)\.upsample\.")


def vae_config(upstream: StateDict, **given: Any) -> MegaTTS3VAEConfig:
    """Sizes of WaveVAE; `given` replaces what shapes do not tell, such as the ratios.

    Raises:
        ConversionError: there are other stages than the ratios say.
    """
    with_encoder, stages = has_encoder(upstream), vae_stages(upstream)
    decoder_input_size, latent_dim = shape_of(upstream, "proj_to_decoder.weight")
    sizes: dict[str, Any] = {
        "latent_dim": latent_dim,
        "decoder_input_size": decoder_input_size,
        "decoder_hidden_size": shape_of(upstream, "decoder.model_up.1.bias")[0] // 2**stages,
        "use_tanh": f"decoder.model_up.{2 * stages + 5}.weight" not in upstream,
        "num_bands": shape_of(upstream, *(f"decoder.model_up.{2 * stages + 4}.{name}" for name in WEIGHTS))[0],
        "has_encoder": with_encoder,
    }
    if "proj_to_z.weight" in upstream:
        sizes["encoder_hidden_size"] = shape_of(upstream, "proj_to_z.weight")[1]
    if with_encoder:
        sizes["encoder_num_filters"] = shape_of(upstream, "encoder.encoder.model.0.conv.conv.bias")[0]
        sizes["encoder_num_lstm_layers"] = count_of(upstream, r"encoder\.encoder\.model\.\d+\.lstm\.weight_ih_l(\d+)")
    config = MegaTTS3VAEConfig(**sizes | given)
    if stages != len(config.upsampling_ratios):
        raise ConversionError(
            f"WaveVAE has {stages} upsampling stages; the ratios {config.upsampling_ratios} are for "
            f"{len(config.upsampling_ratios)}"
        )
    return config


Converter = Callable[[StateDict], dict[str, Any]]
# Our part -> its conversion, and the pattern of upstream's names that it leaves out on purpose.
PARTS: Mapping[str, tuple[Converter, str]] = {
    "aligner": (convert_aligner, UNUSED_ALIGNER),
    "duration": (convert_duration, UNUSED_DURATION),
    "transformer": (convert_transformer, UNUSED_TRANSFORMER),
    "vae": (convert_vae, UNUSED_WITHOUT_ENCODER),
}


def check_positions(upstream: StateDict) -> None:
    """The aligner computes its encoder's positions: they must be those of the checkpoint.

    Raises:
        ConversionError: they differ.
    """
    table = upstream.get("encoder.positional_embedding")
    if table is None or table.device.type == "meta":
        return
    expected = sinusoid_positions(torch.arange(table.shape[0]), table.shape[1])
    if not torch.allclose(table.float(), expected, atol=2e-3):
        raise ConversionError("`encoder.positional_embedding` does not hold the sines and cosines that it should")

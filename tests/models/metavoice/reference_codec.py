"""Runs the cases of EnCodec, which is transformers' own model under upstream's names."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from transformers import EncodecConfig, EncodecModel

from tests.common.reference import Check, ReferenceCase, reference_runner


CODEC_RULES = (
    (r"\.model\.(\d+)\.", r".layers.\1."),
    (r"\.conv\.conv\.", ".conv."),
    (r"\.convtr\.convtr\.", ".conv."),
    (r"\.(?:conv|convtr)\.norm\.", ".norm."),
    (r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1.codebook."),
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
)


def codec_name(name: str) -> str:
    """transformers' name of a tensor of EnCodec's."""
    for pattern, replacement in CODEC_RULES:
        name = re.sub(pattern, replacement, name)
    return name


def codec_config(upstream: Mapping[str, Any]) -> EncodecConfig:
    """The configuration from the arguments of upstream's parts."""
    frame_rate = upstream["sample_rate"]
    for ratio in upstream["ratios"]:
        frame_rate /= ratio
    bits = (upstream["bins"] - 1).bit_length()
    return EncodecConfig(
        # The half lies between so many quantisers and one more: the number is found by rounding down.
        target_bandwidths=[(upstream["n_q"] + 0.5) * bits * frame_rate / 1000],
        sampling_rate=upstream["sample_rate"],
        audio_channels=1,
        normalize=False,
        hidden_size=upstream["dimension"],
        num_filters=upstream["n_filters"],
        num_residual_layers=upstream["n_residual_layers"],
        upsampling_ratios=list(upstream["ratios"]),
        norm_type=upstream["norm"],
        kernel_size=upstream["kernel_size"],
        last_kernel_size=upstream["last_kernel_size"],
        residual_kernel_size=upstream["residual_kernel_size"],
        dilation_growth_rate=upstream["dilation_base"],
        use_causal_conv=upstream["causal"],
        pad_mode=upstream["pad_mode"],
        compress=upstream["compress"],
        num_lstm_layers=upstream["lstm"],
        codebook_size=upstream["bins"],
        codebook_dim=upstream["dimension"],
        use_conv_shortcut=not upstream["true_skip"],
    )


def build_codec(upstream: Mapping[str, Any], state_dict: Mapping[str, torch.Tensor]) -> EncodecModel:
    """EnCodec with the weights of `state_dict`, in upstream's names."""
    model = EncodecModel(codec_config(upstream)).eval()
    model.load_state_dict({codec_name(name): tensor for name, tensor in state_dict.items()}, strict=True)
    return model


@reference_runner(
    "metavoice", kinds=("encodec*",), needs=("codebooks_used", "inputs.codes", "inputs.waveform", "outputs.latent")
)
def run_codec(case: ReferenceCase) -> Iterator[Check]:
    """Sound and latent of given codes; latent, codes and reconstruction of given sound."""
    model = build_codec(case.spec["config"], case.state_dict()).to(case.device)
    codes, used = case.input("codes").long(), case.spec["codebooks_used"]
    yield case.check("audio", model.decode(codes[None], [None]).audio_values, "audio")
    yield case.check("latent", model.quantizer.decode(codes.transpose(0, 1)), "latent")
    latents = model.encoder(case.input("waveform"))
    yield case.check("encoder", latents, "encoder")
    found = model.quantizer.encode(latents, model.config.target_bandwidths[-1])[:used].transpose(0, 1)
    yield case.check("codes", found, "codes")
    yield case.check("reconstruction", model.decode(found[None], [None]).audio_values, "reconstruction")

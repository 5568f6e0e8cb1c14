"""Runs the cases of EnCodec, which is transformers' own model under upstream's names."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.nn.utils import parametrize
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


# What upstream's constructors take for an argument that is not given.
CODEC_DEFAULTS = {
    "channels": 1,
    "sample_rate": 24000,
    "dimension": 128,
    "n_filters": 32,
    "n_residual_layers": 1,
    "ratios": (8, 5, 4, 2),
    "norm": "weight_norm",
    "kernel_size": 7,
    "last_kernel_size": 7,
    "residual_kernel_size": 3,
    "dilation_base": 2,
    "causal": False,
    "pad_mode": "reflect",
    "true_skip": False,
    "compress": 2,
    "lstm": 2,
    "trim_right_ratio": 1.0,
    "n_q": 8,
    "bins": 1024,
}


def codec_name(name: str) -> str:
    """transformers' name of a tensor of EnCodec's."""
    for pattern, replacement in CODEC_RULES:
        name = re.sub(pattern, replacement, name)
    return name


def codec_config(upstream: Mapping[str, Any]) -> EncodecConfig:
    """The configuration from the arguments of upstream's parts; a plain weight is a norm's, see [`empty_codec`]."""
    upstream = CODEC_DEFAULTS | dict(upstream)
    frame_rate = math.ceil(upstream["sample_rate"] / math.prod(upstream["ratios"]))
    bits = math.ceil(math.log2(upstream["bins"]))
    return EncodecConfig(
        # The half lies between so many quantisers and one more: the number is found by rounding down.
        target_bandwidths=[(upstream["n_q"] + 0.5) * bits * frame_rate / 1000],
        sampling_rate=upstream["sample_rate"],
        audio_channels=upstream["channels"],
        normalize=False,
        hidden_size=upstream["dimension"],
        num_filters=upstream["n_filters"],
        num_residual_layers=upstream["n_residual_layers"],
        upsampling_ratios=list(upstream["ratios"]),
        norm_type="weight_norm" if upstream["norm"] == "none" else upstream["norm"],
        kernel_size=upstream["kernel_size"],
        last_kernel_size=upstream["last_kernel_size"],
        residual_kernel_size=upstream["residual_kernel_size"],
        dilation_growth_rate=upstream["dilation_base"],
        use_causal_conv=upstream["causal"],
        pad_mode=upstream["pad_mode"],
        compress=upstream["compress"],
        num_lstm_layers=upstream["lstm"],
        trim_right_ratio=upstream["trim_right_ratio"],
        codebook_size=upstream["bins"],
        codebook_dim=upstream["dimension"],
        use_conv_shortcut=not upstream["true_skip"],
    )


def empty_codec(upstream: Mapping[str, Any]) -> EncodecModel:
    """EnCodec of upstream's arguments; its plain weights where upstream's have no norm."""
    model = EncodecModel(codec_config(upstream)).eval()
    if (CODEC_DEFAULTS | dict(upstream))["norm"] == "none":
        for module in [each for each in model.modules() if parametrize.is_parametrized(each, "weight")]:
            parametrize.remove_parametrizations(module, "weight")
    return model


def build_codec(upstream: Mapping[str, Any], state_dict: Mapping[str, torch.Tensor]) -> EncodecModel:
    """EnCodec with the weights of `state_dict`, in upstream's names."""
    model = empty_codec(upstream)
    model.load_state_dict({codec_name(name): tensor for name, tensor in state_dict.items()}, strict=True)
    return model


@reference_runner(
    "metavoice", kinds=("encodec*",), needs=("codebooks_used", "inputs.codes", "inputs.waveform", "outputs.latent")
)
@reference_runner("metavoice", kinds=("encodec*",), needs=("config", "inputs.codes|inputs.waveform"))
def run_codec(case: ReferenceCase) -> Iterator[Check]:
    """Sound and latent of given codes; latent, codes and reconstruction of given sound."""
    model = build_codec(case.spec["config"], case.state_dict()).to(case.device)
    if case.holds("inputs.codes"):
        codes = case.input("codes").long()
        yield case.check("audio", model.decode(codes[None], [None]).audio_values, "audio")
        yield case.check("latent", model.quantizer.decode(codes.transpose(0, 1)), "latent")
    if case.holds("inputs.waveform"):
        yield from check_encoding(case, model)


def check_encoding(case: ReferenceCase, model: EncodecModel) -> Iterator[Check]:
    """Latent, codes and reconstruction of given sound."""
    used = case.spec.get("codebooks_used") or model.config.num_quantizers
    latents = model.encoder(case.input("waveform").float())
    yield case.check("encoder", latents, "encoder")
    found = model.quantizer.encode(latents, model.config.target_bandwidths[-1])[:used].transpose(0, 1)
    yield case.check("codes", found, "codes")
    yield case.check("reconstruction", model.decode(found[None], [None]).audio_values, "reconstruction")

"""Runs the reference cases of the Qwen3-TTS tokenizer: released names and shapes in, the port's numbers out."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import convert_qwen3_tts_tokenizer_to_hf as conversion
import torch
from torch import nn

from tests.common.reference import Check, ReferenceCase, compare, compare_rows, reference_runner
from tts_models import Qwen3TTSTokenizerConfig, Qwen3TTSTokenizerModel


def read_config(upstream: dict[str, Any], part: str) -> Qwen3TTSTokenizerConfig:
    """The configuration as upstream's classes take it, which do not compare the two parts."""
    try:
        return conversion.convert_config(upstream)
    except ValueError:
        return conversion.convert_config(upstream | fitting_part(upstream, part))


def fitting_part(config: dict[str, Any], part: str) -> dict[str, Any]:
    """Everything about the part that is not run, made to fit the other one: a small network that nothing fills."""
    if part == "encoder":
        encoder = config.get("encoder_config") or {}
        kept = min(config.get("encoder_valid_num_quantizers", 16), encoder.get("num_quantizers", 32))
        size = encoder.get("codebook_size", 2048)
        small = {"decoder_dim": 32, "hidden_size": 32, "intermediate_size": 32, "latent_dim": 32}
        return {"decoder_config": small | {"num_quantizers": kept, "codebook_size": size}}
    decoder = config.get("decoder_config") or {}
    kept, size = decoder.get("num_quantizers", 16), decoder.get("codebook_size", 2048)
    small = {"num_filters": 2, "hidden_size": 32, "intermediate_size": 32}
    return {
        "encoder_config": small | {"num_quantizers": max(kept, 2), "codebook_size": size},
        "encoder_valid_num_quantizers": kept,
    }


def build_model(case: ReferenceCase, part: str) -> Qwen3TTSTokenizerModel:
    """The codec of a case with the weights of one part, `encoder` or `decoder`; the other part stays random."""
    upstream = case.spec["config"]
    config = read_config(upstream if isinstance(upstream, dict) else {}, part)
    model = Qwen3TTSTokenizerModel(config)
    state_dict = {name.removeprefix(f"{part}."): tensor for name, tensor in case.state_dict().items()}
    for name in state_dict:
        if name.endswith("initialized"):  # a flag that no rule may fill
            state_dict[name] = torch.ones_like(state_dict[name])
    model.get_submodule(part).load_state_dict(state_dict, strict=True)
    return model.eval().to(case.device)


def output_of(modules: dict[str, nn.Module], run: Callable[[], Any]) -> tuple[Any, dict[str, torch.Tensor]]:
    """What `run` returns, and what the named modules returned last while it ran."""
    outputs: dict[str, torch.Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: outputs.__setitem__(name, output))
        for name, module in modules.items()
    ]
    try:
        return run(), outputs
    finally:
        for hook in hooks:
            hook.remove()


def check_channels(case: ReferenceCase, output: str, actual: torch.Tensor, dim: int = 1) -> Check | None:
    """Compares a latent, of which a large case keeps every n-th channel; `None` where the case does not hold it."""
    if not case.holds(f"outputs.{output}"):
        return None
    stated = re.search(r"every (\d+)\. channel", case.spec.get("outputs_meaning", {}).get(f"outputs.{output}", ""))
    step = int(stated[1]) if stated else -(-actual.shape[dim] // case.output(output).shape[dim])
    kept = torch.arange(0, actual.shape[dim], step, device=actual.device)
    return case.check(output, actual.index_select(dim, kept), "float")


@reference_runner("qwen3_tts", kinds=("tokenizer_encode_*",), needs=("inputs.input_values",))
def run_encode(case: ReferenceCase) -> Iterator[Check]:
    """Latents after each part, the codes of all codebooks, and the kept codes of each row."""
    model = build_model(case, "encoder")
    encoder, config = model.encoder, model.config
    audio = case.input("input_values")
    mask = case.input("padding_mask") if case.holds("inputs.padding_mask") else torch.ones_like(audio)
    parts = {"seanet": encoder.encoder, "transformer": encoder.encoder_transformer}
    latents, outputs = output_of(parts, lambda: encoder(audio[:, None]))
    yield check_channels(case, "seanet", outputs["seanet"])
    yield check_channels(case, "transformer", outputs["transformer"], dim=2)
    yield check_channels(case, "latents", latents)
    codes, _ = encoder.quantizer(latents, config.encoder_config.num_quantizers)
    yield case.check("all_codes", codes.transpose(1, 2), "codes")
    # Upstream hears the zeros after a shorter row to the end of its last frame; here they must be called audio.
    lengths = mask.long().sum(-1)
    heard = -(-lengths // config.encode_downsample_rate) * config.encoder_config.samples_per_frame
    lengths = torch.maximum(lengths, heard.clamp(max=audio.shape[1]))
    mask = torch.arange(audio.shape[1], device=mask.device) < lengths[:, None]
    encoded = model.encode(audio, padding_mask=mask)
    for row, length in enumerate(encoded.code_lengths):
        yield case.check(f"codes.{row}", encoded.audio_codes[row, :length], "codes")
    if case.num_outputs("codes"):
        yield compare("rows", len(encoded.audio_codes), case.num_outputs("codes"))


@reference_runner("qwen3_tts", kinds=("tokenizer_decode_*",), needs=("inputs.codes",))
@reference_runner("qwen3_tts", kinds=("tokenizer_decode_*",), needs=("inputs.batch_codes",))
def run_decode(case: ReferenceCase) -> Iterator[Check]:
    """The parts, the whole forward, the exact stream, upstream's chunks, and a batch padded with -1."""
    model = build_model(case, "decoder")
    if case.holds("inputs.codes"):
        yield from check_whole(case, model)
    if case.holds("inputs.batch_codes"):
        # Upstream's `decode` is its `chunked_decode` with the defaults: it differs beyond 300 frames.
        batch = model.chunked_decode(case.input("batch_codes"))
        for row, length in enumerate(batch.audio_lengths):
            yield case.check(f"batch_audio.{row}", batch.audio_values[row, :length], "float")


def check_whole(case: ReferenceCase, model: Qwen3TTSTokenizerModel) -> Iterator[Check | None]:
    """Codes without padding: each part, the audio at once, frame by frame and in upstream's chunks."""
    codes, decoder = case.input("codes"), model.decoder
    parts = {
        "quantized": decoder.quantizer,
        "pre_conv": decoder.pre_conv,
        "pre_transformer": decoder.pre_transformer,
    }
    if len(decoder.upsample):
        parts["upsampled"] = decoder.upsample[-1][-1]
    audio, outputs = output_of(parts, lambda: decoder(codes))
    for name, actual in outputs.items():
        yield check_channels(case, name, actual, dim=2 if name == "pre_transformer" else 1)
    yield case.check("audio", audio[:, None], "float")
    stream = model.decoder_stream(codes.shape[0])
    streamed = torch.cat([stream.push(frame) for frame in codes.split(1, dim=1)], dim=1)
    if case.holds("outputs.audio"):
        tolerance = case.tolerance("audio", "float")
        yield compare("stream of single frames", streamed[:, None], case.output("audio"), tolerance)
    if case.holds("outputs.audio_chunked"):
        chunked = model.chunked_decode(codes, **case.spec["chunked_decode"])
        yield case.check("audio_chunked", chunked.audio_values[:, None], "float")


@reference_runner("qwen3_tts_tokenizer", kinds=("released",), table=True)
def run_released(case: ReferenceCase) -> Iterator[Check]:
    """Every tensor of the released checkpoint, by name and shape."""
    config = conversion.convert_config(case.spec["config"])
    yield compare("default configuration", config.to_dict(), Qwen3TTSTokenizerConfig().to_dict())
    with torch.device("meta"):
        state_dict = Qwen3TTSTokenizerModel(config).state_dict()
    released = {name: shape for name, (_, shape) in case.spec["tensors"].items()}
    yield compare_rows("released tensors", {name: list(t.shape) for name, t in state_dict.items()}, released)
    yield compare("number of tensors", len(state_dict), len(released))

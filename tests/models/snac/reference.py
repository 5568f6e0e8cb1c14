"""Runs SNAC's reference cases: released names and shapes in, the port's numbers out."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import mul
from typing import Any

import convert_snac_to_hf as conversion
import torch

from tests.common.reference import Check, ReferenceCase, compare, reference_runner
from tts_models import SnacConfig, SnacModel
from tts_models.models.snac.streaming_snac import SnacDecoderStream


def build_model(case: ReferenceCase, config: dict[str, Any], keys: dict[str, Sequence]) -> SnacModel:
    """The codec of a case: filled in upstream's names, then converted as a released checkpoint is."""
    snac_config = conversion.convert_config(config)
    state_dict = case.state_dict(keys)
    for name in state_dict:
        if name.endswith(conversion.ROTARY_BUFFER):
            state_dict[name] = conversion.rotary_frequencies(state_dict[name].numel())
    model = SnacModel(snac_config)
    replace_unfit_encoder_output(model, state_dict)
    model.load_state_dict(conversion.convert_state_dict(state_dict, snac_config), strict=True)
    return model.eval().to(case.device)


def replace_unfit_encoder_output(model: SnacModel, state_dict: dict[str, torch.Tensor]) -> None:
    """Upstream builds a codec whose `latent_dim` is not its encoder's width too; only its decoder can run."""
    config = model.config
    if config.hidden_size == config.encoder_hidden_size * 2 ** len(config.downsampling_ratios):
        return
    upstream = {port: name for name, port in conversion.module_names(config).items()}["encoder.conv2"]
    for name in [name for name in state_dict if name.startswith(f"{upstream}.")]:
        del state_dict[name]
    state_dict |= {f"{upstream}.{name}": value for name, value in model.encoder.conv2.state_dict().items()}


def codec_of(case: ReferenceCase) -> SnacModel:
    """The codec of a case that holds nothing else."""
    return build_model(case, case.spec["config"], case.spec["keys"])


def every_nth_channel(actual: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Large cases keep every n-th channel, the first among them: the same of what the port computed."""
    kept = expected.shape[1]
    steps = [step for step in range(1, actual.shape[1] + 1) if -(-actual.shape[1] // step) == kept]
    candidates = [actual[:, ::step] for step in steps] or [actual]
    return min(candidates, key=lambda c: (c - expected).norm().item() if c.shape == expected.shape else 0.0)


def check_channels(case: ReferenceCase, output: str, actual: torch.Tensor) -> Check:
    """Compares (batch, channels, time), of which the case may keep some channels only."""
    kept = every_nth_channel(actual, case.output(output).to(actual.device))
    return case.check(output, kept, "latents", "audio")


@reference_runner("snac", kinds=("full_*", "tiny_*"), needs=("inputs.audio",))
def run_autoencoder(case: ReferenceCase) -> Iterator[Check]:
    """Encoder, quantiser, decoder with recorded noise, and the whole."""
    model = codec_of(case)
    audio, noise = case.input("audio"), case.inputs("noise") or None
    encoded = model.encode(audio)
    for level, codes in enumerate(encoded.audio_codes):
        if case.holds(f"outputs.codes.{level}"):
            yield compare(f"codes.{level}", codes, case.output(f"codes.{level}"))
    if case.num_outputs("codes"):
        yield compare("number of code levels", len(encoded.audio_codes), case.num_outputs("codes"))
    if "code_lengths" in case.spec:
        yield compare("code lengths", [codes.shape[1] for codes in encoded.audio_codes], case.spec["code_lengths"])
    if case.holds("outputs.latents"):
        yield check_channels(case, "latents", encoded.latents)
    if case.holds("outputs.quantized"):
        yield check_channels(case, "quantized", encoded.quantized_representation)
    if case.holds("outputs.quantized_from_codes"):
        yield check_channels(case, "quantized_from_codes", model.quantizer.from_codes(encoded.audio_codes))
    if case.holds("outputs.decoded"):
        decoded = model.decode(encoded.audio_codes, noise=noise).audio_values
        yield case.check("decoded", decoded[:, None], "audio")
    if case.holds("outputs.forward_audio"):
        yield case.check("forward_audio", model(audio, noise=noise).audio_values[:, None], "audio")


@reference_runner("snac", kinds=("*_decode",), needs=("inputs.codes.0",))
def run_decode(case: ReferenceCase) -> Iterator[Check]:
    """Codes to audio, with the recorded noise and with none."""
    model, codes = codec_of(case), case.inputs("codes")
    if case.holds("outputs.audio"):
        audio = model.decode(codes, noise=case.inputs("noise") or None).audio_values
        yield case.check("audio", audio[:, None])
    if case.holds("outputs.audio_zero_noise"):
        yield case.check("audio_zero_noise", model.decode(codes, noise_scale=0.0).audio_values[:, None], "audio")


@reference_runner("snac", kinds=("streaming_decode*",), needs=("inputs.codes.0", "outputs.full"))
def run_streaming_decode(case: ReferenceCase) -> Iterator[Check]:
    """The whole utterance, every published four-frame window, and the exact stream in the stated chunks."""
    model, codes, noise = codec_of(case), case.inputs("codes"), case.inputs("noise")
    full = model.decode(codes, noise=noise).audio_values
    yield case.check("full", full[:, None])
    if case.holds("outputs.windows"):
        yield case.check("windows", published_windows(model, codes, noise), "full")
    chunks = case.spec.get("chunks_in_coarse_frames", [1] * codes[0].shape[1])
    pieces = list(stream_pieces(model, codes, noise, chunks))
    if "exact_chunk_samples" in case.spec:
        # The case counts what the flush adds to the last chunk.
        sizes = [piece.shape[1] for piece in pieces]
        yield compare("exact chunk samples", [*sizes[:-2], sizes[-2] + sizes[-1]], case.spec["exact_chunk_samples"])
    if "lookahead_samples" in case.spec:
        yield compare("look-ahead in samples", model.decoder_stream().look_ahead, case.spec["lookahead_samples"])
    streamed = torch.cat(pieces, dim=1)[:, None]
    tolerance = case.tolerance("exact stream vs full", "full")
    yield compare("exact stream vs full", streamed, case.output("full"), tolerance)


def frame_slice(
    codes: Sequence[torch.Tensor], noise: Sequence[torch.Tensor], config: SnacConfig, start: int, stop: int
) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Codes and noise of the coarse frames `start:stop`."""
    latents = config.vq_strides[0]
    per_level = [latents // stride for stride in config.vq_strides]
    rates = [latents * size for size in accumulate(config.upsampling_ratios, mul)]
    return (
        tuple(level[:, start * n : stop * n] for level, n in zip(codes, per_level, strict=True)),
        tuple(block[..., start * n : stop * n] for block, n in zip(noise, rates, strict=False)),
    )


def published_windows(
    model: SnacModel, codes: Sequence[torch.Tensor], noise: Sequence[torch.Tensor], window: int = 4
) -> torch.Tensor:
    """The sliding window of the published scripts: keep the second of four frames. (batch, windows, 1, samples)"""
    size = model.config.samples_per_frame
    kept = []
    for start in range(codes[0].shape[1] - window + 1):
        window_codes, window_noise = frame_slice(codes, noise, model.config, start, start + window)
        kept.append(model.decode(window_codes, noise=window_noise).audio_values[:, None, size : 2 * size])
    return torch.stack(kept, dim=1)


class RecordedNoiseStream(SnacDecoderStream):
    """A stream that takes its noise from recorded values, as parity with upstream needs, and not from a generator."""

    def __init__(self, model: SnacModel, noise: Sequence[torch.Tensor], batch_size: int):
        super().__init__(model, batch_size)
        self.recorded = list(noise)

    def _draw_noise(self, latents: torch.Tensor) -> list[torch.Tensor | None]:
        if not self.recorded:  # a codec without noise
            return super()._draw_noise(latents)
        sizes = [latents.shape[-1] * size for size in accumulate(self.model.config.upsampling_ratios, mul)]
        drawn = [block[..., :size] for block, size in zip(self.recorded, sizes, strict=True)]
        self.recorded = [block[..., size:] for block, size in zip(self.recorded, sizes, strict=True)]
        return drawn


def stream_pieces(
    model: SnacModel, codes: Sequence[torch.Tensor], noise: Sequence[torch.Tensor], chunks: Sequence[int]
) -> Iterator[torch.Tensor]:
    """What an exact stream returns for each of `chunks` coarse frames, then for the flush. (batch, samples)"""
    stream, start = RecordedNoiseStream(model, noise, len(codes[0])), 0
    for size in chunks:
        yield stream.push(frame_slice(codes, (), model.config, start, start + size)[0])
        start += size
    yield stream.flush()

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
"""Multi-band diffusion (San Roman et al., 2023): EnCodec's latent to sound, one network per frequency band."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.utils import ModelOutput, can_return_tuple

from ...audio.band_split import split_bands
from ...audio.lengths import frame_lengths
from ...streaming.generators import RowGenerators, resolve_row_generators
from .configuration_metavoice import MetaVoiceMultiBandDiffusionConfig
from .modeling_metavoice_first_stage import MetaVoicePreTrainedModel
from .unet_metavoice import MetaVoiceDiffusionUNet


_LEAST_DEVIATION = 1e-12


# trf-ignore: TRF057
@dataclass
class MetaVoiceMultiBandDiffusionOutput(ModelOutput):
    r"""
    Output of [`MetaVoiceMultiBandDiffusion`].

    waveform (`torch.FloatTensor` of shape `(batch, frames * hop_length)`):
        Sound as loud in every band as the reference, float32, zero after a row's end.
    diffused (`torch.FloatTensor` of shape `(batch, frames * hop_length)`):
        The sum of the networks' bands, before that.
    """

    waveform: torch.FloatTensor | None = None
    diffused: torch.FloatTensor | None = None


@dataclass(frozen=True)
class DiffusionTransition:
    """One step of the way from noise to sound.

    Attributes:
        step (`int`): The step that the network is asked about.
        scale (`float`): Divides what is left.
        noise_share (`float`): How much of the estimated noise is taken away.
        deviation (`float`): Standard deviation of the noise that is added; 0 at the end.
    """

    step: int
    scale: float
    noise_share: float
    deviation: float


def transitions(band: dict[str, Any], steps: Sequence[int]) -> list[DiffusionTransition]:
    """The way through `steps`, largest first; the last of them is arrived at, and the network not asked about it."""
    exponent = band["beta_exponent"]
    betas = torch.linspace(
        band["beta_start"] ** (1 / exponent), band["beta_end"] ** (1 / exponent), band["num_train_steps"]
    )
    remaining = (1 - betas**exponent).cumprod(0)
    # At the start what remains is that of the very last step, whatever step the way begins at.
    now, way = remaining[-1], []
    for step, following in zip(steps, steps[1:], strict=False):
        alpha, is_last = remaining[step] / remaining[following], following == steps[-1]
        then = torch.ones(()) if is_last else remaining[following]
        variance = torch.zeros(()) if is_last else (1 - then) / (1 - now) * (1 - alpha)
        way.append(
            DiffusionTransition(
                step,
                alpha.sqrt().item(),
                ((1 - alpha) / (1 - now).sqrt()).item(),
                variance.sqrt().item(),
            )
        )
        now = then
    return way


class MetaVoiceBandProcessor(nn.Module):
    """Gives what a network makes, which is as loud in every band as noise, the loudness of speech."""

    def __init__(self, bands: int, power: float | list[float], sampling_rate: int):
        super().__init__()
        self.sampling_rate, self.power = sampling_rate, power
        self.mean = nn.Buffer(torch.zeros(bands))
        self.deviation = nn.Buffer(torch.ones(bands))
        self.target = nn.Buffer(torch.ones(bands))

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """float32 `(batch, samples)` to the same shape."""
        bands = split_bands(samples, len(self.mean), self.sampling_rate)
        power = torch.tensor(self.power, device=samples.device)
        scale = (self.deviation.float() / self.target.float()) ** power
        return (bands * scale[:, None, None] + self.mean.float()[:, None, None]).sum(0)


class MetaVoiceDiffusionBand(nn.Module):
    """A network and, where it has one, its processor."""

    def __init__(self, config: MetaVoiceMultiBandDiffusionConfig, band: dict[str, Any]):
        super().__init__()
        self.settings = band
        self.unet = MetaVoiceDiffusionUNet(config, band)
        self.processor = None
        # CODEPATH: the lowest bands of a checkpoint are trained on the sound as it is.
        if band["processor_bands"]:
            self.processor = MetaVoiceBandProcessor(
                band["processor_bands"], band["processor_power"], config.sampling_rate
            )

    def forward(
        self, latents: torch.Tensor, way: Sequence[DiffusionTransition], noise: Iterator[torch.Tensor]
    ) -> torch.Tensor:
        """The band's sound float32 `(batch, samples)`; `noise` gives a draw of that shape for every transition."""
        clip, scale, dtype = self.settings["clip"], self.settings["noise_scale"], latents.dtype
        current = next(noise) * scale
        for transition in way:
            steps = torch.full((len(latents),), transition.step, device=latents.device)
            estimate = self.unet(current[:, None].to(dtype), steps, latents)[:, 0].float() * scale
            current = (current - transition.noise_share * estimate) / transition.scale
            if transition.deviation > 0:
                current = current + transition.deviation * scale * next(noise)
            if clip:
                current = current.clamp(-clip, clip)
        return current if self.processor is None else self.processor(current)


# trf-ignore: TRF057
class MetaVoiceMultiBandDiffusion(MetaVoicePreTrainedModel):
    r"""
    Makes sound of EnCodec's latent: every band's network takes the noise out of noise, their sum is brought to the
    loudness that EnCodec's own sound has in each of many narrow bands.

    A norm inside spans the whole sound, so a row is made as a whole, and rows of different lengths one after another.

    Example:

    ```python
    >>> import torch
    >>> from tts_models import MetaVoiceMultiBandDiffusion, MetaVoiceMultiBandDiffusionConfig

    >>> band = {"hidden_size": 8, "depth": 2, "growth": 2.0}
    >>> config = MetaVoiceMultiBandDiffusionConfig(band_configs=[band], codec_hidden_size=4, equalizer_bands=4)
    >>> diffusion = MetaVoiceMultiBandDiffusion(config).eval()
    >>> latents, plain = torch.randn(1, 4, 5), 0.1 * torch.randn(1, 1600)
    >>> diffusion(latents, plain, generator=torch.Generator().manual_seed(0)).waveform.shape
    torch.Size([1, 1600])
    ```
    """

    config_class = MetaVoiceMultiBandDiffusionConfig
    config: MetaVoiceMultiBandDiffusionConfig
    main_input_name = "latents"
    input_modalities = ("audio",)
    supports_gradient_checkpointing = False
    _no_split_modules = ["MetaVoiceDiffusionUNet"]

    def __init__(self, config: MetaVoiceMultiBandDiffusionConfig) -> None:
        super().__init__(config)
        self.bands = nn.ModuleList(MetaVoiceDiffusionBand(config, band) for band in config.band_configs)
        self.post_init()

    def default_steps(self, num_inference_steps: int | None = None) -> list[int]:
        """The steps of the diffusion that are visited, largest first.

        Raises:
            ValueError: there are fewer steps than 1, or more than the networks were trained with.
        """
        count = self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        trained = min(band["num_train_steps"] for band in self.config.band_configs)
        if not 1 <= count <= trained - 1:
            raise ValueError(f"`num_inference_steps` must be in 1 … {trained - 1}, got {count}.")
        return [*range(trained - 1, 0, -(trained // count))][:count] + [0]

    # trf-ignore: TRF057
    @torch.no_grad()
    @can_return_tuple
    def forward(
        self,
        latents: torch.Tensor,
        reference_audio: torch.Tensor,
        lengths: torch.LongTensor | None = None,
        noise: torch.Tensor | None = None,
        generator: RowGenerators = None,
        num_inference_steps: int | None = None,
        steps: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> MetaVoiceMultiBandDiffusionOutput:
        r"""
        Sound of EnCodec's latent.

        Args:
            latents (`torch.FloatTensor` of shape `(batch, codec_hidden_size, frames)`):
                The sum of the code vectors of all levels.
            reference_audio (`torch.FloatTensor` of shape `(batch, frames * hop_length)`):
                EnCodec's own sound of the same codes.
            lengths (`torch.LongTensor` of shape `(batch,)`, *optional*):
                Valid frames per row; each row's sound is the one it has alone.
            noise (`torch.FloatTensor` of shape `(bands, steps, batch, frames * hop_length)`, *optional*):
                Standard normal: of every band the beginning, then a draw per transition but the last. Drawn when
                absent.
            generator (`torch.Generator` or a list with one per row, *optional*): Where it is drawn from.
            num_inference_steps (`int`, *optional*): Calls of every network; `config.num_inference_steps` by default.
            steps (`Sequence[int]`, *optional*): The steps themselves, falling; the last is not asked for.

        Raises:
            ValueError: a wrong shape or length, steps that do not fall, or generators for another batch.
        """
        lengths = self._check(latents, reference_audio, lengths)
        steps = self._check_steps(self.default_steps(num_inference_steps) if steps is None else list(steps))
        self._check_noise(noise, latents, len(steps) - 1)
        generators = resolve_row_generators(generator, len(latents))
        diffused = torch.zeros(reference_audio.shape, device=latents.device)
        waveform = torch.zeros_like(diffused)
        for frames, rows in _rows_of_equal_length(lengths):
            samples = frames * self.config.hop_length
            draws = _Draws(rows, samples, noise, generators)
            sound = self._diffuse(latents[rows, :, :frames], steps, draws)
            diffused[rows, :samples] = sound
            waveform[rows, :samples] = self.equalize(sound, reference_audio[rows, :samples].float())
        return MetaVoiceMultiBandDiffusionOutput(waveform=waveform, diffused=diffused)

    def _diffuse(self, latents: torch.Tensor, steps: list[int], draws: "_Draws") -> torch.Tensor:
        """Sum of the bands float32 `(rows, samples)`, for rows of one length."""
        latents = latents.to(self.dtype)
        return sum(
            band(latents, transitions(band.settings, steps), draws.of_band(index, latents.device))
            for index, band in enumerate(self.bands)
        )

    def equalize(self, samples: torch.Tensor, reference_audio: torch.Tensor) -> torch.Tensor:
        """Gives every narrow band of `samples` `(batch, samples)` the deviation it has in `reference_audio`."""
        bands, rate = self.config.equalizer_bands, self.config.sampling_rate
        made, wanted = (split_bands(audio, bands, rate) for audio in (samples, reference_audio))
        # Per row: upstream takes one factor for a whole batch, where rows change each other.
        factor = wanted.std(-1, keepdim=True) / made.std(-1, keepdim=True).clamp(min=_LEAST_DEVIATION)
        return (made * factor).sum(0)

    def _check(
        self, latents: torch.Tensor, reference_audio: torch.Tensor, lengths: torch.Tensor | None
    ) -> torch.LongTensor:
        width, hop = self.config.codec_hidden_size, self.config.hop_length
        if latents.dim() != 3 or latents.shape[1] != width or 0 in latents.shape:
            raise ValueError(
                f"`latents` must have shape (batch, {width}, frames) with at least one frame, got "
                f"{tuple(latents.shape)}."
            )
        expected = (latents.shape[0], latents.shape[2] * hop)
        if reference_audio.shape != expected:
            raise ValueError(f"`reference_audio` must have shape {expected}, got {tuple(reference_audio.shape)}.")
        return frame_lengths(latents, latents.shape[2], lengths, None)

    def _check_steps(self, steps: list[int]) -> list[int]:
        trained = min(band["num_train_steps"] for band in self.config.band_configs)
        falls = all(later < earlier for earlier, later in zip(steps, steps[1:], strict=False))
        if len(steps) < 2 or not falls or steps[0] >= trained or steps[-1] < 0:
            raise ValueError(f"`steps` must be at least two numbers that fall within 0 … {trained - 1}, got {steps}.")
        return steps

    def _check_noise(self, noise: torch.Tensor | None, latents: torch.Tensor, steps: int) -> None:
        samples = latents.shape[2] * self.config.hop_length
        expected = (len(self.bands), steps, latents.shape[0], samples)
        if noise is not None and noise.shape != expected:
            raise ValueError(f"`noise` must have shape {expected}, got {tuple(noise.shape)}.")


def _rows_of_equal_length(lengths: torch.LongTensor) -> Iterator[tuple[int, torch.LongTensor]]:
    """Every length and the rows that have it."""
    for length in sorted(set(lengths.tolist())):
        yield length, (lengths == length).nonzero().flatten()


@dataclass
class _Draws:
    """Where the noise of some rows comes from.

    Attributes:
        rows (`torch.LongTensor`): Their places in the batch.
        samples (`int`): Their length.
        noise (`torch.Tensor`, *optional*): Recorded noise of all rows.
        generators (`list[torch.Generator]`, *optional*): One per row of the batch.
    """

    rows: torch.Tensor
    samples: int
    noise: torch.Tensor | None
    generators: list[torch.Generator] | None

    def of_band(self, band: int, device: torch.device) -> Iterator[torch.Tensor]:
        """The band's draws `(rows, samples)`, one after another; what a row gets does not depend on the others."""
        if self.noise is not None:
            yield from (
                draw[self.rows.to(draw.device), : self.samples].to(device) for draw in self.noise[band].float()
            )
            return
        while True:
            if self.generators is None:
                yield torch.randn(len(self.rows), self.samples, device=device)
            else:
                own = (self.generators[row] for row in self.rows.tolist())
                draws = [torch.randn(self.samples, generator=each, device=each.device).to(device) for each in own]
                yield torch.stack(draws)


__all__ = ["MetaVoiceMultiBandDiffusion", "MetaVoiceMultiBandDiffusionOutput"]

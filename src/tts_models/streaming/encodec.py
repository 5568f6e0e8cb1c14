"""EnCodec's decoder run in pieces: every layer keeps what it needs of the past, so the joined pieces are the whole."""

import math

import torch
from torch import nn
from torch.nn import functional as F
from transformers import EncodecModel


_CONVOLUTION, _UPSAMPLING = "EncodecConv1d", "EncodecConvTranspose1d"
_RECURRENT, _RESIDUAL = "EncodecLSTM", "EncodecResnetBlock"
# Frames that are decoded at once (20 s): what the last layers hold of more would fill the memory.
_PIECE_FRAMES = 1500


class EncodecDecoderStream:
    """Codes of a causal EnCodec (24 kHz) in, waveform out, in pieces of any length; each frame is decoded once.

    The pieces, joined with what `flush` returns, equal `EncodecModel.decode` on all codes at once. Only the first
    frames wait: the decoder begins by mirroring its first `first_frames` inputs.

    Args:
        codec: The model. Its weights are read when the stream is made.
        batch_size: Rows of every piece.

    Attributes:
        first_frames: Frames needed before there is sound (7 in the released model).

    Raises:
        ValueError: the model is not causal, or normalises over time, as the 48 kHz model does.
    """

    def __init__(self, codec: EncodecModel, batch_size: int = 1) -> None:
        config = codec.config
        if not config.use_causal_conv or config.norm_type != "weight_norm" or config.trim_right_ratio != 1.0:
            raise ValueError(
                "`codec` must have causal convolutions with weight norm, as EnCodec at 24 kHz has, to be decoded in "
                f"pieces; got use_causal_conv={config.use_causal_conv}, norm_type={config.norm_type!r}."
            )
        self.codec, self.batch_size = codec, batch_size
        self.hop_length = math.prod(config.upsampling_ratios)
        self._layers = [_piecewise(layer) for layer in codec.decoder.layers]
        self.first_frames = self._needed_frames()
        self._waiting: torch.Tensor | None = None
        self._started = False

    def _needed_frames(self) -> int:
        """Frames after which no layer has to wait for the inputs that it mirrors."""
        needed, rate = 1, 1
        for layer in self._layers:
            needed = max(needed, math.ceil(layer.needed_steps / rate))
            rate *= layer.upsampling
        return needed

    @torch.no_grad()
    def push(self, audio_codes: torch.LongTensor) -> torch.Tensor:
        """The sound of more frames.

        Args:
            audio_codes: int64 `(batch, levels, frames)`; no frames are allowed.

        Returns:
            float `(batch, samples)`, `hop_length` samples per frame; nothing before `first_frames` have come.
        """
        latents = self.codec.quantizer.decode(audio_codes.transpose(0, 1))
        if self._waiting is not None:
            latents = torch.cat([self._waiting, latents], dim=-1)
        if latents.shape[-1] == 0 or (not self._started and latents.shape[-1] < self.first_frames):
            self._waiting = latents
            return latents.new_zeros(self.batch_size, 0)
        self._waiting, self._started = None, True
        return self._decode(latents)

    @torch.no_grad()
    def flush(self) -> torch.Tensor:
        """What still waits: `(batch, samples)`, empty unless fewer than `first_frames` came in all."""
        waiting, self._waiting = self._waiting, None
        if waiting is None or waiting.shape[-1] == 0:
            return next(self.codec.decoder.parameters()).new_zeros(self.batch_size, 0)
        return self.codec.decoder(waiting)[:, 0]

    def _decode(self, hidden_states: torch.Tensor) -> torch.Tensor:
        for layer in self._layers:
            hidden_states = layer(hidden_states)
        return hidden_states[:, 0]


def decode_ragged(codec: EncodecModel, audio_codes: list[torch.LongTensor]) -> list[torch.Tensor]:
    """The waveforms `(samples,)` of rows of codes `(levels, frames)` of any lengths, decoded as one batch.

    A row sounds as if it were alone; rows without frames give nothing.

    Args:
        codec: A causal EnCodec.
        audio_codes: int64, one per row.
    """
    hop = math.prod(codec.config.upsampling_ratios)
    first = EncodecDecoderStream(codec).first_frames
    waveforms = [next(codec.parameters()).new_zeros(0) for _ in audio_codes]
    # A short row is mirrored together with zeros after its end, which padding would hide.
    long = [row for row, codes in enumerate(audio_codes) if codes.shape[-1] >= first]
    short = [[row] for row, codes in enumerate(audio_codes) if 0 < codes.shape[-1] < first]
    for rows in [long, *short] if long else short:
        lengths = [audio_codes[row].shape[-1] for row in rows]
        padded = [F.pad(audio_codes[row], (0, max(lengths) - audio_codes[row].shape[-1])) for row in rows]
        stream = EncodecDecoderStream(codec, len(rows))
        pieces = [stream.push(piece) for piece in torch.stack(padded).split(_PIECE_FRAMES, dim=-1)]
        decoded = torch.cat([*pieces, stream.flush()], dim=1)
        for row, length, waveform in zip(rows, lengths, decoded, strict=True):
            waveforms[row] = waveform[: length * hop]
    return waveforms


class _Pointwise:
    """A layer without a past."""

    upsampling, needed_steps = 1, 1

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __call__(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.layer(hidden_states)


class _Convolution:
    """A causal convolution, which mirrors the first inputs to its left as the offline layer does."""

    upsampling = 1

    def __init__(self, layer: nn.Module) -> None:
        convolution = layer.conv
        # The parametrised weight would be computed anew at every access.
        self.weight, self.bias = convolution.weight.detach(), convolution.bias
        self.dilation, self.mode = convolution.dilation[0], layer.pad_mode
        self.left = self.dilation * (convolution.kernel_size[0] - 1)
        self.needed_steps = self.left + 1 if self.mode == "reflect" else 1
        self.before: torch.Tensor | None = None

    def __call__(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.left and self.before is None:
            hidden_states = F.pad(hidden_states, (self.left, 0), mode=self.mode)
        elif self.left:
            hidden_states = torch.cat([self.before, hidden_states], dim=-1)
        if self.left:
            self.before = hidden_states[..., -self.left :].clone()
        return F.conv1d(hidden_states, self.weight, self.bias, dilation=self.dilation)


class _Upsampling:
    """A transposed convolution without the steps that its kernel reaches beyond the end."""

    needed_steps = 1

    def __init__(self, layer: nn.Module) -> None:
        convolution = layer.conv
        self.weight, self.bias = convolution.weight.detach(), convolution.bias
        self.upsampling = convolution.stride[0]
        self.overlap = convolution.kernel_size[0] - self.upsampling
        self.tail: torch.Tensor | None = None

    def __call__(self, hidden_states: torch.Tensor) -> torch.Tensor:
        output = F.conv_transpose1d(hidden_states, self.weight, stride=self.upsampling)
        if self.overlap:
            if self.tail is not None:
                output[..., : self.overlap] += self.tail
            self.tail = output[..., -self.overlap :].clone()
            output = output[..., : -self.overlap]
        return output if self.bias is None else output + self.bias[:, None]


class _Recurrent:
    """An LSTM with a skip connection."""

    upsampling, needed_steps = 1, 1

    def __init__(self, layer: nn.Module) -> None:
        self.lstm = layer.lstm
        self.state: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(self, hidden_states: torch.Tensor) -> torch.Tensor:
        steps = hidden_states.permute(2, 0, 1)
        output, self.state = self.lstm(steps, self.state)
        return (output + steps).permute(1, 2, 0)


class _Residual:
    """A residual block."""

    upsampling = 1

    def __init__(self, layer: nn.Module) -> None:
        self.block = [_piecewise(each) for each in layer.block]
        self.shortcut = _piecewise(layer.shortcut)
        self.needed_steps = max(each.needed_steps for each in self.block)

    def __call__(self, hidden_states: torch.Tensor) -> torch.Tensor:
        output = hidden_states
        for layer in self.block:
            output = layer(output)
        return self.shortcut(hidden_states) + output


_KINDS = {_CONVOLUTION: _Convolution, _UPSAMPLING: _Upsampling, _RECURRENT: _Recurrent, _RESIDUAL: _Residual}


def _piecewise(layer: nn.Module) -> _Pointwise | _Convolution | _Upsampling | _Recurrent | _Residual:
    return _KINDS.get(type(layer).__name__, _Pointwise)(layer)


__all__ = ["EncodecDecoderStream", "decode_ragged"]

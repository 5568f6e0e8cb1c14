"""Resynthesis of speech at a constant pitch, with every pulse at a known place: audio that a codec learns fast.

A decoder that must invent the phase of its waveform needs hours of training before a word is understood. Here phase is
a function of time alone: voiced sounds are minimum-phase pulses at every multiple of the pitch period, voiceless ones
filter a noise sequence that repeats with the frame. A frame's waveform is then determined by its spectral envelope
and voicing, it can be compared sample by sample, and no code is spent on pitch. The price is a monotone voice.
"""

import numpy as np


SAMPLING_RATE = 16000
FRAME = 480
"""Samples after which the excitation repeats; audio must be cut at multiples of it."""
HOP = 80
"""Samples between two analyses (5 ms)."""
FFT = 1024
RESPONSE = 480
"""Samples of a filter response."""
FLITE_VOICES = {"slt": {"pitch_period": 80, "order": 40}, "rms": {"pitch_period": 160, "order": 60}}
"""Arguments of [`resynthesise`] for the flite voices of the default voice: 200 and 100 Hz."""


def spectral_envelope(frames: np.ndarray, order: int, iterations: int = 3) -> np.ndarray:
    """
    Logarithm of the "true envelope" (Röbel and Rodet, 2005): the smooth curve through the harmonics' peaks.

    Args:
        frames: Windowed signal `(frames, samples)`.
        order: Cepstral coefficients kept, at most the pitch period in samples.

    Returns:
        `(frames, FFT // 2 + 1)`, float64, natural logarithm of the magnitude.
    """
    spectrum = np.log(np.abs(np.fft.rfft(frames, FFT)) + 1e-5)
    quefrency = np.arange(FFT)
    lifter = (np.minimum(quefrency, FFT - quefrency) < order).astype(np.float32)
    envelope = target = spectrum
    for _ in range(iterations):
        envelope = np.fft.rfft(np.fft.irfft(target) * lifter).real
        target = np.maximum(spectrum, envelope)
    return envelope


def minimum_phase(log_envelope: np.ndarray) -> np.ndarray:
    """Minimum-phase spectra, complex `(frames, FFT // 2 + 1)`, of log magnitudes of the same shape."""
    cepstrum = np.fft.irfft(log_envelope)
    cepstrum[:, 1 : FFT // 2] *= 2.0
    cepstrum[:, FFT // 2 + 1 :] = 0.0
    return np.exp(np.fft.rfft(cepstrum))


def voicing(audio: np.ndarray, count: int) -> np.ndarray:
    """How periodic the signal is around each of `count` analyses: 0 (noise) … 1 (voiced)."""
    length, size = 560, 1200
    padded = np.pad(audio, (length // 2, length))
    frames = np.lib.stride_tricks.sliding_window_view(padded, length)[: count * HOP : HOP]
    window = np.hanning(length).astype(np.float32)
    power = np.abs(np.fft.rfft(frames * window, size)) ** 2
    # The period is sought between 60 Hz and 2 kHz: hiss above it would hide it.
    band = slice(60 * size // SAMPLING_RATE, 2000 * size // SAMPLING_RATE)
    share = power[:, band].sum(1) / power.sum(1).clip(1e-9)
    power[:, : band.start] = power[:, band.stop :] = 0.0
    correlation = np.fft.irfft(power)
    own = np.fft.irfft(np.abs(np.fft.rfft(window, size)) ** 2)
    periods = slice(SAMPLING_RATE // 350, SAMPLING_RATE // 65)
    peak = (correlation[:, periods] / own[periods]).max(1) * own[0] / correlation[:, 0].clip(1e-9)
    voiced = np.clip((peak - 0.45) / 0.25, 0, 1) * np.clip((share - 0.05) / 0.15, 0, 1)
    return np.median([np.roll(voiced, shift) for shift in (-2, -1, 0, 1, 2)], axis=0)


def frozen_noise() -> np.ndarray:
    """One period of noise of flat spectrum and unit variance, `(FRAME,)`."""
    rng = np.random.default_rng(0)
    spectrum = np.exp(2j * np.pi * rng.random(FRAME // 2 + 1))
    spectrum[[0, -1]] = 0.0
    noise = np.fft.irfft(spectrum)
    return (noise / noise.std()).astype(np.float32)


def overlap_add(segments: np.ndarray, samples: int) -> np.ndarray:
    """Sum of segments `(count, length)` that start `HOP` samples apart."""
    count, length = segments.shape
    output = np.zeros((count + length // HOP + 1) * HOP, dtype=segments.dtype)
    for start in range(0, length, HOP):
        block = segments[:, start : start + HOP]
        view = output[start : start + count * HOP].reshape(count, HOP)
        view[:, : block.shape[1]] += block
    return output[:samples]


def resynthesise(audio: np.ndarray, pitch_period: int, order: int) -> np.ndarray:
    """
    Speak `audio` again at a constant pitch.

    Args:
        audio: Speech `(samples,)` at 16 kHz.
        pitch_period: Samples between two pulses; a multiple of `HOP` that divides `FRAME`.
        order: See [`spectral_envelope`].

    Returns:
        float32 `(samples,)`, `samples` the next multiple of `FRAME`.

    Raises:
        ValueError: `pitch_period` does not fit the grid, `order` exceeds it, or `audio` is not one waveform.
    """
    if pitch_period % HOP or FRAME % pitch_period:
        raise ValueError(f"`pitch_period` must be a multiple of {HOP} that divides {FRAME}, got {pitch_period}.")
    if not 0 < order <= pitch_period:
        raise ValueError(f"`order` must lie between 1 and the pitch period {pitch_period}, got {order}.")
    if audio.ndim != 1 or not len(audio):
        raise ValueError(f"`audio` must be one waveform `(samples,)`, got shape {audio.shape}.")
    samples = -(-len(audio) // FRAME) * FRAME
    count = samples // HOP
    window = np.hanning(FRAME + 1)[:FRAME].astype(np.float32)
    padded = np.pad(audio.astype(np.float32), (FRAME // 2, samples + FRAME - len(audio)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[: count * HOP : HOP]
    voiced = voicing(padded[FRAME // 2 : FRAME // 2 + samples], count)[:, None].astype(np.float32)
    filters = minimum_phase(spectral_envelope(frames * window, order))

    # Pulses: the filters' own responses, one per period.
    step = pitch_period // HOP
    pulses = np.zeros((count, RESPONSE), dtype=np.float32)
    fade = np.minimum(1, np.arange(RESPONSE, 0, -1) / (RESPONSE / 4)).astype(np.float32)
    gain = pitch_period / window.sum()
    pulses[::step] = gain * np.sqrt(voiced[::step]) * np.fft.irfft(filters[::step])[:, :RESPONSE] * fade

    # Noise: overlapping grains, each filtered. The envelope follows the peaks of noise, 1.5 times above its mean.
    noise = np.tile(frozen_noise(), samples // FRAME + 2)
    grain = np.hanning(2 * HOP + 1)[: 2 * HOP].astype(np.float32)
    grains = np.lib.stride_tricks.sliding_window_view(noise, 2 * HOP)[: count * HOP : HOP] * grain
    grains *= np.sqrt(1 - voiced) / (1.5 * np.sqrt((window**2).sum()))
    hiss = np.fft.irfft(np.fft.rfft(grains, FFT) * filters)[:, : RESPONSE + 2 * HOP]

    output = overlap_add(pulses, samples) + np.pad(overlap_add(hiss, samples), (HOP, 0))[:samples]
    return output / max(1.0, np.abs(output).max() / 0.98)

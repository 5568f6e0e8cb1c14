"""Audio files round trip, bad audio is refused by name, and nothing half-written stays behind."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tts_models.audio import AUDIO_SUFFIXES, check_waveform, load_audio, pcm16, resample, save_audio


RATE = 16000


def tone(seconds: float = 0.5, rate: int = RATE, hertz: float = 440.0) -> np.ndarray:
    """A sine of half the full scale, float32 (samples,)."""
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize("suffix", sorted(AUDIO_SUFFIXES))
def test_round_trip(suffix: str, tmp_path: Path) -> None:
    path = save_audio(tmp_path / f"tone{suffix}", tone(), RATE)
    audio, rate = load_audio(path)
    assert rate == RATE and audio.dtype == np.float32 and audio.ndim == 1
    assert abs(len(audio) - RATE // 2) <= 2500
    if suffix in (".wav", ".flac"):
        np.testing.assert_allclose(audio, tone(), atol=2 / 32768)
    assert abs(np.sqrt(np.mean(audio**2)) - 0.5 / np.sqrt(2)) < 0.03
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_tensor_with_a_channel_axis_is_written(tmp_path: Path) -> None:
    save_audio(tmp_path / "tone.wav", torch.from_numpy(tone())[None], RATE)
    assert soundfile.info(tmp_path / "tone.wav").frames == RATE // 2


def test_loud_audio_is_clipped_not_wrapped(tmp_path: Path) -> None:
    save_audio(tmp_path / "loud.wav", 4 * tone(), RATE)
    audio, _ = load_audio(tmp_path / "loud.wav")
    assert audio.max() > 0.99 and audio.min() < -0.99
    assert np.abs(np.diff(audio)).max() < 1.5


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.array([0.0, np.nan]), "1 NaN or infinite of 2"),
        (np.array([np.inf]), "NaN or infinite"),
        (np.zeros(0), "is empty"),
        (np.zeros((2, 8)), r"must be mono, of shape \(samples,\), got shape \(2, 8\)"),
    ],
)
def test_bad_audio_leaves_the_old_file(audio: np.ndarray, message: str, tmp_path: Path) -> None:
    path = save_audio(tmp_path / "kept.wav", tone(), RATE)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        save_audio(path, audio, RATE)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_failing_writer_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(soundfile, "write", fail)
    with pytest.raises(OSError, match="disk full"):
        save_audio(tmp_path / "tone.wav", tone(), RATE)
    assert list(tmp_path.iterdir()) == []


def test_bad_paths(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in one of .*got .*tone\.aiff"):
        save_audio(tmp_path / "tone.aiff", tone(), RATE)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        save_audio(tmp_path / "nowhere" / "tone.wav", tone(), RATE)
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(IsADirectoryError):
        save_audio(tmp_path / "folder.wav", tone(), RATE)


@pytest.mark.parametrize("rate", [0, -1, 22050.5, 10**9])
def test_bad_sampling_rate(rate: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`sampling_rate` must be a whole number"):
        save_audio(tmp_path / "tone.wav", tone(), rate)


def test_loading_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no audio file"):
        load_audio(tmp_path / "none.wav")
    (tmp_path / "text.wav").write_text("this is no audio")
    with pytest.raises(ValueError, match="cannot be read as audio"):
        load_audio(tmp_path / "text.wav")
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan], dtype=np.float32), RATE, subtype="FLOAT")
    with pytest.raises(ValueError, match="NaN"):
        load_audio(tmp_path / "nan.wav")


def test_stereo_is_averaged_or_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "stereo.wav", np.stack([tone(), np.zeros_like(tone())], axis=1), RATE)
    audio, _ = load_audio(tmp_path / "stereo.wav")
    np.testing.assert_allclose(audio, tone() / 2, atol=2 / 32768)
    with pytest.raises(ValueError, match="has 2 channels"):
        load_audio(tmp_path / "stereo.wav", mono=False)


def test_loading_resamples(tmp_path: Path) -> None:
    save_audio(tmp_path / "tone.wav", tone(rate=24000), 24000)
    audio, rate = load_audio(tmp_path / "tone.wav", sampling_rate=RATE)
    assert rate == RATE
    np.testing.assert_allclose(audio[500:-500], tone()[500:-500], atol=1e-3)


def test_resampling_keeps_a_tone() -> None:
    audio = resample(tone(rate=24000), 24000, 44100)
    assert audio.dtype == np.float32 and abs(len(audio) - 22050) <= 1
    np.testing.assert_allclose(audio[500:-500], tone(rate=44100)[500 : len(audio) - 500], atol=1e-3)
    samples = tone()
    assert resample(samples, RATE, RATE) is samples
    with pytest.raises(ValueError, match="`target` must be"):
        resample(samples, RATE, 0)


def test_pcm16() -> None:
    assert np.frombuffer(pcm16(np.array([0.0, 1.0, -1.0, 2.0])), "<i2").tolist() == [0, 32767, -32767, 32767]
    with pytest.raises(ValueError, match="NaN"):
        pcm16([float("nan")])


def test_integers_are_scaled() -> None:
    assert check_waveform(np.array([16384, -32768], dtype=np.int16)).tolist() == [0.5, -1.0]

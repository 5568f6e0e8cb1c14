"""What every speaking model promises: `generate`, `generate_stream`, the processor, and the Auto classes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoModelForTextToWaveform, AutoProcessor, GenerationConfig, PreTrainedModel, pipeline

from tts_models import SpeechChunk, SpeechOutput

from .comparing import assert_close
from .model_tester import SpeakingModelTester


STREAM_ATOL = 1e-4


def speak(tester: SpeakingModelTester, model: PreTrainedModel, texts: list[str], seeds: list[int]) -> SpeechOutput:
    """Generates speech for some texts, one seed each."""
    inputs = tester.processor()(text=texts, voice=tester.voice)
    return model.generate(**inputs, seed=seeds, **tester.generation_arguments)


def stream(
    tester: SpeakingModelTester, model: PreTrainedModel, texts: list[str], seeds: list[int]
) -> list[SpeechChunk]:
    """The same as [`speak`], in chunks."""
    inputs = tester.processor()(text=texts, voice=tester.voice)
    return list(model.generate_stream(**inputs, seed=seeds, **tester.generation_arguments))


def row_audio(output: SpeechOutput, row: int) -> torch.Tensor:
    """The valid samples of one row."""
    return output.audio[row, : int(output.audio_lengths[row])]


class SpeakingTests:
    """Mixin: inherit it and provide a `tester` fixture of speaking models."""

    def test_output_keeps_the_contract(self, tester: SpeakingModelTester) -> None:
        model = tester.model()
        output = speak(tester, model, [tester.text, tester.other_text], [0, 1])
        assert isinstance(output, SpeechOutput)
        assert output.audio.dtype == torch.float32 and output.audio.shape[0] == 2
        assert output.audio_lengths.dtype == torch.int64 and output.audio_lengths.shape == (2,)
        assert output.audio.shape[1] == output.audio_lengths.max() > 0
        for row in range(2):
            assert not output.audio[row, output.audio_lengths[row] :].any()
        assert output.audio.isfinite().all() and output.audio.abs().max() <= 1.0
        assert output.sampling_rate == tester.processor().sampling_rate
        assert set(output.finish_reason) <= {"stop", "length"} and len(output.finish_reason) == 2

    def test_seed_decides_the_speech(self, tester: SpeakingModelTester) -> None:
        model = tester.model()
        first, again, other = (speak(tester, model, [tester.text], [seed]) for seed in (3, 3, 4))
        assert torch.equal(first.audio, again.audio)
        assert not torch.equal(first.audio, other.audio)

    def test_global_seed_decides_without_one(self, tester: SpeakingModelTester) -> None:
        model, inputs = tester.model(), tester.processor()(text=[tester.text], voice=tester.voice)
        spoken = []
        for _ in range(2):
            torch.manual_seed(5)
            spoken.append(model.generate(**inputs, **tester.generation_arguments).audio)
        assert torch.equal(*spoken)

    def test_batch_equals_single_rows(self, tester: SpeakingModelTester) -> None:
        model, texts, seeds = tester.model(), [tester.text, tester.other_text, tester.text], [0, 1, 2]
        together = speak(tester, model, texts, seeds)
        for row, (text, seed) in enumerate(zip(texts, seeds, strict=True)):
            alone = speak(tester, model, [text], [seed])
            assert_close(row_audio(together, row), alone.audio[0], STREAM_ATOL, f"row {row}")
            assert together.finish_reason[row] == alone.finish_reason[0]

    def test_stream_equals_the_whole(self, tester: SpeakingModelTester) -> None:
        model, texts, seeds = tester.model(), [tester.text, tester.other_text, tester.text], [0, 1, 2]
        whole, chunks = speak(tester, model, texts, seeds), stream(tester, model, texts, seeds)
        assert len(chunks) > 1
        assert all(chunk.sampling_rate == whole.sampling_rate for chunk in chunks)
        for row in range(len(texts)):
            pieces = [chunk.audio[row, : int(chunk.audio_lengths[row])] for chunk in chunks]
            assert_close(torch.cat(pieces), row_audio(whole, row), STREAM_ATOL, f"row {row}")
        assert chunks[-1].finish_reason == whole.finish_reason

    def test_finished_row_yields_nothing_more(self, tester: SpeakingModelTester) -> None:
        finished = torch.zeros(3, dtype=torch.bool)
        chunks = stream(tester, tester.model(), [tester.text, tester.other_text, tester.text], [0, 1, 2])
        for chunk in chunks:
            assert not chunk.audio_lengths[finished].any()
            assert chunk.is_final[finished].all()
            assert chunk.audio.shape[1] == chunk.audio_lengths.max()
            finished = chunk.is_final
        assert finished.all()

    def test_first_chunk_is_not_the_largest(self, tester: SpeakingModelTester) -> None:
        chunks = stream(tester, tester.model(), [tester.text], [0])
        assert 0 < chunks[0].audio.shape[1] < max(chunk.audio.shape[1] for chunk in chunks)

    def test_stream_checks_its_arguments_before_the_first_chunk(self, tester: SpeakingModelTester) -> None:
        inputs = tester.processor()(text=[tester.text], voice=tester.voice)
        with pytest.raises(ValueError, match="seed"):
            tester.model().generate_stream(**inputs, seed=[1, 2, 3], **tester.generation_arguments)

    def test_abandoned_stream_leaves_the_model_usable(self, tester: SpeakingModelTester) -> None:
        model, inputs = tester.model(), tester.processor()(text=[tester.text], voice=tester.voice)
        expected = speak(tester, model, [tester.text], [0])
        chunks = model.generate_stream(**inputs, seed=1, **tester.generation_arguments)
        next(chunks)
        chunks.close()
        assert torch.equal(speak(tester, model, [tester.text], [0]).audio, expected.audio)

    def test_generation_config_equals_keywords(self, tester: SpeakingModelTester) -> None:
        model, inputs = tester.model(), tester.processor()(text=[tester.text], voice=tester.voice)
        by_keyword = model.generate(**inputs, seed=0, **tester.generation_arguments)
        config = GenerationConfig(**tester.generation_arguments)
        assert torch.equal(model.generate(**inputs, seed=0, generation_config=config).audio, by_keyword.audio)

    def test_generation_defaults_are_saved(self, tester: SpeakingModelTester, tmp_path: Path) -> None:
        model = tester.model()
        model.save_pretrained(tmp_path)
        saved = GenerationConfig.from_pretrained(tmp_path)
        assert saved.to_dict() == model.generation_config.to_dict()
        # A length limit of the family's own, so that a pipeline's placeholder never applies.
        assert saved.max_length or saved.max_new_tokens

    def test_bad_input_is_refused(self, tester: SpeakingModelTester) -> None:
        for name, (call, message) in tester.invalid_speech(tester.processor(), tester.model()).items():
            with pytest.raises(ValueError, match=message):
                call()
                pytest.fail(f"accepted: {name}")

    def test_processor_round_trip(self, tester: SpeakingModelTester, tmp_path: Path) -> None:
        processor = tester.processor()
        processor.save_pretrained(tmp_path)
        reloaded = type(processor).from_pretrained(tmp_path)
        assert reloaded.to_dict() == processor.to_dict()
        for one, other in zip(*_inputs_of(tester, processor, reloaded), strict=True):
            assert torch.equal(one, other)


def _inputs_of(tester: SpeakingModelTester, *processors: Any) -> list[list[torch.Tensor]]:
    texts = [tester.text, tester.other_text]
    return [list(processor(text=texts, voice=tester.voice).values()) for processor in processors]


class SpeakingFolderTests:
    """Mixin: the folder that `save_pretrained` writes speaks through the library's own entrances."""

    @pytest.fixture
    def folder(self, tester: SpeakingModelTester, tmp_path: Path) -> Path:
        """A saved model with its processor."""
        model = tester.model()
        model.generation_config.update(**tester.generation_arguments)
        model.save_pretrained(tmp_path)
        tester.processor().save_pretrained(tmp_path)
        return tmp_path

    def test_auto_classes_speak(self, tester: SpeakingModelTester, folder: Path) -> None:
        processor = AutoProcessor.from_pretrained(folder)
        model = AutoModelForTextToWaveform.from_pretrained(folder)
        assert type(processor) is type(tester.processor()) and type(model) is tester.model_class
        spoken = model.generate(**processor(text=[tester.text], voice=tester.voice), seed=0)
        expected = speak(tester, tester.model(), [tester.text], [0]).audio
        # Loaded weights can lie in memory differently, which changes the order of some sums.
        assert_close(spoken.audio, expected, 1e-6)

    def test_pipeline_speaks(self, tester: SpeakingModelTester, folder: Path) -> None:
        speaker = pipeline("text-to-speech", model=str(folder))
        torch.manual_seed(0)
        spoken = speaker(tester.text)
        assert spoken["sampling_rate"] == tester.processor().sampling_rate
        audio = np.asarray(spoken["audio"]).squeeze()
        assert audio.ndim == 1 and audio.size > 0 and np.isfinite(audio).all()

    def test_pipeline_speaks_several_texts(self, tester: SpeakingModelTester, folder: Path) -> None:
        speaker = pipeline("text-to-speech", model=str(folder))
        spoken = speaker([tester.text, tester.other_text])
        assert len(spoken) == 2 and all(np.asarray(row["audio"]).size for row in spoken)

    def test_pipeline_passes_generation_arguments(self, tester: SpeakingModelTester, folder: Path) -> None:
        speaker = pipeline("text-to-speech", model=str(folder))
        one, two = (speaker(tester.text, generate_kwargs={"seed": seed})["audio"] for seed in (0, 0))
        assert np.array_equal(one, two)

    def test_saved_audio_is_read_back(self, tester: SpeakingModelTester, tmp_path: Path) -> None:
        output = speak(tester, tester.model(), [tester.text, tester.other_text], [0, 1])
        files = [tmp_path / "one.wav", tmp_path / "two.flac"]
        tester.processor().save_audio(output, files)
        for row, file in enumerate(files):
            audio, sampling_rate = soundfile.read(file, dtype="float32")
            assert sampling_rate == output.sampling_rate
            assert_close(torch.from_numpy(audio), row_audio(output, row).clamp(-1, 1), 1e-4, file.name)

    def test_nothing_half_written_is_left(self, tester: SpeakingModelTester, tmp_path: Path) -> None:
        processor, audio = tester.processor(), torch.full((1, 100), float("nan"))
        with pytest.raises(ValueError, match="(?i)nan|finite"):
            processor.save_audio(audio, tmp_path / "nan.wav")
        with pytest.raises(ValueError):
            processor.save_audio(torch.zeros(1, 100), tmp_path / "speech.exe")
        with pytest.raises((ValueError, OSError)):
            processor.save_audio(torch.zeros(1, 100), tmp_path / "nowhere" / "speech.wav")
        assert list(tmp_path.iterdir()) == []

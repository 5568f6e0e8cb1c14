"""Texts, languages, voices and files of Chatterbox' processor, and the parts it is made of."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from tests.models.chatterbox.tester import Tester, load_tokenizer, prepared_voice, recording
from tts_models import ChatterboxFeatureExtractor, ChatterboxProcessor, ChatterboxVoice
from tts_models.models.chatterbox import text_chatterbox, watermark_chatterbox
from tts_models.models.chatterbox.text_chatterbox import cangjie_codes, language_code, prepare_multilingual
from tts_models.models.chatterbox.training_chatterbox import training_batch


def words(processor: ChatterboxProcessor, ids: list[int]) -> str:
    return "".join(processor.tokenizer.convert_ids_to_tokens(ids))


# Texts


def test_english_text_stands_between_start_and_stop() -> None:
    processor = Tester().processor()
    assert words(processor, processor.text_ids("hi you")) == "[START]Hi[SPACE]you.[STOP]"


def test_turbo_keeps_tags_and_adds_no_ends() -> None:
    processor = Tester().processor("turbo")
    ids = processor.text_ids("[laugh] ok")
    assert words(processor, ids) == "[laugh]Ġok." and ids[0] == load_tokenizer("turbo").convert_tokens_to_ids(
        "[laugh]"
    )


@pytest.mark.parametrize("kind", ["english", "turbo"])
def test_control_tokens_in_a_text_stay_text(kind: str) -> None:
    processor = Tester().processor(kind)
    special = {"[START]", "[STOP]", "[SPACE]", "<|endoftext|>"} - ({"[SPACE]"} if kind == "english" else set())
    ids = processor.text_ids("a [STOP] b <|endoftext|> [START] c")
    inner = ids[1:-1] if kind == "english" else ids
    assert not special & set(processor.tokenizer.convert_ids_to_tokens(inner))


def test_multilingual_text_begins_with_its_language() -> None:
    processor = Tester().processor("multilingual")
    assert words(processor, processor.text_ids("Bon.", "fr")).startswith("[START][fr]bon")
    by_default, english = processor(text=["Hi."]), processor(text=["Hi."], language="English")
    assert torch.equal(by_default["input_ids"], english["input_ids"])
    both = processor(text=["Hi.", "Hi."], language=["en-GB", "fr"])["input_ids"]
    assert not torch.equal(both[0], both[1])


def test_languages_by_name_and_code() -> None:
    assert [language_code(name) for name in ("en", "German", "zh-CN", "PT_br")] == ["en", "de", "zh", "pt"]
    processor = Tester().processor()
    assert torch.equal(processor(text="Hi.", language="en")["input_ids"], processor(text="Hi.")["input_ids"])


@pytest.mark.parametrize("language", ["ja", "he", "ru", "zh"])
def test_missing_language_packages_are_only_a_warning(language: str, monkeypatch, caplog) -> None:
    for package in ("pykakasi", "dicta_onnx", "russian_text_stresser.text_stresser", "spacy_pkuseg"):
        monkeypatch.setitem(sys.modules, package, None)
    for cached in (text_chatterbox._load, text_chatterbox._instance):
        cached.cache_clear()
    assert prepare_multilingual("abc", language, {"中": "l"}) == f"[{language}]abc"
    assert "is not installed" in caplog.text
    for cached in (text_chatterbox._load, text_chatterbox._instance):
        cached.cache_clear()


def test_japanese_reads_kanji_as_hiragana(monkeypatch) -> None:
    pieces = [{"orig": "今日", "hira": "きょう"}, {"orig": "カナ", "hira": "かな"}, {"orig": "葉", "hira": "は"}]
    converter = SimpleNamespace(convert=lambda text: pieces)
    monkeypatch.setattr(text_chatterbox, "_instance", lambda *names: converter)
    assert prepare_multilingual("今日カナ葉", "ja") == "[ja]きょうカナ は"


def test_chinese_becomes_cangjie_codes(monkeypatch) -> None:
    codes = cangjie_codes(["日\ta", "曰\ta", "明\tab"])
    assert codes == {"日": "a", "曰": "a1", "明": "ab"}
    monkeypatch.setattr(text_chatterbox, "_instance", lambda *names: SimpleNamespace(cut=lambda text: list(text)))
    assert prepare_multilingual("明曰x", "zh", codes) == "[zh][cj_a][cj_b][cj_.] [cj_a][cj_1][cj_.] x"


def test_long_texts_are_split_and_short_ones_kept() -> None:
    processor = Tester().processor()
    text = "This sentence has forty-two characters in it. " * 14
    inputs = processor(text=[text, "Short."])
    assert inputs["part_counts"].tolist() == [3, 1]
    assert processor(text=text, split_long_text=False)["part_counts"].tolist() == [1]


# Voices


def test_voice_survives_its_file(tmp_path: Path) -> None:
    voice = prepared_voice()
    voice.save(tmp_path / "voice.safetensors")
    loaded = ChatterboxVoice.load(tmp_path / "voice.safetensors")
    assert all(torch.equal(value, loaded.tensors()[name]) for name, value in voice.tensors().items())
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(ValueError, match="safetensors"):
        ChatterboxVoice.load(tmp_path / "text.safetensors")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ChatterboxVoice.load(tmp_path / "nowhere.safetensors")
    with pytest.raises(ValueError, match="speaker_embedding"):
        ChatterboxVoice(**voice.tensors() | {"speaker_embedding": torch.zeros(1, 8)})


def test_stereo_files_are_averaged(tmp_path: Path) -> None:
    mono = recording(0.5, 48000)
    soundfile.write(tmp_path / "stereo.wav", np.stack([mono * 1.5, mono * 0.5], 1), 48000, subtype="FLOAT")
    processor = Tester().processor()
    from_file = processor(text="Hi.", voice=tmp_path / "stereo.wav")
    from_array = processor(text="Hi.", voice=(mono, 48000))
    assert set(from_file) == set(from_array)
    for name, value in from_array.items():
        assert torch.allclose(from_file[name].float(), value.float(), atol=1e-4), name


def test_recording_is_cut_for_each_of_its_readers() -> None:
    inputs = Tester().processor()(text="Hi.", voice=(recording(12.0), 24000))
    assert inputs["voice_values"].shape == (1, 240_000) and inputs["prompt_values"].shape == (1, 8_000)
    assert inputs["voice_features"].shape[1] == 1201


def test_turbo_brings_recordings_to_one_loudness() -> None:
    processor = Tester().processor("turbo")
    quiet, loud = (processor(text="Hi.", voice=(scale * recording(6.0), 24000))["voice_values"] for scale in (0.1, 1))
    assert torch.allclose(quiet, loud, atol=1e-4)


def test_voices_of_different_kinds_share_a_batch() -> None:
    processor = Tester().processor()
    inputs = processor(
        text=["Hi."] * 3, voice=[prepared_voice(0, 9, 7), (recording(), 24000), prepared_voice(1, 4, 3)]
    )
    assert inputs["voice_values_mask"].any(1).tolist() == [False, True, False]
    assert inputs["speaker_embeddings"].any(1).tolist() == [True, False, True]
    assert inputs["prompt_tokens"].ge(0).sum(1).tolist() == [9, 0, 4]
    assert inputs["reference_features_mask"].sum(1).tolist() == [14, 0, 6]


def test_folder_keeps_voice_and_table(tmp_path: Path) -> None:
    processor = Tester().processor("multilingual")
    processor.cangjie_table = ["日\ta"]
    processor.save_pretrained(tmp_path)
    loaded = ChatterboxProcessor.from_pretrained(tmp_path)
    assert loaded.cangjie == {"日": "a"} and loaded.default_voice is not None


# Features


def test_features_are_of_the_voice_alone() -> None:
    extractor, voice = ChatterboxFeatureExtractor(), recording(1.0, 16000)
    padded = np.concatenate([np.zeros(8000, np.float32), voice, np.zeros(8000, np.float32)])
    start, end = extractor.trim_bounds(torch.from_numpy(padded))
    assert 8000 - 2048 <= start <= 8000 and 24000 <= end <= 24000 + 2048
    features = extractor([padded, voice], sampling_rate=16000)
    assert features["input_features"].shape[2] == 40 and features["attention_mask"].sum(1)[1] == 101
    with pytest.raises(ValueError, match="16000"):
        extractor(voice, sampling_rate=24000)
    with pytest.raises(ValueError, match="return_tensors"):
        extractor(voice, return_tensors="np")
    with pytest.raises(ValueError, match="at least"):
        extractor(voice[:100])


def test_encoder_does_not_see_padding() -> None:
    encoder, extractor = Tester().model().voice_encoder, ChatterboxFeatureExtractor()
    recordings = [recording(seconds, 16000, seed) for seed, seconds in enumerate((0.4, 3.1, 1.7))]
    together = encoder(**extractor(recordings)).speaker_embeddings
    alone = torch.cat([encoder(**extractor(each)).speaker_embeddings for each in recordings])
    assert torch.allclose(together, alone, atol=1e-6)
    assert torch.allclose(together.norm(dim=1), torch.ones(3))


# Watermark


@pytest.fixture
def perth(monkeypatch):
    """A stand-in for the package: its mark turns the sound around."""
    marker = SimpleNamespace(apply_watermark=lambda samples, sample_rate: -samples)
    monkeypatch.setitem(sys.modules, "perth", SimpleNamespace(PerthImplicitWatermarker=lambda: marker))
    watermark_chatterbox.load_watermarker.cache_clear()
    yield
    watermark_chatterbox.load_watermarker.cache_clear()


def test_files_are_marked_where_the_package_is_installed(perth, tmp_path: Path) -> None:
    sound = recording(0.1)
    for watermark, sign in ((True, -1), (False, 1)):
        Tester().processor(watermark=watermark).save_audio(sound, tmp_path / "speech.wav")
        saved, rate = soundfile.read(tmp_path / "speech.wav", dtype="float32")
        assert rate == 24000 and np.allclose(saved, sign * sound, atol=1e-4)


@pytest.mark.parametrize("package", [None, SimpleNamespace(PerthImplicitWatermarker=None)])
def test_files_are_written_without_the_package(package, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "perth", package)
    watermark_chatterbox.load_watermarker.cache_clear()
    sound = recording(0.1)
    assert Tester().processor().finish_audio(sound, 24000) is sound
    watermark_chatterbox.load_watermarker.cache_clear()


# Training batches


def test_training_batch_is_what_generation_reads() -> None:
    config, voices = Tester().config().t3_config, [prepared_voice(0), prepared_voice(1, 4)]
    batch = training_batch(
        config, [[4, 20, 0], [4, 21, 22, 23, 0]], [torch.tensor([7, 8, 9]), torch.tensor([5])], voices
    )
    assert batch["speech_ids"].tolist() == [[6561, 7, 8, 9, 6562], [6561, 5, 6562, 0, 0]]
    assert batch["labels"].tolist() == [[6561, 7, 8, 9, 6562], [6561, 5, 6562, -100, -100]]
    assert batch["text_labels"][0].tolist() == [4, 20, 0, -100, -100]
    assert batch["prompt_tokens"].ge(0).sum(1).tolist() == [9, 4] and not batch["drop_text"].any()
    model = Tester().model()
    output = model(**batch)
    assert torch.allclose(output.loss, output.speech_loss + output.text_loss)
    dropped = training_batch(config, [[4, 20, 0]], [torch.tensor([7])], voices[:1], text_dropout=1.0)
    assert dropped["drop_text"].all() and dropped["text_labels"].eq(-100).all()
    for wrong, message in (([torch.tensor([6561])], "ids in"), ([torch.zeros(0).long()], "1-D"), ([], "one entry")):
        with pytest.raises(ValueError, match=message):
            training_batch(config, [[4, 20, 0]], wrong, voices[:1])

"""Texts, phones, voices and files of MegaTTS3's processor, and the parts it is made of."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.models.megatts3.tester import LATENT_DIM, RATE, Tester, latents_for, prepared_voice, recording
from tts_models import MegaTTS3FeatureExtractor, MegaTTS3Processor, MegaTTS3Voice
from tts_models.models.megatts3.durations_megatts3 import apply_duration_rules, fit_durations, read_alignment
from tts_models.models.megatts3.phones_megatts3 import PhoneTable
from tts_models.models.megatts3.text_megatts3 import chunk_chinese, language_code, split_parts
from tts_models.text import normalization


@pytest.fixture
def plain_rules(monkeypatch):
    """As if no rules were installed."""
    monkeypatch.setattr(normalization, "_original_normalizer", lambda language: None)
    monkeypatch.setattr(normalization, "_wetext_normalizer", lambda *options: None)
    normalization._warn_of_plain_rules.cache_clear()


def spelled(processor: MegaTTS3Processor, ids: torch.Tensor) -> str:
    return processor.tokenizer.decode(ids, skip_special_tokens=False)


# Texts


def test_language_is_a_rule_and_not_a_guess() -> None:
    texts = {"Hi.": "en", "你好": "zh", "Say 你好 to him.": "zh", "10²": "en", "": "en"}
    assert {text: language_code(None, text) for text in texts} == texts
    assert [language_code(name, "Hi.") for name in ("zh-CN", "English", "EN_us", "Mandarin")] == [
        "zh",
        "en",
        "en",
        "zh",
    ]


def test_prompt_stands_between_its_marks() -> None:
    processor = Tester().processor()
    ids = processor(text="Hello there.")["input_ids"][0]
    assert spelled(processor, ids) == "<BOT>Hello there.<BOS><Reserved_TTS_145>"


def test_control_tokens_in_a_text_stay_text() -> None:
    processor = Tester().processor(normalize=False)
    ids = processor(text="Say <BOT> and <Reserved_TTS_801> twice.")["input_ids"][0].tolist()
    special = [token for token in ids if token >= 256]
    assert special == processor.tokenizer.convert_tokens_to_ids(["<BOT>", "<BOS>", "<Reserved_TTS_145>"])


def test_mixed_languages_are_one_text(plain_rules) -> None:
    processor = Tester().processor()
    assert processor.split("我们用GPT做TTS，真的很cool！") == ["我们用GPT做TTS，真的很cool！"]
    assert processor.split("We say 你好 here.", "en") == ["We say 你好 here."]


def test_digits_are_spoken_without_the_rules(plain_rules, caplog) -> None:
    processor = Tester().processor()
    assert processor.split("It cost $3.50 for 21.") == ["It cost three point five zero dollars for twenty-one."]
    assert processor.split("他今年25岁,涨了3.5%") == ["他今年二十五岁，涨了百分之三点五"]
    assert "wetext" in caplog.text and "dates" in caplog.text
    assert Tester().processor(normalize=False).split("Room 25.") == ["Room 25."]


def test_digits_are_spoken_by_the_rules() -> None:
    pytest.importorskip("wetext")
    processor = Tester().processor()
    assert processor.split("2024年10月1日，价格是￥3.5元。") == ["二零二四年十月一日，价格是￥三点五元。"]
    assert processor.split("On Jan 5, 2024 I paid $3.50.")[0].startswith(
        "On the fifth of january , twenty twenty four"
    )


def test_empty_segments_are_left_out() -> None:
    assert split_parts("Hello. ... ! ? Goodbye.", "en") == ["Hello. ... ! ? Goodbye."]
    marks = "。" * 200
    assert split_parts(f"{'好' * 60}。{marks}{'好' * 60}。", "zh") == [f"{'好' * 60}。", f"{marks}{'好' * 60}。"]
    assert split_parts(f"{'a' * 129}. {'! ' * 100} b", "en")[-1].endswith("b")


@pytest.mark.parametrize(
    "text", ["word " * 2000, "x" * 10_000, "好" * 10_000, "你好，世界。Hello! " * 650, "Well, this is it. " * 555]
)
def test_ten_thousand_characters_become_parts(monkeypatch, text: str) -> None:
    # Upstream's own rules take ten seconds for as much; what is tested here comes after them.
    monkeypatch.setattr(normalization, "_original_normalizer", lambda language: None)
    processor = Tester().processor()
    parts = processor.split(text[:10_000])
    assert len(parts) > 20 and max(map(len, parts)) <= 400
    letters = [character for character in text[:10_000] if character.isalnum()]
    assert [character for part in parts for character in part if character.isalnum()] == letters


def test_long_texts_are_split_and_short_ones_kept() -> None:
    tester = Tester()
    inputs = tester.processor()(text=[tester.text, tester.other_text, "Short."])
    assert inputs["part_counts"].tolist() == [2, 3, 1] and len(inputs["input_ids"]) == 6


def test_flashtts_splitter_counts_tokens() -> None:
    processor = Tester().processor()
    inputs = processor(text="One two. Three four. Five.", splitter="flashtts", window_size=20, length_threshold=10)
    assert inputs["part_counts"].tolist() == [2]
    words = processor(
        text="One two three", splitter="flashtts", window_size=8, length_threshold=5, split=lambda text: text.split()
    )
    assert words["part_counts"].tolist() == [2]


def test_chinese_is_cut_at_the_best_mark() -> None:
    assert chunk_chinese("一二三四，五六七八。九十", limit=6, look_ahead=4) == ["一二三四，五六七八。", "九十"]
    assert chunk_chinese("一二。三四五，六七八九十", limit=6, look_ahead=2) == ["一二。", "三四五，", "六七八九十"]
    assert chunk_chinese("一二三四五六", limit=3) == ["一二三", "四五六"] and chunk_chinese("") == []


# Phones


def test_phones_are_read_and_written() -> None:
    table, written = PhoneTable(), "sil C0n/3 C0i/5 E0hh E0ay 。"
    phones, tones = table.read(written)
    assert phones.tolist() == [145, 57, 28, 118, 107, 148] and tones.tolist() == [3, 12, 14, 3, 3, 3]
    assert table.write(phones, tones) == written
    inputs = Tester().processor()(phones=["E0hh E0ay", ["sil C0n/3", "C0i/3 。"]])
    assert inputs["part_counts"].tolist() == [1, 2]
    assert inputs["phone_ids"].tolist() == [[145, 118, 107], [145, 57, 0], [145, 28, 148]]


def test_phone_table_is_a_file_of_the_folder(tmp_path: Path) -> None:
    processor = Tester().processor()
    processor.phone_table = PhoneTable(phones=(*PhoneTable().phones[:-1], "another"))
    processor.save_pretrained(tmp_path)
    loaded = MegaTTS3Processor.from_pretrained(tmp_path)
    assert loaded.phone_table == processor.phone_table and "another" in loaded.phone_table.phone_ids
    (tmp_path / "phones.json").write_text('{"phone": 3}')
    with pytest.raises(ValueError, match="phone"):
        PhoneTable.load(tmp_path / "phones.json")
    with pytest.raises(ValueError, match="twice"):
        PhoneTable(phones=("sil", "sil"))


# Durations


def test_alignments_that_upstream_breaks_at_are_read() -> None:
    phones, _, durations = read_alignment([118, 810, 107, 830, 120], 40)
    assert phones.tolist() == [118, 107] and durations.tolist() == [10, 30]
    assert all(not len(part) for part in read_alignment([], 40))
    assert fit_durations([1, 30, 0, 9], 24) == [0, 22, 0, 2]
    phones, _, durations = read_alignment([118, 830, 107, 810, 799, 815, 5000, 820], 16)
    assert phones.tolist() == [118, 107] and durations.sum() == 16 and durations.min() >= 0


def test_durations_are_multiples_and_slower_by_the_factor() -> None:
    tokens, phones = torch.tensor([5, 20, 30, 200]), torch.tensor([145, 118, 163, 107])
    plain = apply_duration_rules(tokens, phones, is_first=True, is_final=True)
    slow = apply_duration_rules(tokens, phones, is_first=True, is_final=True, speed_factor=1.5)
    assert plain.tolist() == [8, 19, 32, 133] and slow[1] == 28 and plain.sum() % 8 == slow.sum() % 8 == 0


# Voices


def test_voice_survives_its_file(tmp_path: Path) -> None:
    voice = prepared_voice()
    voice.save(tmp_path / "voice.safetensors")
    loaded = MegaTTS3Voice.load(tmp_path / "voice.safetensors")
    assert all(torch.equal(value, loaded.tensors()[name]) for name, value in voice.tensors().items())
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(ValueError, match="safetensors"):
        MegaTTS3Voice.load(tmp_path / "text.safetensors")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        MegaTTS3Voice.load(tmp_path / "nowhere.safetensors")
    for wrong in (
        {"latents": torch.zeros(8)},
        {"tone_ids": torch.zeros(3).long()},
        {"durations": torch.ones(4).long()},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            MegaTTS3Voice(**voice.tensors() | wrong)


def test_pairs_can_be_given_in_every_form(tmp_path: Path) -> None:
    sound, latents = recording(1.0, 44100), latents_for(1.0)
    soundfile.write(tmp_path / "voice.wav", sound, 44100, subtype="FLOAT")
    np.save(tmp_path / "voice.npy", latents)
    processor = Tester().processor()
    wav, npy = tmp_path / "voice.wav", tmp_path / "voice.npy"
    forms = [
        (wav, npy),
        (str(wav), str(npy)),
        f"{wav},{npy}",
        ((sound, 44100), latents),
        (wav, latents[0].astype(np.float64)),
        (wav, torch.from_numpy(latents)),
    ]
    first, *others = (processor(text="Hi.", voice=form) for form in forms)
    assert first["voice_latents"].shape == (1, first["voice_frames"][0] // 4, LATENT_DIM)
    for other in others:
        assert all(torch.allclose(first[name].float(), other[name].float(), atol=1e-5) for name in first)


def test_files_that_are_no_latents_are_refused(tmp_path: Path) -> None:
    processor, sound = Tester().processor(), (recording(), RATE)
    np.save(tmp_path / "pickle.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no numbers")
    (tmp_path / "empty.npy").write_bytes(b"")
    with open(tmp_path / "archive.npy", "wb") as file:
        np.savez(file, latents=latents_for(1.0))
    np.save(tmp_path / "whole.npy", latents_for(1.0))
    content = (tmp_path / "whole.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(content[: len(content) // 2])
    for name in ("pickle", "text", "empty", "archive", "cut"):
        with pytest.raises(ValueError, match=f"{name}.npy"):
            processor(text="Hi.", voice=(sound, tmp_path / f"{name}.npy"))


def test_longer_latents_are_cut_and_shorter_ones_refused() -> None:
    processor, sound = Tester().processor(), (recording(), RATE)
    exact = processor(text="Hi.", voice=(sound, latents_for(1.0)))["voice_latents"]
    longer = processor(text="Hi.", voice=(sound, latents_for(2.0)))["voice_latents"]
    assert longer.shape == exact.shape == (1, 38, LATENT_DIM)
    with pytest.raises(ValueError, match="needs 38"):
        processor(text="Hi.", voice=(sound, latents_for(1.0)[:, :37]))


def test_voices_of_different_kinds_share_a_batch() -> None:
    processor = Tester().processor()
    sound = (recording(), RATE)
    inputs = processor(
        text=["Hi."] * 4, voice=[prepared_voice(0, 3), (sound, latents_for(1.0)), sound, prepared_voice()]
    )
    assert inputs["voice_frames"].tolist() == [0, 152, 152, 0]
    assert inputs["voice_samples"].gt(0).tolist() == [False, False, True, False]
    assert inputs["prompt_phones"].gt(0).sum(1).tolist() == [3, 0, 0, 4]


def test_folder_keeps_the_default_voice(tmp_path: Path) -> None:
    processor = Tester().processor()
    processor.save_pretrained(tmp_path)
    loaded = MegaTTS3Processor.from_pretrained(tmp_path)
    assert torch.equal(loaded.default_voice.latents, processor.default_voice.latents)


# Features


def test_reference_is_padded_as_upstream_pads_it() -> None:
    extractor = MegaTTS3FeatureExtractor()
    for samples, padded in ((24000, 25199 + 12000 - 1200 + 1200), (1199, 13199), (1198, 13199), (1200, 14399)):
        assert len(extractor.pad_reference(np.ones(samples, np.float32))) == padded
    features = extractor(recording(1.0, 16000), sampling_rate=16000)
    assert features["input_features"].shape == (1, 96, 80)
    with pytest.raises(ValueError, match="at least"):
        extractor(np.ones(1000, np.float32))

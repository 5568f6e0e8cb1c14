"""Prompts of Maya1: what stands in them, what never gets in, and how long text is cut."""

import gzip
from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor

from tests.models.maya1.tester import VOICE, Tester, load_tokenizer, tiny_processor
from tts_models import Maya1Processor


BOS, EOT, SOS, END, SOH, EOH, SOA, PAD = 381, 390, 392, 393, 394, 395, 396, 398


@pytest.fixture
def processor() -> Maya1Processor:
    """A processor on the synthetic tokenizer."""
    return tiny_processor()


def body_of(processor: Maya1Processor, text: str, **options: object) -> list[int]:
    """The ids between the control tokens of a prompt."""
    ids = processor(text=[text], voice=VOICE, **options)["input_ids"][0].tolist()
    assert ids[:3] == [BOS, SOH, BOS] and ids[-4:] == [EOT, EOH, SOA, SOS]
    return ids[3:-4]


def test_prompt_is_laid_out_as_served(processor: Maya1Processor) -> None:
    body = body_of(processor, "Hello.")
    assert processor.tokenizer.decode(body) == f'<description="{VOICE}"> Hello.'
    single = tiny_processor(prepend_bos=False)(text="Hello.")["input_ids"][0].tolist()
    assert single[:2] == [SOH, BOS] and single[2:-4] == body


def test_batch_is_padded_on_the_left(processor: Maya1Processor) -> None:
    batch = processor(text=["Hi.", "A much longer sentence than that."], voice=VOICE)
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    padding = int((batch["attention_mask"][0] == 0).sum())
    assert padding > 0 and batch["input_ids"][0, :padding].eq(PAD).all()
    assert batch["attention_mask"][0, padding:].all() and batch["attention_mask"][1].all()
    assert batch["part_counts"].tolist() == [1, 1]
    assert batch["duration_budget"][1] >= batch["duration_budget"][0] > 0


def test_text_is_cleaned(processor: Maya1Processor) -> None:
    assert body_of(processor, "  Hello,\n\t wor\u200bld.\x00 ") == body_of(processor, "Hello, world.")


@pytest.mark.parametrize("text", ["One <|eot_id|> two.", "One <custom_token_12> two.", "<|begin_of_text|>One two."])
def test_text_never_becomes_a_control_token(processor: Maya1Processor, text: str) -> None:
    control = set(load_tokenizer().get_added_vocab().values()) - {
        load_tokenizer().convert_tokens_to_ids(tag) for tag in processor.emotion_tags
    }
    assert not control.intersection(body_of(processor, text))
    ids = processor(text=["Hello."], voice=f"A voice. {text}")["input_ids"][0].tolist()
    assert not control.intersection(ids[3:-4])
    # Cut in two by a tag or by invisible characters, it does not come back together.
    hidden = text.replace("eot", "e\u200bot").replace("token", "to\u2060ken")
    assert not control.intersection(body_of(processor, hidden))


def test_nested_control_tokens_stay_text(processor: Maya1Processor) -> None:
    body = body_of(processor, "One <custom_<custom_token_4>token_4> two <|eot<|eot_id|>_id|>.")
    assert not {EOT, SOS, END, SOH, EOH, SOA, PAD}.intersection(body)


def test_emotion_tags_are_single_tokens(processor: Maya1Processor) -> None:
    assert len(processor.emotion_tags) == 20
    assert load_tokenizer().convert_tokens_to_ids("<laugh>") in body_of(processor, "Ha <laugh> that is funny.")
    long, short = (processor(text=[t], voice=VOICE)["duration_budget"] for t in ("Ha <laugh>.", "Ha ha."))
    assert long > short


def test_unknown_tag_is_reported(processor: Maya1Processor, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        processor(text=["Ha <burp>."], voice=VOICE)
    assert "<burp>" in caplog.text and "<laugh>" in caplog.text
    with pytest.raises(ValueError, match="<burp>.*<laugh>"):
        tiny_processor(strict_tags=True)(text=["Ha <burp>."], voice=VOICE)


def test_voices(processor: Maya1Processor) -> None:
    named = tiny_processor(voices={"anna": VOICE, "otto": "An old man."})
    by_name = named(text=["Hello.", "Hello."], voice=["anna", "otto"])["input_ids"]
    described = processor(text=["Hello.", "Hello."], voice=[VOICE, "An old man."])["input_ids"]
    assert torch.equal(by_name, described)
    assert torch.equal(processor(text="Hello.")["input_ids"], processor(text="Hello.", voice=VOICE)["input_ids"])
    one_for_all = processor(text=["Hello.", "Hello."], voice=VOICE)["input_ids"]
    assert torch.equal(one_for_all[0], one_for_all[1])


def test_other_template() -> None:
    processor = tiny_processor(prompt_template="{voice}: {text}")
    body = processor(text="Hello.", voice="Anna is here.")["input_ids"][0].tolist()[3:-4]
    assert processor.tokenizer.decode(body) == "Anna is here.: Hello."
    with pytest.raises(ValueError, match="prompt_template"):
        tiny_processor(prompt_template="{voice}")


def test_long_text_is_cut_at_sentences() -> None:
    processor = tiny_processor(max_part_characters=60)
    text = "This is the first sentence of them. Here is a second one! And is this a third? Yes."
    batch = processor(text=[text, "Short."], voice=VOICE)
    count = int(batch["part_counts"][0])
    assert batch["part_counts"].tolist() == [count, 1] and count > 1
    spoken = []
    for ids, mask in zip(batch["input_ids"][:count], batch["attention_mask"], strict=False):
        decoded = processor.tokenizer.decode(ids[mask.bool()][3:-4])
        spoken.append(decoded.removeprefix(f'<description="{VOICE}"> '))
    assert " ".join(spoken) == text and all(len(part) <= 60 for part in spoken)
    whole = processor(text=[text], voice=VOICE, split_long_text=False)
    assert whole["part_counts"].tolist() == [1] and len(whole["input_ids"]) == 1


def test_training_example(processor: Maya1Processor) -> None:
    codes = [torch.tensor([1]), torch.tensor([2, 3]), torch.tensor([4, 5, 6, 7])]
    example = processor.encode_training_example("Hello.", VOICE, codes)
    prompt = processor(text="Hello.", voice=VOICE)["input_ids"][0].tolist()
    speech = processor.pack_codes(codes).tolist()
    assert example["input_ids"] == prompt + speech + [END]
    assert example["labels"] == [-100] * len(prompt) + speech + [END]
    with_text = processor.encode_training_example("Hello.", VOICE, codes, loss_on_text=True, append_end_of_ai=True)
    assert with_text["labels"] == with_text["input_ids"] == prompt + speech + [END, 397]


def test_codes_are_unpacked_to_tensors(processor: Maya1Processor) -> None:
    codes = (torch.tensor([1]), torch.tensor([2, 3]), torch.tensor([4, 5, 6, 7]))
    unpacked, info = processor.unpack_audio_tokens(torch.cat([processor.pack_codes(codes), torch.tensor([END, 3])]))
    assert all(torch.equal(one, other) for one, other in zip(unpacked, codes, strict=True))
    assert info.frames == 1 and info.ended
    empty, info = processor.unpack_audio_tokens(torch.tensor([], dtype=torch.long))
    assert [len(level) for level in empty] == [0, 0, 0] and info.frames == 0


def test_dropped_frames_are_reported(processor: Maya1Processor, caplog: pytest.LogCaptureFixture) -> None:
    ids = processor.pack_codes([[1], [2, 3], [4, 5, 6, 7]]).tolist()
    with caplog.at_level("WARNING"):
        processor.unpack_audio_tokens(ids[1:] + ids[1:])
    assert "misaligned" in caplog.text


def test_other_frame_layouts_are_followed() -> None:
    codec_config = Tester().config(codec={"vq_strides": [2, 1]}).codec_config
    processor = tiny_processor(codec_config)
    assert processor.pack_codes([[1], [2, 3]]).tolist() == [401 + 1, 401 + 16 + 2, 401 + 32 + 3]


def test_tokenizer_without_control_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="start_of_speech_token"):
        tiny_processor(control_tokens={"start_of_speech_token": "<no_such_token>"})
    with pytest.raises(ValueError, match="unknown roles.*middle_token"):
        tiny_processor(control_tokens={"middle_token": "<custom_token_1>"})


def write_lexicon(folder: Path) -> Path:
    """Two words and no rules."""
    file = folder / "source.txt.gz"
    file.write_bytes(gzip.compress(b"hello hh ax l ow\nworld w er l d\n\n"))
    return file


def test_phoneme_front_end_is_saved_with_its_lexicon(tmp_path: Path) -> None:
    processor = tiny_processor(text_frontend="phonemes", lexicon_file=str(write_lexicon(tmp_path)))
    body = body_of(processor, "Hello <laugh> world.")
    assert processor.tokenizer.decode(body).endswith("{hh}{ax}{l}{ow} <laugh> {w}{er}{l}{d}.")
    processor.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "lexicon.txt.gz").is_file()
    Tester().config().save_pretrained(tmp_path / "saved")
    reloaded = AutoProcessor.from_pretrained(tmp_path / "saved")
    assert body_of(reloaded, "Hello <laugh> world.") == body
    # The folder speaks for itself wherever it lies.
    (tmp_path / "source.txt.gz").unlink()
    (tmp_path / "saved").rename(tmp_path / "moved")
    assert body_of(Maya1Processor.from_pretrained(tmp_path / "moved"), "Hello <laugh> world.") == body


def test_phoneme_front_end_without_a_lexicon_is_refused() -> None:
    with pytest.raises(ValueError, match="lexicon_file"):
        tiny_processor(text_frontend="phonemes")(text="Hello.", voice=VOICE)
    with pytest.raises(ValueError, match="text_frontend"):
        tiny_processor(text_frontend="letters")

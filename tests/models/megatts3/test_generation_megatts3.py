"""Speaking with MegaTTS3: parts, voices, phones, and the parameters of `generate`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.megatts3.tester import RATE, Tester, latents_for, prepared_voice, recording
from tts_models import MegaTTS3ForConditionalGeneration
from tts_models.models.megatts3.g2p_megatts3 import write_phones


FAST = {"num_inference_steps": 1, "max_new_tokens": 5}


@pytest.fixture(scope="module")
def model() -> MegaTTS3ForConditionalGeneration:
    return Tester().model()


@pytest.fixture(scope="module")
def processor():
    return Tester().processor()


def speak(model: MegaTTS3ForConditionalGeneration, inputs: Any, **options: Any) -> Any:
    return model.generate(**inputs, **FAST | {"seed": 0} | options)


def test_speech_says_what_was_spoken(model, processor) -> None:
    output = speak(model, processor(text=["One.", Tester.text]))
    assert [len(parts) for parts in output.phone_ids] == [1, 2]
    frames = [sum(int(part.sum()) for part in parts) for parts in output.durations]
    fades = [3840 * (len(parts) - 1) for parts in output.durations]
    assert output.audio_lengths.tolist() == [240 * f - fade for f, fade in zip(frames, fades, strict=True)]
    assert [len(code) for code in output.audio_codes[1]] == [int(part.sum()) // 4 for part in output.durations[1]]


def test_spoken_phones_can_be_spoken_again(model, processor) -> None:
    first = speak(model, processor(text=Tester.text))
    written = [processor.phone_table.write(*part) for part in zip(first.phone_ids[0], first.tone_ids[0], strict=True)]
    again = speak(model, processor(phones=[written]))
    assert torch.equal(first.audio, again.audio)


def test_voices_of_different_kinds_and_lengths_speak_as_alone(model, processor) -> None:
    sound = (recording(), RATE)
    voices = [prepared_voice(0, 3), (sound, latents_for(1.0)), sound, prepared_voice(1, 6)]
    texts = ["One.", "Two words.", Tester.text, "Four."]
    together = speak(model, processor(text=texts, voice=voices), seed=[0, 1, 2, 3])
    for row, (text, voice) in enumerate(zip(texts, voices, strict=True)):
        alone = speak(model, processor(text=text, voice=voice), seed=row)
        assert torch.allclose(together.audio[row, : together.audio_lengths[row]], alone.audio[0], atol=1e-5)


@pytest.mark.parametrize("options", [{"parts_per_batch": 1}, {"sequential_guidance": True}, {"time_step": 1}])
def test_ways_of_computing_do_not_matter(options, model, processor) -> None:
    inputs = processor(text=[Tester.text, "Short."])
    assert torch.allclose(speak(model, inputs).audio, speak(model, inputs, **options).audio, atol=1e-5)


def test_shared_recording_is_prepared_once(model, processor, monkeypatch) -> None:
    calls, align = [], model.aligner.align
    monkeypatch.setattr(model.aligner, "align", lambda *given: calls.append(1) or align(*given))
    sound = ((recording(), RATE), latents_for(1.0))
    speak(model, processor(text=["One."] * 3, voice=[sound, sound, ((recording(), RATE), latents_for(1.0))]))
    assert len(calls) == 1


def test_prepared_voice_speaks_as_its_recording(model, processor, tmp_path: Path) -> None:
    pair = ((recording(), RATE), latents_for(1.0))
    processor.prepare_voice(model, pair).save(tmp_path / "voice.safetensors")
    by_file = speak(model, processor(text="One.", voice=tmp_path / "voice.safetensors"))
    assert torch.equal(by_file.audio, speak(model, processor(text="One.", voice=pair)).audio)


def test_recording_alone_needs_the_encoder(model, processor) -> None:
    sound = (recording(), RATE)
    with_encoder = processor.prepare_voice(model, sound)
    assert with_encoder.latents.shape == (38, 8)
    decoder_only = Tester().model(vae_config={"has_encoder": False})
    with pytest.raises(ValueError, match=r"alone.*no WaveVAE encoder.*\.npy"):
        speak(decoder_only, processor(text="One.", voice=sound))
    assert speak(decoder_only, processor(text="One.", voice=(sound, latents_for(1.0)))).audio.any()


def test_reference_without_speech_is_refused(processor) -> None:
    deaf = Tester().model()
    pair = ((recording(), RATE), latents_for(1.0))
    bias = deaf.aligner.get_output_embeddings().bias.data
    for token in (799, 145, 148):
        bias[token] += 100.0
        with pytest.raises(ValueError, match="no speech"):
            processor.prepare_voice(deaf, pair)
        bias[token] -= 100.0


def test_durations_are_disturbed_only_if_asked(model, processor) -> None:
    inputs = processor(phones="sil E0hh E0ay E0w E0er E0l E0d")

    def durations(**options: Any) -> list[int]:
        return speak(model, inputs, **options).durations[0][0].tolist()

    plain = durations(dur_disturb=0.0)
    assert plain == durations(dur_disturb=0.0, seed=1)
    assert durations(dur_disturb=1.0) != plain and durations(dur_disturb=1.0) != durations(dur_disturb=1.0, seed=1)
    slow, fast = (sum(durations(dur_disturb=0.0, dur_alpha=factor)) for factor in (2.0, 0.5))
    assert slow > sum(plain) >= fast


def test_guidance_and_steps_change_the_sound(model, processor) -> None:
    inputs = processor(text="One.")
    plain = speak(model, inputs, dur_disturb=0.0).audio
    for options, least in (({"p_w": 3.0}, 1e-2), ({"t_w": 5.0}, 1e-5), ({"num_inference_steps": 3}, 1e-2)):
        other = speak(model, inputs, dur_disturb=0.0, **options).audio
        assert other.shape == plain.shape and (other - plain).abs().max() > least


def test_speech_is_as_loud_as_the_reference(model, processor) -> None:
    from tts_models.audio.loudness import integrated_loudness

    quiet, loud = (replace(prepared_voice(), loudness=torch.tensor(level)) for level in (-40.0, -25.0))
    output = speak(model, processor(text=[Tester.text] * 2, voice=[quiet, loud]))
    levels = [integrated_loudness(row.double().numpy(), RATE) for row in output.audio]
    assert abs(levels[1] - levels[0] - 15) < 0.5


def test_phones_are_greedy_unless_sampled(model, processor) -> None:
    inputs = processor(text="Hello.")
    greedy = speak(model, inputs).phone_ids[0][0]
    assert torch.equal(greedy, speak(model, inputs, seed=1).phone_ids[0][0])
    sampled = [speak(model, inputs, do_sample=True, temperature=5.0, seed=seed).phone_ids[0][0] for seed in (0, 0, 1)]
    assert torch.equal(sampled[0], sampled[1]) and not torch.equal(sampled[0], sampled[2])


def test_end_of_the_phones_is_heeded(processor) -> None:
    model = Tester().model(g2p_config={"tie_word_embeddings": False})
    head, config = model.g2p.get_output_embeddings(), model.config
    inputs = processor(text="Hello.")
    assert speak(model, inputs).finish_reason == ["length"]
    # Rows of the end: each state is most like itself.
    with torch.no_grad():
        states = model.g2p.model(input_ids=inputs["input_ids"]).last_hidden_state
        head.weight[config.g2p_end_token_id] = 100 * states[0, -1]
    output = speak(model, inputs)
    assert output.finish_reason == ["stop"] and output.phone_ids[0][0].tolist() == [145]


def test_written_tokens_are_phones(model) -> None:
    first = model.config.g2p_first_phone_id
    prompts = [torch.tensor([256, 10 + row, 257, first + 145]) for row in range(4)]
    generators = [torch.Generator().manual_seed(row) for row in range(4)]
    from transformers import LogitsProcessorList

    rows = write_phones(model.g2p, prompts, first, 801, 40, LogitsProcessorList(), generators)
    tokens = torch.cat([row.tokens for row in rows])
    assert (((tokens > 100) & (tokens < 174)) | ((tokens > 200) & (tokens < 789))).all()


def test_ten_thousand_characters_are_spoken(model, processor) -> None:
    inputs = processor(text=("words without an end " * 500)[:10_000])
    count = int(inputs["part_counts"][0])
    output = speak(model, inputs, max_new_tokens=1, dur_disturb=0.0, parts_per_batch=13)
    assert count > 20 and len(output.durations[0]) == count and output.audio.isfinite().all()


def test_stream_hands_out_parts(model, processor) -> None:
    inputs = processor(text=[Tester.other_text, "Short."])
    chunks = list(model.generate_stream(**inputs, **FAST, seed=0, parts_per_batch=1))
    assert [chunk.is_final.tolist() for chunk in chunks] == [[False, True], [False, True], [True, True]]
    whole = speak(model, inputs)
    joined = torch.cat([chunk.audio[0, : chunk.audio_lengths[0]] for chunk in chunks])
    assert torch.allclose(joined, whole.audio[0, : whole.audio_lengths[0]], atol=1e-5)

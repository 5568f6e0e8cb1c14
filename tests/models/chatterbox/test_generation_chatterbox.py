"""Speaking with Chatterbox: guidance, exaggeration, ends, voices, batches and streams of both backbones."""

import logging
import math
from typing import Any

import pytest
import torch
from transformers import LogitsProcessor

from tests.common.comparing import assert_close
from tests.models.chatterbox.tester import CODES, Tester, prepared_voice, recording
from tts_models import ChatterboxForConditionalGeneration, S3GenChunks, SpeechOutput
from tts_models.models.chatterbox import ChatterboxVoice
from tts_models.speech_generation import collect_stream


SHORT = {"max_new_tokens": 12, "flow_attention": "chunked"}
STOP = CODES + 1


def speak(
    model: ChatterboxForConditionalGeneration, kind: str, text: Any = "One, two.", **options: Any
) -> SpeechOutput:
    voice = options.pop("voice", None)
    return model.generate(**Tester().processor(kind)(text=text, voice=voice), **{"seed": 0} | SHORT | options)


def stream(model: ChatterboxForConditionalGeneration, kind: str, text: Any = "One, two.", **options: Any) -> Any:
    voice = options.pop("voice", None)
    inputs = Tester().processor(kind)(text=text, voice=voice)
    return model.generate_stream(**inputs, **{"seed": 0} | SHORT | options)


def row(output: SpeechOutput, number: int) -> torch.Tensor:
    return output.audio[number, : int(output.audio_lengths[number])]


class Ends(LogitsProcessor):
    """Ends each row after a number of tokens that its first token decides."""

    def __init__(self, least: int = 3, spread: int = 4) -> None:
        self.least, self.spread = least, spread

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        tokens = [[each for each in ids if each != CODES] for ids in input_ids.tolist()]
        scores = scores.clone()
        for number, ids in enumerate(tokens):
            wanted = self.least + (ids[0] % self.spread if ids else 1)
            scores[number, STOP] = 1e4 if len(ids) >= wanted else -1e4
        return scores


@pytest.fixture(scope="module", params=["english", "turbo"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def english() -> ChatterboxForConditionalGeneration:
    return Tester().model()


# Guidance and exaggeration


def test_no_guidance_reads_one_row_per_text(english: ChatterboxForConditionalGeneration) -> None:
    seen = []
    hook = english.t3.backbone.register_forward_hook(
        lambda module, inputs, kwargs, output: seen.append(len(kwargs["inputs_embeds"])), with_kwargs=True
    )
    try:
        plain, guided = (speak(english, "english", cfg_weight=weight) for weight in (0.0, 0.5))
    finally:
        hook.remove()
    assert seen == [1] * 12 + [2] * 12
    assert not torch.equal(plain.audio_codes[0][0], guided.audio_codes[0][0])


def test_tiny_guidance_is_close_to_none(english: ChatterboxForConditionalGeneration) -> None:
    none, tiny = (speak(english, "english", cfg_weight=weight) for weight in (0, 1e-9))
    assert torch.equal(none.audio_codes[0][0], tiny.audio_codes[0][0])


@pytest.mark.parametrize("degree", [0.0, 0.5, 1.0, 2.0])
def test_exaggeration_of_each_text(english: ChatterboxForConditionalGeneration, degree: float) -> None:
    together = speak(english, "english", ["One, two."] * 2, exaggeration=[0.5, degree])
    alone = speak(english, "english", exaggeration=degree)
    assert torch.equal(together.audio_codes[1][0], alone.audio_codes[0][0])
    # The degree enters the prompt: another one is another speech.
    assert torch.equal(*(codes[0] for codes in together.audio_codes)) == (degree == 0.5)


def test_turbo_leaves_guidance_and_exaggeration_out() -> None:
    model = Tester().model(kind="turbo")
    plain, asked = speak(model, "turbo"), speak(model, "turbo", cfg_weight=0.5, exaggeration=1.0)
    assert torch.equal(plain.audio_codes[0][0], asked.audio_codes[0][0])


def test_greedy_speech_needs_no_seed(kind: str) -> None:
    model = Tester().model(kind=kind)
    one, other = (speak(model, kind, do_sample=False, seed=seed) for seed in (1, 2))
    assert torch.equal(one.audio_codes[0][0], other.audio_codes[0][0])


# Ends


def test_end_of_every_row_is_its_own(kind: str) -> None:
    model, texts, seeds = (
        Tester().model(kind=kind),
        ["One, two.", "A longer text, of one sentence.", "Three."],
        [0, 1, 2],
    )
    voices = [prepared_voice(0), prepared_voice(1, 5, 4), prepared_voice(2, 9, 6)]
    together = speak(model, kind, texts, voice=voices, seed=seeds, logits_processor=[Ends()])
    assert together.finish_reason == ["stop"] * 3
    assert len({len(codes[0]) for codes in together.audio_codes}) > 1
    for number, (text, seed) in enumerate(zip(texts, seeds, strict=True)):
        alone = speak(model, kind, text, voice=voices[number], seed=seed, logits_processor=[Ends()])
        assert torch.equal(alone.audio_codes[0][0], together.audio_codes[number][0])
        assert_close(row(together, number), row(alone, 0), 1e-5, f"row {number}")


def test_streamed_rows_end_as_whole_ones(kind: str) -> None:
    model, texts, seeds = Tester().model(kind=kind), ["One, two.", "Three."], [0, 1]
    options = {"seed": seeds, "logits_processor": [Ends(8, 16)], "max_new_tokens": 30}
    whole = speak(model, kind, texts, **options)
    streamed = collect_stream(stream(model, kind, texts, **options))
    assert streamed.finish_reason == whole.finish_reason
    for number in range(2):
        assert_close(row(streamed, number), row(whole, number), 1e-4, f"row {number}")


def test_immediate_end_is_silence(english: ChatterboxForConditionalGeneration) -> None:
    ends = [Ends(0, 1)]
    assert speak(english, "english", logits_processor=[Ends(-1)]).audio_lengths.tolist() == [0]
    assert collect_stream(stream(english, "english", logits_processor=[Ends(-1)])).audio_lengths.tolist() == [0]
    # Three tokens of silence belong to every text of Turbo.
    turbo = Tester().model(kind="turbo")
    spoken = speak(turbo, "turbo", logits_processor=[Ends(-1)])
    assert spoken.audio_codes[0][0].tolist() == [4299] * 3 and spoken.audio_lengths.tolist() == [3 * 960]
    assert speak(english, "english", logits_processor=ends).finish_reason == ["stop"]


def test_cut_speech_is_reported(english: ChatterboxForConditionalGeneration, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING):
        spoken = speak(english, "english", ["One.", "Two."], logits_processor=[Ends(5, 1)], max_new_tokens=3)
    assert spoken.finish_reason == ["length"] * 2 and spoken.sequences.shape == (2, 3)
    assert "2 of 2 parts" in caplog.text
    assert not any(STOP in ids for ids in spoken.sequences.tolist())


def test_limit_is_that_of_the_positions(english: ChatterboxForConditionalGeneration) -> None:
    spoken = speak(english, "english", max_new_tokens=None, logits_processor=[Ends(10_000)])
    assert len(spoken.sequences[0]) == english.config.t3_config.max_speech_positions
    assert spoken.finish_reason == ["length"]


def test_multilingual_speech_loses_its_last_token() -> None:
    model = Tester().model(kind="multilingual")
    spoken = speak(model, "multilingual")
    assert spoken.audio_lengths.item() == 960 * (len(spoken.audio_codes[0][0]) - 1)
    assert_close(collect_stream(stream(model, "multilingual")).audio, spoken.audio, 1e-4)


# Long texts


def test_long_text_is_spoken_in_parts(kind: str) -> None:
    model, processor = Tester().model(kind=kind), Tester().processor(kind, max_part_characters=20)
    text = "One, two, three. Four, five, six. Seven."
    inputs = processor(text=[text, "Short."])
    assert inputs["part_counts"].tolist() == [3, 1] and len(inputs["input_ids"]) == 4
    options = {"seed": 0, "max_new_tokens": 12, "flow_attention": "chunked", "logits_processor": [Ends(8, 2)]}
    spoken = model.generate(**inputs, **options, part_gap=0.1)
    samples = [960 * max(len(codes) - model.config.end_trim_tokens, 0) for codes in spoken.audio_codes[0]]
    assert spoken.audio_lengths.tolist()[0] == sum(samples) + 2 * 2400
    streamed = collect_stream(model.generate_stream(**inputs, **options, part_gap=0.1))
    few = model.generate(**inputs, **options, part_gap=0.1, parts_per_batch=1)
    for number in range(2):
        assert_close(row(streamed, number), row(spoken, number), 1e-4, f"stream {number}")
        assert_close(row(few, number), row(spoken, number), 1e-5, f"batches {number}")


# S3Gen


def test_masks_are_full_offline_and_chunked_in_streams(english: ChatterboxForConditionalGeneration) -> None:
    by_default, full, chunked = (
        speak(english, "english", flow_attention=name, max_new_tokens=24) for name in ("auto", "full", "chunked")
    )
    assert torch.equal(by_default.audio, full.audio) and not torch.equal(full.audio, chunked.audio)
    streamed = collect_stream(stream(english, "english", flow_attention="auto", max_new_tokens=24))
    assert_close(streamed.audio, chunked.audio, 1e-4)


def test_chunks_and_steps_can_be_chosen(english: ChatterboxForConditionalGeneration) -> None:
    options = {"flow_chunks": S3GenChunks(4, first=6), "num_flow_steps": 1, "max_new_tokens": 24}
    whole, streamed = speak(english, "english", **options), collect_stream(stream(english, "english", **options))
    assert_close(streamed.audio, whole.audio, 1e-4)
    assert not torch.equal(whole.audio, speak(english, "english", max_new_tokens=24).audio)


def test_half_precision_keeps_sound_in_float32(tmp_path: Any) -> None:
    Tester().model().save_pretrained(tmp_path)
    model = ChatterboxForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert model.t3.dtype == torch.bfloat16
    assert {p.dtype for part in (model.s3gen, model.voice_encoder) for p in part.parameters()} == {torch.float32}
    spoken = speak(model, "english")
    assert spoken.audio.dtype == torch.float32 and spoken.audio.isfinite().all()


# The alignment rule


def test_alignment_rule_watches_and_lets_go() -> None:
    model = Tester().model(kind="multilingual")
    model.set_attn_implementation("eager")
    options = {"alignment_rule": True, "alignment_heads": [(0, 1), (1, 2)], "seed": [0, 1], "max_new_tokens": 30}
    texts = ["One, two, three.", "Four."]
    together = speak(model, "multilingual", texts, **options)
    for number, text in enumerate(texts):
        alone = speak(model, "multilingual", text, **options | {"seed": number})
        assert torch.equal(alone.audio_codes[0][0], together.audio_codes[number][0])
    chunks = stream(model, "multilingual", texts, **options)
    next(chunks)
    chunks.close()
    assert not any(layer.self_attn._forward_hooks for layer in model.t3.backbone.layers)
    with pytest.raises(ValueError, match="alignment_heads"):
        speak(model, "multilingual", **options | {"alignment_heads": [(2, 0)], "seed": 0})
    turbo = Tester().model(kind="turbo")
    turbo.set_attn_implementation("eager")
    with pytest.raises(ValueError, match="Llama"):
        speak(turbo, "turbo", alignment_rule=True)


# Voices


def test_recording_equals_the_voice_prepared_from_it(kind: str, tmp_path: Any) -> None:
    model, processor = Tester().model(kind=kind), Tester().processor(kind, min_voice_seconds=0.2)
    sound = recording(0.8)
    voice = processor.prepare_voice(model, sound, sampling_rate=24000)
    voice.save(tmp_path / "voice.safetensors")
    direct = model.generate(**processor(text=["Hello."], voice=(sound, 24000)), seed=0, **SHORT)
    for given in (voice, tmp_path / "voice.safetensors"):
        prepared = model.generate(**processor(text=["Hello."], voice=given), seed=0, **SHORT)
        assert_close(prepared.audio, direct.audio, 1e-5)
    together = model.generate(**processor(text=["Hello."] * 2, voice=[voice, (sound, 24000)]), seed=0, **SHORT)
    assert_close(together.audio[0], together.audio[1], 1e-5)


@pytest.mark.parametrize("seconds", [0.3, 40.0])
def test_references_of_any_length(english: ChatterboxForConditionalGeneration, seconds: float) -> None:
    processor = Tester().processor()
    voice = processor.prepare_voice(english, recording(seconds, 16000), sampling_rate=16000)
    assert len(voice.prompt_tokens) == min(math.ceil(25 * seconds), 9) and isinstance(voice, ChatterboxVoice)
    assert len(voice.reference_tokens) == min(int(25 * seconds), 250)
    assert len(voice.reference_features) // 2 == len(voice.reference_tokens)
    assert speak(english, "english", voice=voice).audio.isfinite().all()


@pytest.mark.parametrize("rate", [8000, 22050, 48000, 96000])
def test_references_of_any_rate(english: ChatterboxForConditionalGeneration, rate: int) -> None:
    voices = [
        Tester().processor().prepare_voice(english, recording(0.6, each), sampling_rate=each) for each in (rate, 24000)
    ]
    assert len(voices[0].prompt_tokens) == len(voices[1].prompt_tokens)
    assert torch.nn.functional.cosine_similarity(*(v.speaker_embedding for v in voices), dim=0) > 0.9


def test_frozen_parts_stay_in_evaluation_mode(english: ChatterboxForConditionalGeneration) -> None:
    model = Tester().model().train()
    assert model.t3.training and not model.s3gen.training and not model.voice_encoder.training
    assert all(name.startswith("t3.") for name, parameter in model.named_parameters() if parameter.requires_grad)

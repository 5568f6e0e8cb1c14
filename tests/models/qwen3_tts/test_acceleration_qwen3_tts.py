"""The fast loops of Qwen3-TTS write the codes that the plain loop writes."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from transformers import AutoModelForTextToWaveform, LogitsProcessorList

from tests.common.comparing import assert_close
from tests.common.reference import ReferenceCase, find_cases
from tests.models.qwen3_tts import reference
from tests.models.qwen3_tts.test_generation_qwen3_tts import TEXTS, EndAt, prompts
from tests.models.qwen3_tts.tester import Tester, prepared_voice
from tts_models import Qwen3TTSForConditionalGeneration, SpeechOutput
from tts_models.models.qwen3_tts import program_qwen3_tts
from tts_models.speech_generation import collect_stream


FIXTURES = Path(__file__).parents[2] / "fixtures/qwen3_tts"
GENERATED = [case for case in find_cases([FIXTURES]) if "talker_gen" in case.name]
SEEDS = [4, 5, 6]
# Ways of picking that a program must do by itself, each a little differently.
PICKING = {
    "greedy": {"do_sample": False, "repetition_penalty": 1.3},
    "sampled": {},
    "windowed": {"repetition_penalty": 1e6, "repetition_penalty_window": 3, "do_sample": False},
    "half sampled": {"do_sample": False, "subtalker_dosample": True, "subtalker_top_k": 5, "subtalker_top_p": 0.8},
    "other half": {"do_sample": True, "subtalker_dosample": False, "top_p": 0.7, "min_p": 0.05},
}


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of fixed shapes run as they are: what would be compiled or captured, without the wait."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)


@pytest.fixture(params=["lean", "fixed"])
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Makes a tiny model fast: by lean steps, or by a program of fixed shapes whose room must grow."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    monkeypatch.setattr(program_qwen3_tts, "_FIRST_ROOM", 16)

    def make(**overrides: Any) -> Qwen3TTSForConditionalGeneration:
        return Tester().model(**overrides).enable_streaming_optimizations(use_compile=request.param == "fixed")

    return make


def mixed_batch() -> dict[str, torch.Tensor]:
    """Rows of different lengths, with and without a reference."""
    voices = [prepared_voice(0, 5), prepared_voice(1, transcript=None), prepared_voice(2, 40)]
    return prompts("base", TEXTS, voice=voices)


def assert_same(fast: SpeechOutput, plain: SpeechOutput) -> None:
    """The same codes, and the same sound but for rounding."""
    assert fast.finish_reason == plain.finish_reason
    for one, other in zip(fast.audio_codes, plain.audio_codes, strict=True):
        assert torch.equal(one, other)
    assert_close(fast.audio, plain.audio, 1e-5)


@pytest.mark.parametrize("picking", PICKING)
def test_codes_are_those_of_the_plain_loop(fast: Callable[..., Any], picking: str) -> None:
    inputs = mixed_batch() | {"seed": SEEDS, "max_new_tokens": 40, "min_new_tokens": 5} | PICKING[picking]
    plain = Tester().model(kind="base").generate(**inputs)
    model = fast(kind="base")
    assert_same(model.generate(**inputs), plain)
    assert_same(model.generate(**inputs), plain)  # what is kept from call to call starts anew
    assert max(len(codes) for codes in plain.audio_codes) > 16


def test_rows_end_at_different_frames(fast: Callable[..., Any]) -> None:
    """By the model's own end, which a high temperature brings about, and by the limit."""
    inputs = mixed_batch() | {"max_frames": 30, "temperature": 50.0, "top_k": 0, "min_new_tokens": 2}
    for seed in range(40):
        plain = Tester().model(kind="base").generate(**inputs, seed=[seed, seed + 1, seed + 2])
        if len({len(codes) for codes in plain.audio_codes}) == 3:
            break
    assert "stop" in plain.finish_reason
    model, seeds = fast(kind="base"), [seed, seed + 1, seed + 2]
    assert_same(model.generate(**inputs, seed=seeds), plain)
    streamed = collect_stream(model.generate_stream(**inputs, seed=seeds, emit_every_frames=3))
    assert streamed.finish_reason == plain.finish_reason
    assert_close(streamed.audio, plain.audio, 1e-5)


def test_own_processors_are_honoured(fast: Callable[..., Any]) -> None:
    inputs = mixed_batch() | {"seed": SEEDS}
    plain = Tester().model(kind="base").generate(**inputs, logits_processor=[EndAt([0, 9, 4])])
    assert [len(codes) for codes in plain.audio_codes] == [0, 9, 4]
    assert_same(fast(kind="base").generate(**inputs, logits_processor=[EndAt([0, 9, 4])]), plain)


def test_minimum_length_and_several_ends(fast: Callable[..., Any]) -> None:
    inputs = prompts("custom_voice", TEXTS) | {"seed": SEEDS, "eos_token_id": [42, 46], "max_frames": 12}
    for minimum in (0, 6):
        plain = Tester().model().generate(**inputs, min_new_tokens=minimum, temperature=50.0, top_k=0)
        assert_same(fast().generate(**inputs, min_new_tokens=minimum, temperature=50.0, top_k=0), plain)


def test_two_streams_at_once_do_not_disturb_each_other(fast: Callable[..., Any]) -> None:
    inputs = prompts("custom_voice") | {"max_frames": 9, "min_new_tokens": 10, "emit_every_frames": 2}
    expected = [collect_stream(Tester().model().generate_stream(**inputs, seed=seed)).audio for seed in (1, 2)]
    model = fast()
    streams = [model.generate_stream(**inputs, seed=seed) for seed in (1, 2)]
    chunks = [[], []]
    for pair in zip(*streams, strict=True):
        for own, chunk in zip(chunks, pair, strict=True):
            own.append(chunk.audio)
    for own, audio in zip(chunks, expected, strict=True):
        assert_close(torch.cat(own, dim=1), audio, 1e-5)


def test_wider_talker_goes_through_its_projection(fast: Callable[..., Any]) -> None:
    wide = {"talker": {"hidden_size": 48}, "kind": "custom_voice"}
    inputs = prompts("custom_voice") | {"max_frames": 5, "do_sample": False}
    assert isinstance(fast(**wide).talker.code_predictor.small_to_mtp_projection, torch.nn.Linear)
    assert_same(fast(**wide).generate(**inputs), Tester().model(**wide).generate(**inputs))


@torch.no_grad()
@pytest.mark.parametrize("case", GENERATED, ids=lambda case: case.name)
def test_reference_cases_pass_through_the_fast_loops(
    case: ReferenceCase, fast: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    plain, is_fixed = reference.build_model, "fixed" in request.node.name
    monkeypatch.setattr(
        reference,
        "build_model",
        lambda each: plain(each).enable_streaming_optimizations(use_compile=is_fixed),
    )
    checks = list(reference.run_generation(case))
    assert checks and not [check for check in checks if not check.passed]


def frame_program(model: Qwen3TTSForConditionalGeneration) -> program_qwen3_tts.FrameProgram:
    """The program of a sampled call."""
    request = model._prepare_request(prompts("custom_voice")["input_ids"], None, {"seed": 0})
    decoding = model._frame_decoding(request)
    return program_qwen3_tts.FrameProgram(decoding.loops, 1, 64, decoding.sampling)


@torch.no_grad()
def test_frame_asks_the_device_nothing(uncompiled: None) -> None:
    """Fake tensors have no values: reading one back raises. A CUDA graph could not be captured either."""
    program = frame_program(Tester().model().enable_streaming_optimizations(use_compile=True))
    with FakeTensorMode(allow_non_fake_inputs=True):
        program.frame()
        with pytest.raises(DataDependentOutputException):
            (program.codes + 0).tolist()


@torch.no_grad()
def test_compiled_layers_write_the_same_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and differentiated as for any backend, but run as traced: code generation would take a minute."""
    compile_for = torch.compile

    def compile_quickly(function: Callable, mode: str, **options: bool) -> Callable:
        return compile_for(function, backend="aot_eager", **options)

    monkeypatch.setattr(torch, "compile", compile_quickly)
    inputs = prompts("custom_voice", TEXTS[:2]) | {"max_frames": 4, "do_sample": False}
    model = Tester().model()
    plain = model.generate(**inputs)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model.enable_streaming_optimizations(use_compile=True)
    assert_same(model.generate(**inputs), plain)
    # The talker's layer, and the predictor's with two new positions and with one: not one program per layer.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 3


@pytest.mark.gpu
@pytest.mark.parametrize("use_compile", [False, True])
@pytest.mark.parametrize("picking", PICKING)
def test_cuda_graphs_write_the_same_codes(use_compile: bool, picking: str) -> None:
    inputs = mixed_batch() | {"seed": SEEDS, "max_new_tokens": 40, "min_new_tokens": 5} | PICKING[picking]
    model = Tester().model(kind="base").cuda()
    plain = model.generate(**inputs)
    model.enable_streaming_optimizations(use_compile=use_compile)
    assert model._optimizer.options.use_cuda_graphs
    for _ in range(2):
        assert_same(model.generate(**inputs), plain)


def test_int8_comes_close() -> None:
    """Scores of eight bits differ by a few parts in a hundred; the sound has the same length and form."""
    model, inputs = Tester().model(), prompts("custom_voice", TEXTS)
    arguments = {"seed": SEEDS, "max_frames": 6, "min_new_tokens": 7}
    hidden, first = torch.randn(2, 32), torch.randn(2, 32)
    with torch.no_grad():
        exact = model._decode_frames(*loop_arguments(model, inputs)).writer.write(hidden, first)[2][0]
        model.enable_streaming_optimizations(int8=True)
        rough = model._decode_frames(*loop_arguments(model, inputs)).writer.write(hidden, first)[2][0]
    assert 0 < (rough - exact).norm() / exact.norm() < 0.1
    spoken = model.generate(**inputs, **arguments)
    streamed = collect_stream(model.generate_stream(**inputs, **arguments))
    assert spoken.audio_lengths.tolist() == [6 * 24] * 3
    assert_close(streamed.audio, spoken.audio, 1e-5)


def loop_arguments(model: Qwen3TTSForConditionalGeneration, inputs: dict[str, torch.Tensor]) -> tuple:
    """What the frame loop of a greedy call is made of."""
    request = model._prepare_request(inputs["input_ids"], None, {"do_sample": False, "seed": 0})
    return model._build_prompts(request), request.config, request.options, model._samplers(request), [5] * 3


def test_weights_stay_one(tmp_path: Path) -> None:
    """Joined weights are the model's own: saving, loading, changing and copying work as before."""
    model, inputs = Tester().model(), prompts("custom_voice") | {"do_sample": False, "max_frames": 5}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = model.generate(**inputs)
    model.enable_streaming_optimizations()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    attention = model.talker.model.layers[0].self_attn
    storages = {
        attention.q_proj.weight.untyped_storage().data_ptr(),
        attention.k_proj.weight.untyped_storage().data_ptr(),
    }
    assert len(storages) == 1
    model.save_pretrained(tmp_path)
    assert_same(AutoModelForTextToWaveform.from_pretrained(tmp_path).generate(**inputs), plain)
    assert_same(copy.deepcopy(model).generate(**inputs), plain)
    assert_same(model.disable_streaming_optimizations().generate(**inputs), plain)
    assert attention.q_proj.weight.is_contiguous()
    assert_same(model.disable_streaming_optimizations().generate(**inputs), plain)


@pytest.mark.parametrize("int8", [False, True])
def test_changed_weights_are_noticed(int8: bool) -> None:
    inputs = prompts("custom_voice") | {"do_sample": False, "max_frames": 5}
    other = Tester().model()
    with torch.no_grad():
        for parameter in other.talker.parameters():
            parameter.mul_(1.2)
    expected = copy.deepcopy(other).enable_streaming_optimizations(int8=int8).generate(**inputs)
    model = Tester().model().enable_streaming_optimizations(int8=int8)
    model.generate(**inputs)
    model.load_state_dict(other.state_dict())
    assert_same(model.generate(**inputs), expected)


def test_adapters_are_honoured() -> None:
    peft = pytest.importorskip("peft")
    inputs = prompts("custom_voice") | {"do_sample": False, "max_frames": 5}
    config = peft.LoraConfig(target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    model = Tester().model()
    fast_before = copy.deepcopy(model).enable_streaming_optimizations()
    torch.manual_seed(0)
    plain = peft.get_peft_model(model, config).eval().base_model.model
    torch.manual_seed(0)
    fast = peft.get_peft_model(fast_before, config).eval().base_model.model
    assert_same(fast.generate(**inputs), plain.generate(**inputs))
    with pytest.raises(ValueError, match="adapters"):
        fast.enable_streaming_optimizations(use_compile=True)
    with pytest.raises(ValueError, match="int8"):
        fast.enable_streaming_optimizations(int8=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compile_mode": "reduce-overhead"}, "compile_mode"),
        ({"int8": True, "use_compile": True}, "int8"),
        ({"int8": True, "compile_codebook_predictor": True}, "int8"),
        ({"use_cuda_graphs": True}, "CUDA"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict, message: str) -> None:
    model = Tester().model()
    with pytest.raises(ValueError, match=message):
        model.enable_streaming_optimizations(**options)
    assert model._optimizer is None


def test_inline_picker_names_what_it_cannot_do() -> None:
    from tts_models.acceleration.inline_picker import InlinePicker

    with pytest.raises(ValueError, match="processors"):
        InlinePicker(LogitsProcessorList([EndAt([1])]), 1.0, 0, False, 1, 10, torch.device("cpu"))

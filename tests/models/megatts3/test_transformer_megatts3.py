"""The diffusion transformer beyond the common suite: guidance, noise, prompts, training draws."""

from typing import Any

import pytest
import torch

from tests.models.megatts3.parts import LATENT_DIM, TransformerTester, generators, seeded
from tts_models.models.megatts3.flow_megatts3 import (
    FlowNoise,
    draw_flow_noise,
    guidance_weights,
    integrate,
    step_coefficients,
    sway_times,
)
from tts_models.models.megatts3.modeling_megatts3_transformer import MegaTTS3TransformerModel, rotary_angles
from tts_models.models.megatts3.training_megatts3_transformer import draw_training


@pytest.fixture(scope="module")
def model() -> MegaTTS3TransformerModel:
    """A tiny model."""
    return TransformerTester().model()


def solve(model: MegaTTS3TransformerModel, **changes: Any) -> torch.Tensor:
    """The latents of the tester's inputs."""
    return model(**(TransformerTester().inputs() | changes)).latents


# Solution


def test_conditions_one_after_the_other_give_the_same(model: MegaTTS3TransformerModel) -> None:
    torch.testing.assert_close(solve(model, sequential=True), solve(model), atol=1e-5, rtol=0)
    padded, _ = TransformerTester().ragged_inputs("right")
    torch.testing.assert_close(solve(model, **padded, sequential=True), solve(model, **padded), atol=1e-5, rtol=0)


def test_products_of_8_bits_are_near() -> None:
    model = TransformerTester().model()
    expected = solve(model)
    quantized = solve(model.use_int8_products())
    assert 0 < (quantized - expected).norm() < 0.1 * expected.norm()
    assert torch.equal(solve(model.use_int8_products(False)), expected)
    model.use_int8_products()
    model(**TransformerTester().training_inputs()).loss.backward()
    assert model.layers[0].self_attn.q_proj.weight.grad.any()


def test_solution_begins_with_the_prompt(model: MegaTTS3TransformerModel) -> None:
    prompt, frame_map = seeded(2, 4, LATENT_DIM), TransformerTester().inputs()["frame_map"]
    frame_map[1, 40:] = 0
    lengths = torch.tensor([4, 2])
    latents = solve(model, frame_map=frame_map, prompt_lengths=lengths)
    assert torch.equal(latents[0, :4], prompt[0]) and torch.equal(latents[1, :2], prompt[1, :2])
    assert not torch.equal(latents[1, 2:4], prompt[1, 2:])
    assert not latents[1, 10:].any() and latents[1, :10].any(-1).all()


def test_everything_given_matters(model: MegaTTS3TransformerModel) -> None:
    inputs, plain = TransformerTester().inputs(), solve(model)
    changed = {
        "phone_ids": inputs["phone_ids"] % 170 + 4,
        "tone_ids": torch.full_like(inputs["tone_ids"], 12),
        "frame_map": inputs["frame_map"].flip(1),
        "prompt_latents": inputs["prompt_latents"] + 1,
        "prompt_lengths": torch.tensor([2, 3]),
        "num_inference_steps": 1,
        "intelligibility_weight": 0.5,
        "similarity_weight": 0.5,
        "initial_noise": inputs["initial_noise"] + 1,
        "step_noise": inputs["step_noise"] + 1,
    }
    for name, value in changed.items():
        noise = {"step_noise": inputs["step_noise"][:, :1]} if name == "num_inference_steps" else {}
        assert (solve(model, **{name: value}, **noise)[:, 4:] - plain[:, 4:]).abs().max() > 1e-3, name


def test_tones_of_english_stress_count_as_none(model: MegaTTS3TransformerModel) -> None:
    tones = torch.full((2, 6), 3)
    assert torch.equal(solve(model, tone_ids=tones.clone().fill_(7)), solve(model, tone_ids=tones))


def test_rows_may_have_strengths_of_their_own(model: MegaTTS3TransformerModel) -> None:
    both = solve(model, intelligibility_weight=torch.tensor([1.0, 2.0]), similarity_weight=torch.tensor([3.0, 1.0]))
    for row, (text, prompt) in enumerate(((1.0, 3.0), (2.0, 1.0))):
        alone = solve(model, intelligibility_weight=text, similarity_weight=prompt)
        torch.testing.assert_close(both[row], alone[row], atol=1e-5, rtol=0)


def test_guidance_is_upstreams(model: MegaTTS3TransformerModel) -> None:
    first, text, none = seeded(3, 2, 4, 5)
    weights = guidance_weights(1.6, 2.5, 2, torch.device("cpu"))
    expected = none + 1.6 * (text - none) + 2.5 * (first - text)
    torch.testing.assert_close((weights * torch.stack([first, text, none])).sum(0), expected)


def test_steps_without_overshoot_are_eulers() -> None:
    times = sway_times(4, -1.0, torch.device("cpu"))
    coefficients = step_coefficients(times, overshoot=0.0)
    assert torch.allclose(coefficients[:, 0], times.diff()) and torch.allclose(coefficients[:, 1], torch.ones(4))
    assert not coefficients[:, 2].any()
    noise = FlowNoise(torch.zeros(1, 1, 1), seeded(1, 4, 1, 1))
    assert torch.allclose(integrate(lambda state, _: torch.ones_like(state), noise, coefficients), torch.ones(1, 1, 1))


def test_last_step_adds_no_noise() -> None:
    coefficients = step_coefficients(sway_times(5, -1.0, torch.device("cpu")), overshoot=3.0)
    assert coefficients[:-1, 2].gt(0).all() and coefficients[-1, 2] == 0 and coefficients[-1, 1] == 1


def test_drawn_noise_of_a_row_is_its_own(model: MegaTTS3TransformerModel) -> None:
    together = draw_flow_noise([5, 3], LATENT_DIM, 2, generators(2), torch.device("cpu"))
    alone = draw_flow_noise([3], LATENT_DIM, 2, generators(2)[1:], torch.device("cpu"))
    assert torch.equal(together.initial[1:, :3], alone.initial)
    assert torch.equal(together.each_step[1:, :, :3], alone.each_step)
    without = {"initial_noise": None, "step_noise": None}
    one, two = (solve(model, **without, generator=generators(2)) for _ in range(2))
    assert torch.equal(one, two)


@torch.no_grad()
def test_layers_compile_into_one_graph(model: MegaTTS3TransformerModel) -> None:
    states, (modulations, last) = seeded(3, 7, 32), model.modulations(torch.tensor([0.3]))
    arguments = (states, modulations, last, rotary_angles(model.config, 7, states.device), None)
    torch.compiler.reset()
    compiled = torch.compile(model.hidden_velocity, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*arguments), model.hidden_velocity(*arguments), atol=1e-5, rtol=0)
    torch.compiler.reset()


# Training


def test_loss_counts_neither_prompt_nor_padding(model: MegaTTS3TransformerModel) -> None:
    inputs = TransformerTester().training_inputs() | {"prompt_lengths": torch.tensor([4, 4, 4, 4])}
    inputs["frame_map"][:, 32:] = 0
    draws = draw_training(inputs["labels"], torch.tensor([8] * 4), 0.0, generators(4))
    draws.has_prompt[:] = False
    plain = model(**inputs, training_draws=draws).loss
    for changed in (slice(0, 4), slice(8, 12)):
        labels = inputs["labels"].clone()
        labels[:, changed] += 1
        assert torch.equal(model(**(inputs | {"labels": labels}), training_draws=draws).loss, plain)


def test_rows_without_a_text_do_not_see_it(model: MegaTTS3TransformerModel) -> None:
    inputs = TransformerTester().training_inputs()
    draws = draw_training(inputs["labels"], torch.tensor([12] * 4), 0.0, generators(4))
    draws.has_text[:] = False
    loss = model(**inputs, training_draws=draws).loss
    others = inputs | {"phone_ids": inputs["phone_ids"] % 170 + 4, "tone_ids": 0 * inputs["tone_ids"] + 12}
    assert torch.equal(model(**others, training_draws=draws).loss, loss)


@torch.no_grad()
def test_absent_texts_have_the_ids_of_the_configuration() -> None:
    text = TransformerTester().config().text_encoder_config.to_dict() | {"vocab_size": 310, "num_tones": 40}
    model = TransformerTester().model(text_encoder_config=text, dropped_phone_id=301, dropped_tone_id=31)
    assert (model.config.dropped_phone_id, model.config.dropped_tone_id) == (301, 31)
    plain = solve(model)
    model.text_encoder.phone_embedding.weight[[309, 300]] += 1
    model.text_encoder.tone_embedding.weight[[39, 30]] += 1
    assert torch.equal(solve(model), plain)
    for table, row in ((model.text_encoder.phone_embedding, 301), (model.text_encoder.tone_embedding, 31)):
        table.weight[row] += 1
        changed = solve(model)
        assert not torch.allclose(changed, plain, atol=1e-4)
        plain = changed


def test_training_draws_cover_the_three_conditions() -> None:
    labels, lengths = torch.zeros(400, 10, 1), torch.full((400,), 10)
    draws = draw_training(labels, lengths, 0.2, generators(400))
    assert 0.1 < (~draws.has_text).float().mean() < 0.3 and 0.3 < (~draws.has_prompt).float().mean() < 0.5
    assert not (draws.has_prompt & ~draws.has_text).any()
    assert draws.prompt_lengths.min() == 1 and draws.prompt_lengths.max() == 8
    assert 0 < draws.time.min() < 0.2 and 0.8 < draws.time.max() < 1


def test_adapters_train() -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(
        TransformerTester().model(), peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj", "fc1"])
    )
    model(**TransformerTester().training_inputs()).loss.backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all("lora" in name and p.grad is not None for name, p in trained.items())


@pytest.mark.gpu
def test_solution_as_a_graph_on_cuda(model: MegaTTS3TransformerModel) -> None:
    inputs = {
        name: value.cuda() if isinstance(value, torch.Tensor) else value
        for name, value in TransformerTester().inputs().items()
    }
    on_cuda = TransformerTester().model().cuda()
    expected = on_cuda(**inputs).latents
    torch.testing.assert_close(expected.cpu(), solve(model), atol=1e-4, rtol=0)
    for bucket in (12, 32):
        on_cuda.use_cuda_graphs(bucket)
        for _ in range(2):
            torch.testing.assert_close(on_cuda(**inputs).latents, expected, atol=1e-4, rtol=0)

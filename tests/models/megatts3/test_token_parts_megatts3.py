"""Aligner and duration model of MegaTTS3: the common suite, each part alone, and what only they do."""

import copy
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from tests.common.batching import BatchingTests
from tests.common.configuration import ConfigurationTests
from tests.common.input_errors import InputErrorTests
from tests.common.model_tester import ModelTester
from tests.common.saving import SavingTests
from tests.common.training import TrainingTests
from tests.models.megatts3.token_parts import BANDS, FRAMES, AlignerTester, DurationTester, ids, seeded, spread
from tts_models import MegaTTS3AlignerForConditionalGeneration, MegaTTS3DurationModel


@pytest.fixture(params=(AlignerTester, DurationTester), ids=("aligner", "duration"))
def tester(request: pytest.FixtureRequest) -> ModelTester:
    """The tester of each part in turn."""
    return request.param()


def assert_same_weights(model: PreTrainedModel, expected: PreTrainedModel) -> None:
    """The same names and numbers."""
    weights = model.state_dict()
    assert weights.keys() == expected.state_dict().keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.state_dict().items())


class TestConfiguration(ConfigurationTests):
    """Configurations."""

    # Parts are loaded by their classes: the Auto classes know the whole.
    test_saved_round_trip = test_sub_configs_keep_their_type = None


class TestSaving(SavingTests):
    """Saving and loading."""

    test_auto_model_loads_the_class = None

    # The one number of a head's bias shifts what follows it in the file, and with its place in memory the last bit of
    # a product: weights are compared, not outputs.

    def test_save_load_round_trip(self, tester: ModelTester, tmp_path: Path) -> None:
        model = tester.model()
        model.save_pretrained(tmp_path)
        reloaded, info = tester.model_class.from_pretrained(tmp_path, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"] and not reloaded.training
        assert_same_weights(reloaded, model)

    def test_loads_on_a_device_map(self, tester: ModelTester, tmp_path: Path) -> None:
        pytest.importorskip("accelerate")
        model = tester.model()
        model.save_pretrained(tmp_path)
        assert_same_weights(tester.model_class.from_pretrained(tmp_path, device_map="cpu"), model)


class TestBatching(BatchingTests):
    """Batches and padding."""


class TestTraining(TrainingTests):
    """Loss and gradients."""


class TestInputErrors(InputErrorTests):
    """Refused input."""


# The aligner


@pytest.fixture(scope="module")
def aligner() -> MegaTTS3AlignerForConditionalGeneration:
    return AlignerTester().model()


def test_alignment_of_a_batch_equals_that_of_its_rows(aligner: MegaTTS3AlignerForConditionalGeneration) -> None:
    features, lengths = seeded(3, BANDS, FRAMES), [24, 15, 7]
    rows = aligner.align(features, torch.tensor(lengths))
    assert rows == [aligner.align(features[row : row + 1, :, :n])[0] for row, n in enumerate(lengths)]
    assert len({tuple(row) for row in rows}) == 3


def test_alignment_is_the_likeliest_token_at_each_step(aligner: MegaTTS3AlignerForConditionalGeneration) -> None:
    features = seeded(1, BANDS, FRAMES)
    tokens = [aligner.config.decoder_start_token_id]
    with torch.no_grad():
        for _ in range(6):
            tokens.append(int(aligner(features, decoder_input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
    assert aligner.align(features, max_new_tokens=6)[0] == tokens[1:]


def test_alignment_ends_at_the_end_token_and_loses_nothing_without() -> None:
    model, features = AlignerTester().model(), seeded(1, BANDS, FRAMES)
    whole = model.align(features)[0]
    assert len(whole) == model.config.max_new_tokens
    end = whole[4]
    model.config.eos_token_id = model.generation_config.eos_token_id = end
    assert model.align(features)[0] == whole[: whole.index(end)]


def test_rows_that_end_early_wait_for_the_others() -> None:
    model, features = AlignerTester().model(), seeded(2, BANDS, FRAMES)
    one, other = model.align(features)
    end = next(token for token in one if token not in other)
    model.config.eos_token_id = model.generation_config.eos_token_id = end
    assert model.align(features) == [one[: one.index(end)], other]


def test_aligner_labels_are_the_tokens_after_each_position(aligner: MegaTTS3AlignerForConditionalGeneration) -> None:
    features, labels = seeded(1, BANDS, FRAMES), ids(1, 860, 1, 6)
    inputs = torch.cat([torch.tensor([[798]]), labels[:, :-1]], dim=1)
    with torch.no_grad():
        scores = aligner(features, decoder_input_ids=inputs).logits
        loss = aligner(features, labels=labels).loss
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(scores[0], labels[0]))


# The duration model


@pytest.fixture(scope="module", params=("regression", "classification"))
def duration(request: pytest.FixtureRequest) -> MegaTTS3DurationModel:
    model = DurationTester().model(head_type=request.param, use_position_embedding=request.param == "regression")
    return spread(model)


def test_prediction_of_a_batch_equals_that_of_its_rows(duration: MegaTTS3DurationModel) -> None:
    tester, references, texts = DurationTester(), (6, 3, 1), (2, 7, 4)
    (phones, tones), durations = tester.text(3, 6, seed=5), ids(0, 140, 3, 6, seed=7)
    text, its_tones = tester.text(3, 7, seed=8)
    for row in range(3):
        phones[row, references[row] :], text[row, texts[row] :] = 0, 0
    predicted = duration.predict(duration.prompt(phones, tones, durations), text, its_tones)
    assert not predicted[text == 0].any()
    for row, (reference, length) in enumerate(zip(references, texts, strict=True)):
        place = slice(row, row + 1)
        prompt = duration.prompt(*(each[place, :reference] for each in (phones, tones, durations)))
        alone = duration.predict(prompt, text[place, :length], its_tones[place, :length])
        assert torch.equal(predicted[place, :length], alone)
    assert len(set(predicted[predicted > 0].tolist())) > 3


@torch.no_grad()
def test_text_that_is_not_encoded_is_the_sum_of_its_embeddings() -> None:
    tester = DurationTester()
    model = tester.model(use_text_encoder=False)
    (phones, tones), tokens = tester.text(1), tester.inputs(1)["duration_ids"]
    assert set(name for name in model.state_dict() if "text_encoder" in name) == {
        "text_encoder.phone_embedding.weight",
        "text_encoder.tone_embedding.weight",
    }
    states, shifted = model.encode_text(phones, tones), model.encode_text(phones[:, 1:], tones[:, 1:])
    torch.testing.assert_close(states[:, 1:], shifted, atol=1e-6, rtol=0)
    table = model.text_encoder.phone_embedding.weight[phones] + model.text_encoder.tone_embedding.weight[tones]
    torch.testing.assert_close(states, model.text_projection(table), atol=1e-6, rtol=0)
    padded = torch.nn.functional.pad(phones, (0, 2)), torch.nn.functional.pad(tones, (0, 2), value=5)
    logits = model(*padded, torch.nn.functional.pad(tokens, (0, 2), value=1)).logits
    torch.testing.assert_close(logits[:, :7], model(phones, tones, tokens).logits, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="tone_ids"):
        model.encode_text(phones, tones + 23)


def test_prediction_continues_what_the_prompt_has_read() -> None:
    model = spread(DurationTester().model())
    (phones, tones), durations = DurationTester().text(1, 5), ids(1, 100, 1, 5)
    prompt = model.prompt(phones, tones, durations)
    kept = prompt.keys.clone()
    first = model.predict(prompt, *DurationTester().text(1, 6, seed=3))
    assert torch.equal(first, model.predict(prompt, *DurationTester().text(1, 6, seed=3)))
    assert torch.equal(prompt.keys, kept)
    assert not torch.equal(first, model.predict(None, *DurationTester().text(1, 6, seed=3)))
    other = model.prompt(phones, tones, durations.flip(1))
    assert not torch.equal(first, model.predict(other, *DurationTester().text(1, 6, seed=3)))


def test_one_reference_serves_many_texts() -> None:
    model = spread(DurationTester().model())
    prompts = model.prompt(*DurationTester().text(2, 5), ids(1, 100, 2, 5))
    text = DurationTester().text(3, 6, seed=3)
    predicted = model.predict(prompts.select_rows([1, 0, 1]), *text)
    for row, reference in enumerate((1, 0, 1)):
        alone = model.predict(prompts.select_rows([reference]), *(each[row : row + 1] for each in text))
        assert torch.equal(predicted[row : row + 1], alone)


def test_parallel_outputs_are_those_of_the_loop(duration: MegaTTS3DurationModel) -> None:
    phones, tones = DurationTester().text(2)
    tokens = duration.predict(None, phones, tones)
    begin = torch.full((2, 1), duration.config.begin_token_id)
    with torch.no_grad():
        logits = duration(phones, tones, torch.cat([begin, tokens[:, :-1]], dim=1)).logits
    expected = logits[..., 0].round().long() if duration.is_regression else logits.argmax(-1)
    assert torch.equal(tokens[:, 1:], expected.clamp(1, 129)[:, 1:])


def test_durations_beyond_the_table_are_the_longest() -> None:
    model = spread(DurationTester().model())
    model.head.bias.data.fill_(500.0)
    assert model.predict(None, *DurationTester().text(1)).eq(model.config.begin_token_id).all()
    phones, tones = DurationTester().text(1)
    longest = model.prompt(phones, tones, torch.full((1, 7), 127))
    assert torch.equal(model.prompt(phones, tones, torch.full((1, 7), 300)).keys, longest.keys)


def test_only_the_first_duration_may_be_nothing() -> None:
    model = spread(DurationTester().model())
    model.head.weight.data.zero_()
    model.head.bias.data.fill_(-20.0)
    assert model.predict(None, *DurationTester().text(1))[0].tolist() == [0, 1, 1, 1, 1, 1, 1]


def test_draws_follow_the_generator() -> None:
    model = spread(DurationTester().model(head_type="classification"))
    phones, tones = DurationTester().text(1)

    def draw(seed: int, top_k: int = 0) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return model.predict(
            None, phones, tones, do_sample=True, temperature=2.0, top_k=top_k, generator=generator
        ).tolist()

    assert draw(0) == draw(0) != draw(1)
    assert draw(0, top_k=1) == model.predict(None, phones, tones).tolist()


def test_regression_loss_is_the_mean_square_of_the_tokens() -> None:
    model = spread(DurationTester().model())
    inputs = DurationTester().training_inputs()
    with torch.no_grad():
        output = model(**inputs)
    counted = (inputs["phone_ids"] > 0) & (inputs["labels"] >= 0)
    errors = (output.logits[..., 0] - inputs["labels"])[counted].square()
    torch.testing.assert_close(output.loss, errors.mean())


def test_duration_prompt_moves_and_changes_precision() -> None:
    prompt = DurationTester().model().prompt(*DurationTester().text(1), ids(1, 90, 1, 7))
    halved = prompt.to("cpu", torch.bfloat16)
    assert halved.keys.dtype == torch.bfloat16 and halved.lengths.dtype == torch.long


def test_buckets_change_nothing(duration: MegaTTS3DurationModel) -> None:
    text = DurationTester().text(2, 6, seed=3)
    prompts = [duration.prompt(*DurationTester().text(2, count), ids(1, 100, 2, count)) for count in (2, 9)]
    plain = [duration.predict(prompt, *text) for prompt in (None, *prompts)]
    bucketed = copy.deepcopy(duration.use_cuda_graphs(8))
    assert duration.use_cuda_graphs(None) is duration
    for _ in range(2):
        for prompt, expected in zip((None, *prompts), plain, strict=True):
            assert torch.equal(bucketed.predict(prompt, *text), expected)
    with pytest.raises(ValueError, match="bucket_phones.*0"):
        duration.use_cuda_graphs(0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_graphs_write_the_same_durations() -> None:
    model = spread(DurationTester().model()).cuda()
    text = [each.cuda() for each in DurationTester().text(2, 6, seed=3)]
    prompt = model.prompt(*(each.cuda() for each in DurationTester().text(2, 5)), ids(1, 100, 2, 5).cuda())
    plain = [model.predict(each, *text) for each in (None, prompt)]
    model.use_cuda_graphs(16)
    for _ in range(2):
        assert all(map(torch.equal, plain, [model.predict(each, *text) for each in (None, prompt)]))

"""MegaTTS3 as a whole: its networks side by side, each with its loss, and what a folder of it holds."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM

from tests.models.megatts3.tester import Tester, load_tokenizer
from tts_models import (
    MegaTTS3AlignerForConditionalGeneration,
    MegaTTS3DurationModel,
    MegaTTS3ForConditionalGeneration,
    MegaTTS3TransformerModel,
    MegaTTS3VAEModel,
)


LOSSES = {
    "transformer": ("phone_ids", "tone_ids", "frame_map", "labels", "training_draws"),
    "duration": ("phone_ids", "tone_ids", "duration_labels"),
    "g2p": ("input_ids", "attention_mask", "g2p_labels"),
    "aligner": ("input_features", "aligner_labels"),
}


@pytest.mark.parametrize("part", LOSSES)
def test_each_loss_trains_its_network_alone(part: str) -> None:
    model, inputs = Tester().model().train(), Tester().training_inputs()
    output = model(**{name: inputs[name] for name in LOSSES[part]})
    assert torch.equal(output.loss, output[f"{part}_loss"])
    assert {name for name in output if name.endswith("_loss")} == {f"{part}_loss"}
    output.loss.backward()
    trained = {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert trained == {part}


def test_losses_add_up() -> None:
    model, inputs = Tester().model(), Tester().training_inputs()
    inputs.pop("duration_ids")
    with torch.no_grad():
        together = model(**inputs)
        alone = [model(**{name: inputs[name] for name in names}).loss for names in LOSSES.values()]
    torch.testing.assert_close(together.loss, sum(alone))


def test_each_loss_is_that_of_the_network_itself() -> None:
    model, inputs = Tester().model(), Tester().training_inputs()
    inputs.pop("duration_ids")
    with torch.no_grad():
        output = model(**inputs)
        g2p = model.g2p(inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=inputs["g2p_labels"])
        aligner = model.aligner(inputs["input_features"], labels=inputs["aligner_labels"])
        duration = model.duration(inputs["phone_ids"], inputs["tone_ids"], labels=inputs["duration_labels"])
    for name, expected in (("g2p", g2p), ("aligner", aligner), ("duration", duration)):
        torch.testing.assert_close(output[f"{name}_loss"], expected.loss)


def test_vae_is_frozen_whatever_the_mode(tmp_path: Path) -> None:
    model = Tester().model()
    model.save_pretrained(tmp_path)
    for each in (model, MegaTTS3ForConditionalGeneration.from_pretrained(tmp_path)):
        each.train()
        assert each.transformer.training and not each.vae.training
        assert {name.partition(".")[0] for name, p in each.named_parameters() if not p.requires_grad} == {"vae"}


def test_half_precision_spares_what_is_rounded_or_heard(tmp_path: Path) -> None:
    Tester().model().save_pretrained(tmp_path)
    model = MegaTTS3ForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    kinds = {part: {p.dtype for p in getattr(model, part).parameters()} for part in (*LOSSES, "vae")}
    whole, half = {torch.float32}, {torch.bfloat16}
    assert kinds == {"aligner": whole, "duration": whole, "vae": whole, "g2p": half, "transformer": half}
    spoken = model.generate(**Tester().processor()(text="One, two."), seed=0, max_new_tokens=5, num_inference_steps=2)
    assert spoken.audio.dtype == torch.float32 and spoken.audio.isfinite().all()


def test_parts_save_and_load_alone(tmp_path: Path) -> None:
    model = Tester().model()
    classes = {
        "aligner": MegaTTS3AlignerForConditionalGeneration,
        "g2p": Qwen2ForCausalLM,
        "duration": MegaTTS3DurationModel,
        "transformer": MegaTTS3TransformerModel,
        "vae": MegaTTS3VAEModel,
    }
    for part, part_class in classes.items():
        whole = getattr(model, part)
        assert type(whole) is part_class
        whole.save_pretrained(tmp_path / part)
        weights = part_class.from_pretrained(tmp_path / part).state_dict()
        assert all(torch.equal(weights[name], tensor) for name, tensor in whole.state_dict().items())


def test_g2p_is_a_plain_language_model(tmp_path: Path) -> None:
    model = Tester().model()
    model.g2p.save_pretrained(tmp_path)
    load_tokenizer().save_pretrained(tmp_path)
    alone, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    prompt = tokenizer("<BOT>one<BOS><Reserved_TTS_145>", return_tensors="pt")
    written = alone.generate(**prompt, max_new_tokens=4, do_sample=False)
    assert torch.equal(written, model.g2p.generate(**prompt, max_new_tokens=4, do_sample=False))
    assert model.g2p.lm_head.weight is model.g2p.model.embed_tokens.weight


def test_a_checkpoint_without_the_encoder_stays_one(tmp_path: Path) -> None:
    model = Tester().model(vae_config={"has_encoder": False})
    assert not any(name.startswith(("vae.encoder.", "vae.latent_projection")) for name in model.state_dict())
    model.save_pretrained(tmp_path)
    reloaded = MegaTTS3ForConditionalGeneration.from_pretrained(tmp_path)
    assert not reloaded.config.vae_config.has_encoder
    with pytest.raises(ValueError, match=r"\.npy"):
        reloaded.vae.encode(torch.zeros(1, 1920))


def test_cuda_graphs_change_nothing_elsewhere() -> None:
    model, inputs = Tester().model(), Tester().processor()(text="One, two.")
    plain = model.generate(**inputs, seed=0, max_new_tokens=5, num_inference_steps=2)
    for enabled in (True, False):
        assert model.use_cuda_graphs(enabled) is model
        again = model.generate(**inputs, seed=0, max_new_tokens=5, num_inference_steps=2)
        torch.testing.assert_close(again.audio, plain.audio)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "Nothing to compute"),
        (("labels",), "phone_ids.*tone_ids.*frame_map.*labels"),
        (("duration_labels", "phone_ids"), "tone_ids.*duration_labels"),
        (("aligner_labels",), "input_features.*aligner_labels"),
    ],
)
def test_missing_inputs_are_named(given: tuple[str, ...], message: str) -> None:
    inputs = Tester().training_inputs()
    with pytest.raises(ValueError, match=message):
        Tester().model()(**{name: inputs[name] for name in given})

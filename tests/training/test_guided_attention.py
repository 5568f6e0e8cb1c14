"""The guide shows a head the diagonal, and a model learns to follow it."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

from tts_models.training.guided_attention import GuidedAttentionTrainer, diagonal_places, guided_attention_loss


def positions() -> tuple[torch.BoolTensor, torch.BoolTensor]:
    is_text = torch.tensor([[0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]], dtype=torch.bool)
    is_speech = torch.tensor([[0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]], dtype=torch.bool)
    return is_text, is_speech


def attention_at(places: list[int]) -> torch.Tensor:
    """Attention of the eight speech positions on one text token each (text starts at position 1)."""
    attention = torch.zeros(1, 14, 14)
    attention[0, torch.arange(6, 14), torch.tensor(places) + 1] = 1.0
    return attention


def test_diagonal_runs_from_first_to_last() -> None:
    places = diagonal_places(*positions(), margin=0.0)
    assert (places[0, :6] == -1).all() and places[0, 6:].diff().gt(0).all()
    assert places[0, 6:].round().clamp(0, 3).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_margin_is_silence_at_both_ends() -> None:
    places = diagonal_places(*positions(), margin=2.0)[0, 6:].round().clamp(0, 3)
    assert places.tolist() == [0, 0, 0, 1, 2, 3, 3, 3]


def test_loss_prefers_the_right_places() -> None:
    is_text, is_speech = positions()
    places = torch.where(is_speech, torch.tensor([[0] * 6 + [0, 0, 1, 1, 2, 2, 3, 3]]), -1)
    losses = [
        guided_attention_loss(attention_at(looked_at), is_text, places, width=0.7).item()
        for looked_at in ([0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 1, 1, 2, 2, 3, 3], [3, 3, 2, 2, 1, 1, 0, 0])
    ]
    assert losses[0] < 1e-3 and losses == sorted(losses)
    nothing = guided_attention_loss(torch.zeros(1, 14, 14), is_text, places, width=0.7)
    assert torch.isfinite(nothing)


@pytest.mark.parametrize("aligned", [False, True])
def test_trainer_moves_the_head_to_the_text(tmp_path, aligned: bool) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        attn_implementation="eager",
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    ids = torch.tensor([0, 1, 2, 3, 4, 20, 21, 22, 23, 24, 25, 26, 27, 28])
    example = {"input_ids": ids, "labels": torch.where(ids < 21, -100, ids)}
    is_text, is_speech = positions()
    places = torch.where(is_speech, torch.tensor([[0] * 6 + [0, 3, 3, 3, 3, 3, 3, 3]]), -1).roll(-1, 1)
    if aligned:
        example["text_places"] = places[0]
    else:
        places = diagonal_places(is_text, is_speech.roll(-1, 1), 0.0)
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=40,
        learning_rate=1e-2,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        remove_unused_columns=False,
    )
    trainer = GuidedAttentionTrainer(
        model=model, args=arguments, train_dataset=[example] * 4, text_token_ids=[1, 2, 3, 4], guide_weight=1.0,
        guide_until=1.0, guide_width=0.7,
    )  # fmt: skip

    def guide() -> float:
        with torch.no_grad():
            attention = model.eval()(ids[None], output_attentions=True).attentions[1][:, 0]
        return guided_attention_loss(attention, is_text, places, 0.7).item()

    before = guide()
    trainer.train()
    assert guide() < 0.7 * before

"""The guide shows a head the diagonal, and a model learns to follow it."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

from tts_models.training.guided_attention import GuidedAttentionTrainer, diagonal_weights, guided_attention_loss


def positions() -> tuple[torch.BoolTensor, torch.BoolTensor]:
    is_text = torch.tensor([[0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]], dtype=torch.bool)
    is_speech = torch.tensor([[0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]], dtype=torch.bool)
    return is_text, is_speech


def test_diagonal_runs_from_first_to_last() -> None:
    weights = diagonal_weights(*positions(), width=0.1, margin=0.0)
    assert weights[0, 6].argmax() == 1 and weights[0, 13].argmax() == 4
    assert weights[0, :6].sum() == 0 and weights[0, :, 5:].sum() == 0


def test_margin_is_silence_at_both_ends() -> None:
    weights = diagonal_weights(*positions(), width=0.1, margin=2.0)
    assert weights[0, 6:9].argmax(-1).tolist() == [1, 1, 1] and weights[0, 12:14].argmax(-1).tolist() == [4, 4]


def test_loss_prefers_the_diagonal() -> None:
    is_text, is_speech = positions()
    good = diagonal_weights(is_text, is_speech, 0.05, 0.0)
    good = good / good.sum(-1, keepdim=True).clamp(min=1e-9)
    assert guided_attention_loss(good, is_text, is_speech, 0.1, 0.0) < guided_attention_loss(
        good.flip(1), is_text, is_speech, 0.1, 0.0
    )


@pytest.mark.parametrize("weight", [1.0])
def test_trainer_moves_the_head_to_the_diagonal(tmp_path, weight: float) -> None:
    config = LlamaConfig(
        vocab_size=32, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        attn_implementation="eager",
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    ids = torch.tensor([0, 1, 2, 3, 4, 20, 21, 22, 23, 24, 25, 26, 27, 28])
    example = {"input_ids": ids, "labels": torch.where(ids < 21, -100, ids)}
    arguments = TrainingArguments(
        str(tmp_path), max_steps=40, learning_rate=1e-2, report_to="none", save_strategy="no", use_cpu=True
    )
    trainer = GuidedAttentionTrainer(
        model=model, args=arguments, train_dataset=[example] * 4, text_token_ids=[1, 2, 3, 4], guide_weight=weight,
        guide_until=1.0,
    )  # fmt: skip
    is_text, is_speech = positions()

    def guide() -> float:
        with torch.no_grad():
            attention = model.eval()(ids[None], output_attentions=True).attentions[1][:, 0]
        return guided_attention_loss(attention, is_text, is_speech.roll(-1, 1), 0.08, 0.0).item()

    before = guide()
    trainer.train()
    assert guide() < 0.7 * before

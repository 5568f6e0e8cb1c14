"""Fine-tuning Maya1: the loss goes down with `Trainer`, and `peft` adapters come and go."""

from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainingArguments

from tests.common.comparing import assert_close
from tests.models.maya1.tester import VOICE, Tester, tiny_processor
from tts_models import Maya1ForConditionalGeneration


def examples(count: int = 4) -> list[dict[str, list[int]]]:
    """Training examples with seeded codes."""
    processor, generator = tiny_processor(), torch.Generator().manual_seed(0)
    codes = [[torch.randint(16, (5 * n,), generator=generator) for n in (1, 2, 4)] for _ in range(count)]
    return [processor.encode_training_example(f"Sentence {i}.", VOICE, levels) for i, levels in enumerate(codes)]


def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Right padding."""
    length = max(len(row["input_ids"]) for row in rows)
    return {
        "input_ids": torch.tensor([row["input_ids"] + [398] * (length - len(row["input_ids"])) for row in rows]),
        "labels": torch.tensor([row["labels"] + [-100] * (length - len(row["labels"])) for row in rows]),
        "attention_mask": torch.tensor(
            [[1] * len(row["input_ids"]) + [0] * (length - len(row["input_ids"])) for row in rows]
        ),
    }


def train(model: torch.nn.Module, folder: Path, steps: int) -> list[float]:
    """Some steps on the same examples; returns the losses."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        seed=0,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=examples(), data_collator=collate)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_loss_ignores_prompt_and_padding() -> None:
    model, rows = Tester().model(), examples(2)
    with torch.no_grad():
        together = model(**collate(rows)).loss
        alone = [model(**collate([row])).loss for row in rows]
    assert_close(together, torch.stack(alone).mean(), 1e-4)


def test_trainer_lowers_the_loss(tmp_path: Path) -> None:
    model = Tester().model()
    codec = {name: p.clone() for name, p in model.codec_model.named_parameters()}
    losses = train(model, tmp_path, steps=8)
    assert losses[-1] < 0.8 * losses[0]
    # The codec is frozen.
    assert all(torch.equal(p, codec[name]) for name, p in model.codec_model.named_parameters())
    model.save_pretrained(tmp_path / "tuned")
    reloaded = Maya1ForConditionalGeneration.from_pretrained(tmp_path / "tuned")
    inputs = tiny_processor()(text="Sentence 1.", voice=VOICE)
    options = {"seed": 0, "max_new_tokens": 35}
    assert torch.equal(reloaded.generate(**inputs, **options).audio, model.eval().generate(**inputs, **options).audio)


def test_adapter_is_trained_saved_and_loaded(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    inputs, options = tiny_processor()(text="Sentence 1.", voice=VOICE), {"seed": 0, "max_new_tokens": 35}
    before = Tester().model().generate(**inputs, **options)
    config = peft.LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "up_proj"])
    adapted = peft.get_peft_model(Tester().model(), config)
    losses = train(adapted, tmp_path, steps=8)
    assert losses[-1] < losses[0]
    adapted.save_pretrained(tmp_path / "adapter")
    reloaded = peft.PeftModel.from_pretrained(Tester().model(), tmp_path / "adapter").eval()
    spoken = reloaded.generate(**inputs, **options)
    assert torch.equal(spoken.sequences, adapted.eval().generate(**inputs, **options).sequences)
    with reloaded.disable_adapter():
        assert torch.equal(reloaded.generate(**inputs, **options).sequences, before.sequences)
    merged = reloaded.merge_and_unload()
    assert isinstance(merged, Maya1ForConditionalGeneration)
    assert torch.equal(merged.generate(**inputs, **options).sequences, spoken.sequences)

"""Training Qwen3-TTS: what a batch looks like, `Trainer`, `peft`, and what the losses do not depend on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

from tests.common.comparing import assert_close
from tests.models.qwen3_tts.tester import CODES, GROUPS, LANGUAGES, SPEAKERS, WIDTH, Tester
from tts_models.models.qwen3_tts.processing_qwen3_tts import SPEECH_TURN
from tts_models.models.qwen3_tts.training_qwen3_tts import store_speakers, training_batch


def examples(count: int = 4) -> list[dict[str, Any]]:
    """Texts with seeded codes."""
    generator, processor = torch.Generator().manual_seed(0), Tester().processor()
    return [
        {
            "text_ids": processor.turn_ids(SPEECH_TURN, f"Text {row}.")[:-5],
            "codes": torch.randint(CODES, (4 + 2 * row, GROUPS), generator=generator),
        }
        for row in range(count)
    ]


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch of one speaker."""
    texts, codes = [row["text_ids"] for row in rows], [row["codes"] for row in rows]
    return training_batch(Tester().config(), texts, codes, speaker_ids=[SPEAKERS["alice"]] * len(rows))


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
        remove_unused_columns=False,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=examples(), data_collator=collate)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_trainer_lowers_the_loss(tmp_path: Path) -> None:
    losses = train(Tester().model(), tmp_path, steps=8)
    assert losses[-1] < 0.9 * losses[0]


def test_adapter_trains_and_is_reloaded(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "up_proj"])
    adapted = peft.get_peft_model(Tester().model(), config)
    losses = train(adapted, tmp_path, steps=6)
    assert losses[-1] < losses[0]
    adapted.save_pretrained(tmp_path / "adapter")
    reloaded = peft.PeftModel.from_pretrained(Tester().model(), tmp_path / "adapter").eval()
    inputs = Tester().processor()(text="Hello.")
    one, other = (each.eval().generate(**inputs, seed=0, max_frames=4) for each in (adapted, reloaded))
    assert torch.equal(one.audio, other.audio)


def test_prompt_of_a_batch_is_the_one_that_generate_reads() -> None:
    """The state before the first frame is the same in training and in speech."""
    model, example = Tester().model(), examples(1)[0]
    batch = training_batch(
        model.config,
        [example["text_ids"]],
        [example["codes"]],
        language_ids=[LANGUAGES["english"]],
        speaker_ids=[SPEAKERS["alice"]],
    )
    inputs = Tester().processor()(text="Text 0.", voice="alice", language="english")
    output = model.generate(**inputs, do_sample=False, repetition_penalty=1.0, max_frames=1)
    before = int((batch["labels"][0] == -100).sum()) - 1
    scores = model(**batch).logits[0, before, :CODES]
    assert int(scores.argmax()) == int(output.audio_codes[0][0, 0])


def test_loss_ignores_the_padding() -> None:
    model, rows = Tester().model(), examples(2)
    longer = collate(rows)
    alone = model(**collate(rows[:1])).talker_loss
    labels = longer["labels"].clone()
    labels[1] = -100
    with torch.no_grad():
        assert_close(model(**longer | {"labels": labels}).talker_loss, alone.detach(), 1e-5)


def test_voices_are_added_where_the_layout_leaves_room() -> None:
    model, rows = Tester().model(kind="base"), examples(2)
    vectors = torch.randn(2, WIDTH, requires_grad=True)
    batch = training_batch(model.config, [r["text_ids"] for r in rows], [r["codes"] for r in rows], vectors)
    assert batch["speaker_positions"].tolist() == [6, 6] and not batch["speaker_embeddings"].requires_grad
    assert (batch["codec_ids"][:, 6] == -1).all()
    other = model(**batch | {"speaker_embeddings": -batch["speaker_embeddings"]})
    assert not torch.equal(model(**batch).loss, other.loss)
    with pytest.raises(ValueError, match="speaker_positions"):
        model(**batch | {"speaker_positions": None})


def test_shipped_loss_differs() -> None:
    """It needs text rows as wide as the talker: upstream's script leaves the projection out."""
    talker = {"text_hidden_size": WIDTH}
    model = Tester().model(talker=talker)
    aligned, shipped = (model(**collate(examples(2)), loss_type=name).loss for name in ("aligned", "shipped"))
    assert not torch.equal(aligned, shipped)


def test_stored_speaker_speaks_by_name() -> None:
    model, vector = Tester().model(kind="base"), torch.randn(WIDTH)
    store_speakers(model, {"ann": vector, "ben": -vector}, first_row=70)
    assert model.config.tts_model_type == "custom_voice" and model.speaker_encoder is None
    assert torch.equal(model.talker.model.codec_embedding.weight[71], -vector)
    assert model.config.talker_config.spk_id == {"ann": 70, "ben": 71}


@pytest.mark.parametrize(
    ("speakers", "row", "message"),
    [
        ({}, 70, "`speakers`"),
        ({"ann": torch.zeros(WIDTH + 1)}, 70, "speakers.'ann'"),
        ({"ann": torch.zeros(WIDTH)}, LANGUAGES["english"], "`first_row`"),
        ({"ann": torch.zeros(WIDTH)}, 10**6, "`first_row`"),
    ],
)
def test_impossible_speakers_are_refused(speakers: dict, row: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        store_speakers(Tester().model(kind="base"), speakers, row)


@pytest.mark.parametrize(
    ("texts", "codes"),
    [
        ([[1, 2, 3, 4]], []),
        ([], []),
        ([[1, 2, 3]], [torch.zeros(2, GROUPS).long()]),
        ([[1, 2, 3, 4]], [torch.zeros(0, GROUPS).long()]),
        ([[1, 2, 3, 4]], [torch.zeros(2, GROUPS + 1).long()]),
        ([[1, 2, 3, 4]], [torch.full((2, GROUPS), -1)]),
    ],
)
def test_bad_batches_are_refused(texts: list, codes: list) -> None:
    with pytest.raises(ValueError, match="text_ids|audio_codes"):
        training_batch(Tester().config(), texts, codes)

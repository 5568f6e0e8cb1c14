"""Fine-tune Chatterbox' T3 on recordings: a language, an accent, a way of speaking.

    python examples/finetune_chatterbox.py --model chatterbox-hf --data train.jsonl --output my_chatterbox

Every line of `train.jsonl` is an object with `audio` and `text`, and, if wanted, `ref_audio` (another recording of the
same speaker, heard by the model as the voice; the audio itself by default) and `language` (of a multilingual model).
File names are relative to the file. Voice encoder and S3Gen stay as they are. Some rows lose their text, so that the
model can still be guided by one. Train on a voice only with the consent of the person it belongs to.

    model = AutoModelForTextToWaveform.from_pretrained("my_chatterbox")
    processor = AutoProcessor.from_pretrained("my_chatterbox")
    speech = model.generate(**processor(text="Hello.", voice="reference.wav"))
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from tts_models.audio import load_audio
from tts_models.models.chatterbox import ChatterboxForConditionalGeneration, ChatterboxProcessor
from tts_models.models.chatterbox.training_chatterbox import training_batch


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder or Hub id of a converted checkpoint")
    parser.add_argument("--data", type=Path, required=True, help="JSONL of audio, text, ref_audio, language")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--default_voice", type=Path, help="recording that the result speaks with by default")
    parser.add_argument("--lora", action="store_true", help="train low-rank adapters instead of all weights (peft)")
    parser.add_argument("--lora_rank", type=int, default=16)
    parser.add_argument("--text_dropout", type=float, default=0.15, help="share of the rows that lose their text")
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--max_steps", type=int, default=-1)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--gradient_accumulation_steps", type=int, default=2)
    parser.add_argument("--learning_rate", type=float, default=5e-5)
    parser.add_argument("--warmup_steps", type=int, default=100)
    parser.add_argument("--eval_share", type=float, default=0.02, help="share of the lines held out")
    parser.add_argument("--logging_steps", type=int, default=10)
    parser.add_argument("--report_to", default="none", help="a logger of transformers.Trainer, such as wandb")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines, complete: `audio` and `ref_audio` as paths, `language` filled in."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        row = json.loads(line)
        if not isinstance(row, dict) or not {"audio", "text"} <= set(row):
            raise ValueError(f"{path}, line {number}: expected an object with `audio` and `text`, got {line:.80}.")
        row = {"ref_audio": row["audio"], "language": None} | row
        for name in ("audio", "ref_audio"):
            row[name] = path.parent / row[name]
            if not row[name].is_file():
                raise ValueError(f"{path}, line {number}: there is no file {row[name]}.")
        rows.append(row)
    if len(rows) < 2:
        raise ValueError(f"{path} must hold at least two lines, one of them to be held out; got {len(rows)}.")
    return rows


@torch.no_grad()
def encode(
    model: ChatterboxForConditionalGeneration, processor: ChatterboxProcessor, rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Text ids, speech tokens and voice of every line; a voice is prepared once."""
    tokenizer, voices, examples = model.s3gen.tokenizer, {}, []
    for row in rows:
        samples, _ = load_audio(row["audio"], tokenizer.config.sampling_rate)
        tokens, lengths = tokenizer.tokenize([torch.from_numpy(samples).to(model.device)])
        if row["ref_audio"] not in voices:
            voices[row["ref_audio"]] = processor.prepare_voice(model, row["ref_audio"])
        inputs = processor(
            text=row["text"], voice=voices[row["ref_audio"]], language=row["language"], split_long_text=False
        )
        text = inputs["input_ids"][0, inputs["attention_mask"][0].bool()]
        examples.append(
            {
                "text_ids": text.tolist(),
                "speech_tokens": tokens[0, : int(lengths[0])].cpu(),
                "voice": voices[row["ref_audio"]],
            }
        )
    return examples


def add_adapters(model: ChatterboxForConditionalGeneration, rank: int):
    from peft import LoraConfig, get_peft_model

    layers = r"t3\.backbone\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj|c_attn|c_proj|c_fc)"
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers))


def main() -> None:
    args = parse_args()
    rows = read_lines(args.data)
    processor = ChatterboxProcessor.from_pretrained(args.model)
    model = ChatterboxForConditionalGeneration.from_pretrained(args.model, dtype=torch.float32)
    examples = encode(model, processor, rows)
    if args.default_voice is not None:
        processor.default_voice = processor.prepare_voice(model, args.default_voice)
    random.Random(args.seed).shuffle(examples)
    held_out = max(1, round(args.eval_share * len(examples)))
    config, draws = model.config.t3_config, torch.Generator().manual_seed(args.seed)

    def collate(batch: list[dict[str, Any]]) -> dict[str, Any]:
        return training_batch(
            config,
            [example["text_ids"] for example in batch],
            [example["speech_tokens"] for example in batch],
            [example["voice"] for example in batch],
            text_dropout=args.text_dropout if trainer.model.training and config.is_guided else 0.0,
            generator=draws,
        )

    if args.lora:
        model = add_adapters(model, args.lora_rank)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(args.output / "checkpoints"),
            num_train_epochs=args.epochs,
            max_steps=args.max_steps,
            per_device_train_batch_size=args.batch_size,
            per_device_eval_batch_size=args.batch_size,
            gradient_accumulation_steps=args.gradient_accumulation_steps,
            learning_rate=args.learning_rate,
            warmup_steps=args.warmup_steps,
            eval_strategy="epoch",
            save_strategy="no",
            logging_steps=args.logging_steps,
            report_to=args.report_to,
            bf16=args.bf16,
            seed=args.seed,
            remove_unused_columns=False,  # the collator reads them
            label_names=["labels"],
            prediction_loss_only=True,
        ),
        train_dataset=examples[held_out:],
        eval_dataset=examples[:held_out],
        data_collator=collate,
    )
    print(f"{len(examples) - held_out} training examples; loss before: {trainer.evaluate()['eval_loss']:.4f}")
    trainer.train()
    print(f"loss after: {trainer.evaluate()['eval_loss']:.4f}")
    if args.lora:
        model.save_pretrained(args.output / "adapter")
        model = model.merge_and_unload()
    model.save_pretrained(args.output)
    processor.save_pretrained(args.output)
    print(f"saved: {args.output}")


if __name__ == "__main__":
    main()

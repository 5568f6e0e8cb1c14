"""Train or fine-tune a Maya1 checkpoint from audio files and their texts.

    python examples/finetune_maya1.py --metadata my_voice/metadata.csv --output my_voice_model --lora

`metadata.csv` has lines `file|text` or `file|text|voice description`, files relative to it. Without `--model` the
default voice that ships with the package is the start. The audio is encoded once and kept in
`OUTPUT/codes.safetensors`. The result is a `from_pretrained` folder; with `--lora` the adapter is merged into it and
also kept in `OUTPUT/adapter`.
"""

import argparse
import csv
import random
from pathlib import Path

from transformers import Trainer, TrainingArguments

from tts_models import DEFAULT_VOICE
from tts_models.models.maya1 import Maya1ForConditionalGeneration, Maya1Processor
from tts_models.training.alignment import estimate_unit_ends
from tts_models.training.audio_dataset import Recording, read_metadata
from tts_models.training.muon import MuonAdamW
from tts_models.training.speech_dataset import SpeechTokenCollator, SpeechTokenDataset, encode_recordings


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metadata", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default=str(DEFAULT_VOICE), help="folder or Hub id to start from")
    parser.add_argument("--lora", action="store_true", help="train low-rank adapters instead of all weights (peft)")
    parser.add_argument("--lora_rank", type=int, default=16)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--max_steps", type=int, default=-1)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--learning_rate", type=float, default=2e-4)
    parser.add_argument(
        "--muon_learning_rate",
        type=float,
        help="train the matrices with Muon at this rate (for training from scratch)",
    )
    parser.add_argument(
        "--phoneme_ends",
        type=Path,
        help="table `file|seconds seconds …`: when each phoneme of the text ends, for checkpoints with aligned text; "
        "estimated with the checkpoint itself when not given",
    )
    parser.add_argument(
        "--code_noise",
        type=float,
        default=0.0,
        help="share of past audio tokens replaced at random, so that the text is listened to (from scratch: 0.15)",
    )
    parser.add_argument("--warmup_steps", type=int, default=20)
    parser.add_argument("--max_length", type=int, default=2048, help="examples of more tokens are left out")
    parser.add_argument("--eval_share", type=float, default=0.02, help="share of the examples held out")
    parser.add_argument("--save_steps", type=int, default=500)
    parser.add_argument("--logging_steps", type=int, default=10)
    parser.add_argument("--report_to", default="none", help="a logger of transformers.Trainer, such as wandb")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument(
        "--compile", action="store_true", help="compile the language model: a minute more, then faster"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def add_adapters(model: Maya1ForConditionalGeneration, rank: int):
    from peft import LoraConfig, get_peft_model

    layers = r"language_model\..*\.(q|k|v|o|gate|up|down)_proj"
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers))


def make_muon(model: Maya1ForConditionalGeneration, args: argparse.Namespace) -> MuonAdamW:
    return MuonAdamW(model, args.muon_learning_rate, adam_learning_rate=args.learning_rate)


def read_phoneme_ends(path: Path, recordings: list[Recording]) -> list[list[float]]:
    with path.open(newline="", encoding="utf-8") as file:
        ends = {
            path.parent / name: [float(end) for end in times.split()]
            for name, times in csv.reader(file, delimiter="|")
        }
    return [ends[recording.path] for recording in recordings]


def make_datasets(args: argparse.Namespace, model: Maya1ForConditionalGeneration, processor: Maya1Processor):
    """Examples to learn from, and those held out."""
    recordings = read_metadata(args.metadata)
    columns = [recordings, encode_recordings(model.codec_model, recordings, cache=args.output / "codes.safetensors")]
    if args.phoneme_ends is not None:
        columns.append(read_phoneme_ends(args.phoneme_ends, recordings))
    elif processor.aligned_text_layout is not None:
        columns.append(estimate_unit_ends(model.eval(), processor, recordings))
    rows = list(zip(*columns, strict=True))
    random.Random(args.seed).shuffle(rows)
    held_out = max(1, round(args.eval_share * len(rows)))
    for part, noise in ((rows[held_out:], args.code_noise), (rows[:held_out], 0.0)):
        recordings, codes, *ends = zip(*part, strict=True)
        yield SpeechTokenDataset(processor, recordings, codes, args.max_length, *ends, code_noise=noise)


def main() -> None:
    args = parse_args()
    processor = Maya1Processor.from_pretrained(args.model)
    model = Maya1ForConditionalGeneration.from_pretrained(args.model)
    train, evaluation = make_datasets(args, model, processor)
    if args.lora:
        model = add_adapters(model, args.lora_rank)
    if args.compile:
        model.language_model.model.compile(dynamic=True)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(args.output / "checkpoints"),
            num_train_epochs=args.epochs,
            max_steps=args.max_steps,
            per_device_train_batch_size=args.batch_size,
            per_device_eval_batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            warmup_steps=args.warmup_steps,
            lr_scheduler_type="cosine",
            weight_decay=0.01,
            adam_beta2=0.98,
            train_sampling_strategy="group_by_length",
            eval_strategy="steps",
            eval_steps=args.save_steps,
            save_steps=args.save_steps,
            save_total_limit=2,
            logging_steps=args.logging_steps,
            report_to=args.report_to,
            bf16=args.bf16,
            seed=args.seed,
        ),
        train_dataset=train,
        eval_dataset=evaluation,
        data_collator=SpeechTokenCollator(model.config.pad_token_id, constrain_slots=True),
        optimizers=(None if args.muon_learning_rate is None else make_muon(model, args), None),
    )
    print(f"{len(train)} training examples; loss before training: {trainer.evaluate()['eval_loss']:.4f}")
    trainer.train()
    print(f"loss after training: {trainer.evaluate()['eval_loss']:.4f}")
    if args.lora:
        model.save_pretrained(args.output / "adapter")
        model = model.merge_and_unload()
    model.save_pretrained(args.output)
    processor.save_pretrained(args.output)
    print(f"saved: {args.output}")


if __name__ == "__main__":
    main()

"""What the fine-tuning scripts share around `transformers.Trainer`: options, held-out examples, adapters, saving."""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import nn
from transformers import PreTrainedModel, Trainer, TrainingArguments


Example = TypeVar("Example")

_NUMBERS: dict[str, tuple[type, Any, str]] = {
    "epochs": (float, 3, "passes over the examples"),
    "max_steps": (int, -1, "stop after this many updates instead"),
    "batch_size": (int, 4, "examples per forward pass and device"),
    "gradient_accumulation_steps": (int, 1, "forward passes per update"),
    "learning_rate": (float, 2e-5, "peak rate"),
    "warmup_steps": (int, 0, "updates until the peak rate is reached"),
    "eval_share": (float, 0.02, "share of the examples held out"),
    "logging_steps": (int, 10, "updates between two lines of the log"),
    "seed": (int, 0, "of the order of the examples and of the random draws"),
}


def add_training_options(parser: argparse.ArgumentParser, lora: bool = True, **defaults: Any) -> None:
    r"""
    Add the options that every fine-tuning script has: `--epochs`, `--max_steps`, `--batch_size`,
    `--gradient_accumulation_steps`, `--learning_rate`, `--warmup_steps`, `--eval_share`, `--logging_steps`, `--seed`,
    `--report_to`, `--bf16`, and with `lora` also `--lora` and `--lora_rank`.

    Args:
        parser: What they are added to.
        lora: Whether the model can be trained through low-rank adapters.
        defaults: Values that differ from this module's, by option.
    """
    group = parser.add_argument_group("training")
    for name, (kind, default, text) in _NUMBERS.items():
        group.add_argument(f"--{name}", type=kind, default=defaults.pop(name, default), help=f"{text} (%(default)s)")
    if defaults:
        raise ValueError(f"`defaults` names no option: {sorted(defaults)}; allowed are {sorted(_NUMBERS)}.")
    group.add_argument("--report_to", default="none", help="a logger of transformers.Trainer, such as wandb")
    group.add_argument("--bf16", action="store_true", help="train in bfloat16")
    if lora:
        group.add_argument("--lora", action="store_true", help="train low-rank adapters instead of all weights (peft)")
        group.add_argument("--lora_rank", type=int, default=16)


def training_arguments(args: argparse.Namespace, **changes: Any) -> TrainingArguments:
    """The arguments of [`Trainer`] for the options of [`add_training_options`]; `changes` are its own keywords.

    Checkpoints go to `args.output / "checkpoints"`, and are only written where `changes` says when.
    """
    settings: dict[str, Any] = {
        "output_dir": str(args.output / "checkpoints"),
        "num_train_epochs": args.epochs,
        "max_steps": args.max_steps,
        "per_device_train_batch_size": args.batch_size,
        "per_device_eval_batch_size": args.batch_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "learning_rate": args.learning_rate,
        "warmup_steps": args.warmup_steps,
        "eval_strategy": "epoch",
        "save_strategy": "no",
        "logging_steps": args.logging_steps,
        "report_to": args.report_to,
        "bf16": args.bf16,
        "seed": args.seed,
        "remove_unused_columns": False,  # the collators read them
        "label_names": ["labels"],
        "prediction_loss_only": True,
    }
    return TrainingArguments(**settings | changes)


def hold_out(examples: Sequence[Example], args: argparse.Namespace) -> tuple[list[Example], list[Example]]:
    """Shuffled examples to learn from, and those held out: `args.eval_share` of them, at least one.

    Raises:
        ValueError: if there are fewer than two.
    """
    if len(examples) < 2:
        raise ValueError(f"at least two examples are needed, one of them to be held out; got {len(examples)}.")
    shuffled = list(examples)
    random.Random(args.seed).shuffle(shuffled)
    held_out = min(max(1, round(args.eval_share * len(shuffled))), len(shuffled) - 1)
    return shuffled[held_out:], shuffled[:held_out]


def read_json_lines(path: Path, **defaults: Any) -> list[dict[str, Any]]:
    """The objects of a JSONL file: `audio`, `text`, and `ref_audio`, which is the audio itself where none is given.

    `audio` and `ref_audio` become paths relative to the file; `defaults` fill in what else a line leaves out.

    Raises:
        ValueError: if a line is no such object or names a file that does not exist, or if there are fewer than two.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        row = json.loads(line)
        if not isinstance(row, dict) or not {"audio", "text"} <= set(row):
            raise ValueError(f"{path}, line {number}: expected an object with `audio` and `text`, got {line:.80}.")
        row = {"ref_audio": row["audio"], **defaults} | row
        for name in ("audio", "ref_audio"):
            row[name] = path.parent / row[name]
            if not row[name].is_file():
                raise ValueError(f"{path}, line {number}: there is no file {row[name]}.")
        rows.append(row)
    if len(rows) < 2:
        raise ValueError(f"{path} must hold at least two lines, one of them to be held out; got {len(rows)}.")
    return rows


def with_adapters(model: PreTrainedModel, layers: str, args: argparse.Namespace) -> nn.Module:
    """The model itself, or with `--lora` a peft model of it; `layers` is a regular expression of linear layers."""
    if not args.lora:
        return model
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=args.lora_rank, lora_alpha=2 * args.lora_rank, target_modules=layers))


def train_and_report(trainer: Trainer) -> None:
    """Train, and print the loss of the held-out examples before and after."""
    print(f"{len(trainer.train_dataset)} training examples; loss before: {trainer.evaluate()['eval_loss']:.4f}")
    trainer.train()
    print(f"loss after: {trainer.evaluate()['eval_loss']:.4f}")


def merged_model(model: nn.Module, args: argparse.Namespace) -> PreTrainedModel:
    """The trained model without adapters: with `--lora` they are merged, and kept in `args.output / "adapter"`."""
    if not args.lora:
        return model
    model.save_pretrained(args.output / "adapter")
    return model.merge_and_unload()


__all__ = [
    "add_training_options",
    "hold_out",
    "merged_model",
    "read_json_lines",
    "train_and_report",
    "training_arguments",
    "with_adapters",
]

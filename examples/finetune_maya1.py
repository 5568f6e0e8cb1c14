"""Train or fine-tune a Maya1 checkpoint from audio files and their texts.

    python examples/finetune_maya1.py --metadata my_voice/metadata.csv --output my_voice_model --lora

`metadata.csv` has lines `file|text` or `file|text|voice description`, files relative to it. Without `--model` the
default voice that ships with the package is the start. The audio is encoded once and kept in
`OUTPUT/codes.safetensors`. The result is a `from_pretrained` folder; with `--lora` the adapter is merged into it and
also kept in `OUTPUT/adapter`.
"""

import argparse
import csv
from pathlib import Path

from transformers import Trainer

from tts_models import DEFAULT_VOICE
from tts_models.models.maya1 import Maya1ForConditionalGeneration, Maya1Processor
from tts_models.training.alignment import estimate_unit_ends
from tts_models.training.audio_dataset import Recording, read_metadata
from tts_models.training.fine_tuning import (
    add_training_options,
    hold_out,
    merged_model,
    train_and_report,
    training_arguments,
    with_adapters,
)
from tts_models.training.muon import MuonAdamW
from tts_models.training.speech_dataset import SpeechTokenCollator, SpeechTokenDataset, encode_recordings


ADAPTED_LAYERS = r"language_model\..*\.(q|k|v|o|gate|up|down)_proj"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metadata", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default=str(DEFAULT_VOICE), help="folder or Hub id to start from")
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
    parser.add_argument("--max_length", type=int, default=2048, help="examples of more tokens are left out")
    parser.add_argument("--save_steps", type=int, default=500, help="updates between evaluations and checkpoints")
    parser.add_argument(
        "--compile", action="store_true", help="compile the language model: a minute more, then faster"
    )
    add_training_options(parser, batch_size=8, learning_rate=2e-4, warmup_steps=20)
    return parser.parse_args()


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
    train, held_out = hold_out(rows, args)
    for part, noise in ((train, args.code_noise), (held_out, 0.0)):
        recordings, codes, *ends = zip(*part, strict=True)
        yield SpeechTokenDataset(processor, recordings, codes, args.max_length, *ends, code_noise=noise)


def main() -> None:
    args = parse_args()
    processor = Maya1Processor.from_pretrained(args.model)
    model = Maya1ForConditionalGeneration.from_pretrained(args.model)
    train, evaluation = make_datasets(args, model, processor)
    model = with_adapters(model, ADAPTED_LAYERS, args)
    if args.compile:
        model.language_model.model.compile(dynamic=True)
    trainer = Trainer(
        model=model,
        args=training_arguments(
            args,
            lr_scheduler_type="cosine",
            weight_decay=0.01,
            adam_beta2=0.98,
            train_sampling_strategy="group_by_length",
            eval_strategy="steps",
            eval_steps=args.save_steps,
            save_strategy="steps",
            save_steps=args.save_steps,
            save_total_limit=2,
        ),
        train_dataset=train,
        eval_dataset=evaluation,
        data_collator=SpeechTokenCollator(model.config.pad_token_id, constrain_slots=True),
        optimizers=(None if args.muon_learning_rate is None else make_muon(model, args), None),
    )
    train_and_report(trainer)
    model = merged_model(trainer.model, args)
    model.save_pretrained(args.output)
    processor.save_pretrained(args.output)
    print(f"saved: {args.output}")


if __name__ == "__main__":
    main()

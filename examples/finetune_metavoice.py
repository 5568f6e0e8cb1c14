"""Fine-tune MetaVoice's first stage on recordings: a voice, an accent, another language written in Latin letters.

    python examples/finetune_metavoice.py --model metavoice-hf --data train.csv --validation val.csv --output my_voice

A table has two columns divided by `|`, `audio_files|captions`. A caption that names a text file stands for what is in
it; files are looked for beside the table, then in the working directory. Without `--validation` some rows are held
out; with it, recordings that are in both tables are refused. Clips of 5 to 10 seconds suit the model.

By default the last block and the last norm are trained, as upstream does; `--last_blocks 6` trains more of them,
`--full` everything, `--lora` adapters. The loss is upstream's, padding included: with `--ignore_padding` short clips
count for what is said in them. Train on a voice only with the consent of the person it belongs to.

    model = AutoModelForTextToWaveform.from_pretrained("my_voice")
    processor = AutoProcessor.from_pretrained("my_voice")
    speech = model.generate(**processor(text="Hello.", voice="reference.wav"))
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from tts_models.models.metavoice import MetaVoiceForConditionalGeneration, MetaVoiceProcessor
from tts_models.models.metavoice.training_metavoice import (
    encode_example,
    optimizer_groups,
    train_last_blocks,
    training_batch,
)
from tts_models.training.caption_table import check_disjoint, read_captions
from tts_models.training.fine_tuning import (
    add_training_options,
    hold_out,
    merged_model,
    train_and_report,
    training_arguments,
    with_adapters,
)


ADAPTED_LAYERS = r"first_stage\.model\.layers\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder or Hub id of a converted checkpoint")
    parser.add_argument("--data", type=Path, required=True, help="table of audio files and captions")
    parser.add_argument("--validation", type=Path, help="the same for the recordings that are measured on")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--default_voice", type=Path, help="recording that the result speaks with by default")
    parser.add_argument("--last_blocks", type=int, default=1, help="blocks that are trained (%(default)s)")
    parser.add_argument("--full", action="store_true", help="train the whole first stage instead")
    parser.add_argument("--context", type=int, help="ids of a row; all positions of the model by default")
    parser.add_argument("--ignore_padding", action="store_true", help="count the first padding of a row only")
    parser.add_argument("--speaker_dropout", type=float, default=0.0, help="share of the rows without their speaker")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--weight_decay", type=float, default=0.1)
    parser.add_argument("--scheduler", default="constant", help="learning rate over time (%(default)s)")
    add_training_options(parser, epochs=2, batch_size=2, learning_rate=3e-5)
    return parser.parse_args()


def load_model(args: argparse.Namespace) -> MetaVoiceForConditionalGeneration:
    model = MetaVoiceForConditionalGeneration.from_pretrained(args.model, dtype=torch.float32)
    first_stage = model.first_stage
    first_stage.config.speaker_dropout = args.speaker_dropout
    for module in first_stage.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = args.dropout
    train_last_blocks(first_stage, None if args.full else args.last_blocks)
    return model


def main() -> None:
    args = parse_args()
    recordings = read_captions(args.data)
    validation = None if args.validation is None else read_captions(args.validation)
    if validation is not None:
        check_disjoint(recordings, validation)
    processor = MetaVoiceProcessor.from_pretrained(args.model)
    model = load_model(args)
    examples = [encode_example(model, processor, recording) for recording in recordings]
    if validation is None:
        train, held_out = hold_out(examples, args)
    else:
        train, held_out = examples, [encode_example(model, processor, recording) for recording in validation]
    config = model.config.first_stage_config
    if args.default_voice is not None:
        processor.default_voice = processor.prepare_voice(model, args.default_voice)

    def collate(batch: list[dict[str, Any]]) -> dict[str, Any]:
        return training_batch(
            config,
            [example["text_ids"] for example in batch],
            [example["codes"] for example in batch],
            torch.stack([example["speaker_embedding"] for example in batch]),
            context=args.context,
            ignore_padding=args.ignore_padding,
        )

    trained = with_adapters(model, ADAPTED_LAYERS, args)
    groups = optimizer_groups(trained, args.weight_decay)
    trainer = Trainer(
        model=trained,
        args=training_arguments(args, label_names=["shift_labels"], lr_scheduler_type=args.scheduler),
        train_dataset=train,
        eval_dataset=held_out,
        data_collator=collate,
        optimizers=(torch.optim.AdamW(groups, lr=args.learning_rate, betas=(0.9, 0.95), eps=1e-8), None),
    )
    train_and_report(trainer)
    model = merged_model(trainer.model, args)
    model.save_pretrained(args.output)
    processor.save_pretrained(args.output)
    print(f"saved: {args.output}")


if __name__ == "__main__":
    main()

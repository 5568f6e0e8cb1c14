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
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from tts_models.audio import load_audio
from tts_models.models.chatterbox import ChatterboxForConditionalGeneration, ChatterboxProcessor
from tts_models.models.chatterbox.training_chatterbox import training_batch
from tts_models.training.fine_tuning import (
    add_training_options,
    hold_out,
    merged_model,
    read_json_lines,
    train_and_report,
    training_arguments,
    with_adapters,
)


ADAPTED_LAYERS = r"t3\.backbone\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj|c_attn|c_proj|c_fc)"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder or Hub id of a converted checkpoint")
    parser.add_argument("--data", type=Path, required=True, help="JSONL of audio, text, ref_audio, language")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--default_voice", type=Path, help="recording that the result speaks with by default")
    parser.add_argument("--text_dropout", type=float, default=0.15, help="share of the rows that lose their text")
    add_training_options(parser, epochs=1, gradient_accumulation_steps=2, learning_rate=5e-5, warmup_steps=100)
    return parser.parse_args()


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


def main() -> None:
    args = parse_args()
    rows = read_json_lines(args.data, language=None)
    processor = ChatterboxProcessor.from_pretrained(args.model)
    model = ChatterboxForConditionalGeneration.from_pretrained(args.model, dtype=torch.float32)
    examples = encode(model, processor, rows)
    if args.default_voice is not None:
        processor.default_voice = processor.prepare_voice(model, args.default_voice)
    train, held_out = hold_out(examples, args)
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

    trainer = Trainer(
        model=with_adapters(model, ADAPTED_LAYERS, args),
        args=training_arguments(args),
        train_dataset=train,
        eval_dataset=held_out,
        data_collator=collate,
    )
    train_and_report(trainer)
    model = merged_model(trainer.model, args)
    model.save_pretrained(args.output)
    processor.save_pretrained(args.output)
    print(f"saved: {args.output}")


if __name__ == "__main__":
    main()

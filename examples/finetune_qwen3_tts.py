"""Fine-tune a Qwen3-TTS Base checkpoint on recordings: a CustomVoice model of their speakers comes out.

    python examples/finetune_qwen3_tts.py --model Qwen/Qwen3-TTS-12Hz-0.6B-Base --data train.jsonl --output my_voice

Every line of `train.jsonl` is an object with `audio` and `text`, and, if wanted, `ref_audio` (a recording that shows
the voice; the audio itself by default), `speaker` (a name; `--speaker` by default) and `language`. File names are
relative to the file. A speaker's vector is the mean over all of its reference recordings. Codes are computed once and
kept in `OUTPUT/codes.safetensors`. Train on a voice only with the consent of the person it belongs to.

    model = AutoModelForTextToWaveform.from_pretrained("my_voice")
    processor = AutoProcessor.from_pretrained("my_voice")
    speech = model.generate(**processor(text="Hello.", voice="speaker"))
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import Trainer

from tts_models.audio import load_audio
from tts_models.files import write_tensors
from tts_models.models.qwen3_tts import Qwen3TTSForConditionalGeneration, Qwen3TTSProcessor
from tts_models.models.qwen3_tts.processing_qwen3_tts import SPEECH_TURN, language_row
from tts_models.models.qwen3_tts.training_qwen3_tts import FIRST_SPEAKER_ROW, store_speakers, training_batch
from tts_models.training.fine_tuning import (
    add_training_options,
    hold_out,
    merged_model,
    read_json_lines,
    train_and_report,
    training_arguments,
    with_adapters,
)


TURN_END = 5
"""Ids of a turn after its text."""
ADAPTED_LAYERS = r"talker\..*\.(q|k|v|o|gate|up|down)_proj"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder or Hub id of a Base checkpoint")
    parser.add_argument("--data", type=Path, required=True, help="JSONL of audio, text, ref_audio, speaker, language")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--speaker", default="speaker", help="name of the speaker where a line has none")
    parser.add_argument("--first_speaker_row", type=int, default=FIRST_SPEAKER_ROW)
    parser.add_argument("--shipped_loss", action="store_true", help="upstream's misaligned loss, for comparison only")
    add_training_options(parser, batch_size=2, gradient_accumulation_steps=4, learning_rate=2e-6)
    return parser.parse_args()


@torch.no_grad()
def encode(model: Qwen3TTSForConditionalGeneration, rows: list[dict[str, Any]], cache: Path) -> list[torch.Tensor]:
    """Codes `(frames, num_code_groups)` of every line's audio."""
    known = load_file(cache) if cache.is_file() else {}
    for row in rows:
        key = str(row["audio"].resolve())
        if key not in known:
            samples, _ = load_audio(row["audio"], model.config.sampling_rate)
            values = torch.from_numpy(samples)[None].to(model.device)
            encoded = model.speech_tokenizer.encode(values, torch.ones_like(values, dtype=torch.long))
            known[key] = encoded.audio_codes[0].cpu().to(torch.int32)
    cache.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(cache, known)
    return [known[str(row["audio"].resolve())].long() for row in rows]


def speaker_vectors(
    model: Qwen3TTSForConditionalGeneration, processor: Qwen3TTSProcessor, rows: list[dict[str, Any]]
) -> dict[str, torch.Tensor]:
    """Mean speaker vector `(hidden_size,)` of every speaker, float32."""
    references: dict[str, set[Path]] = {}
    for row in rows:
        references.setdefault(row["speaker"], set()).add(row["ref_audio"])
    return {
        speaker: torch.stack(
            [processor.prepare_voice(model, path).speaker_embedding.float() for path in sorted(paths)]
        ).mean(0)
        for speaker, paths in references.items()
    }


def make_examples(
    processor: Qwen3TTSProcessor, rows: list[dict[str, Any]], codes: list[torch.Tensor]
) -> list[dict[str, Any]]:
    return [
        {
            "text_ids": processor.turn_ids(SPEECH_TURN, row["text"])[:-TURN_END],
            "codes": row_codes,
            "speaker": row["speaker"],
            "language_id": language_row(row["language"], None, processor.language_ids, {}),
        }
        for row, row_codes in zip(rows, codes, strict=True)
    ]


def main() -> None:
    args = parse_args()
    rows = read_json_lines(args.data, speaker=args.speaker, language="auto")
    processor = Qwen3TTSProcessor.from_pretrained(args.model)
    model = Qwen3TTSForConditionalGeneration.from_pretrained(args.model, dtype=torch.float32)
    config = model.config
    speakers = speaker_vectors(model, processor, rows)
    examples = make_examples(processor, rows, encode(model, rows, args.output / "codes.safetensors"))
    train, held_out = hold_out(examples, args)

    def collate(batch: list[dict[str, Any]]) -> dict[str, Any]:
        tensors = training_batch(
            config,
            [example["text_ids"] for example in batch],
            [example["codes"] for example in batch],
            torch.stack([speakers[example["speaker"]] for example in batch]),
            [example["language_id"] for example in batch],
        )
        return tensors | ({"loss_type": "shipped"} if args.shipped_loss else {})

    trainer = Trainer(
        model=with_adapters(model, ADAPTED_LAYERS, args),
        args=training_arguments(args, weight_decay=0.01),
        train_dataset=train,
        eval_dataset=held_out,
        data_collator=collate,
    )
    train_and_report(trainer)
    model = merged_model(trainer.model, args)
    store_speakers(model, speakers, args.first_speaker_row)
    model.save_pretrained(args.output)
    processor = Qwen3TTSProcessor.from_config(model.config, processor.tokenizer, processor.feature_extractor)
    processor.save_pretrained(args.output)
    print(f"saved: {args.output}")


if __name__ == "__main__":
    main()

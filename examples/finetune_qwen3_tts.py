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
import json
import random
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainingArguments

from tts_models.audio import load_audio
from tts_models.models.qwen3_tts import Qwen3TTSForConditionalGeneration, Qwen3TTSProcessor
from tts_models.models.qwen3_tts.processing_qwen3_tts import SPEECH_TURN, language_row
from tts_models.models.qwen3_tts.training_qwen3_tts import FIRST_SPEAKER_ROW, store_speakers, training_batch


TURN_END = 5
"""Ids of a turn after its text."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder or Hub id of a Base checkpoint")
    parser.add_argument("--data", type=Path, required=True, help="JSONL of audio, text, ref_audio, speaker, language")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--speaker", default="speaker", help="name of the speaker where a line has none")
    parser.add_argument("--first_speaker_row", type=int, default=FIRST_SPEAKER_ROW)
    parser.add_argument("--lora", action="store_true", help="train low-rank adapters instead of all weights (peft)")
    parser.add_argument("--lora_rank", type=int, default=16)
    parser.add_argument("--shipped_loss", action="store_true", help="upstream's misaligned loss, for comparison only")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--max_steps", type=int, default=-1)
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--gradient_accumulation_steps", type=int, default=4)
    parser.add_argument("--learning_rate", type=float, default=2e-6)
    parser.add_argument("--eval_share", type=float, default=0.02, help="share of the lines held out")
    parser.add_argument("--logging_steps", type=int, default=10)
    parser.add_argument("--report_to", default="none", help="a logger of transformers.Trainer, such as wandb")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def read_lines(path: Path, speaker: str) -> list[dict[str, Any]]:
    """The lines, complete: `audio` and `ref_audio` as paths, `speaker` and `language` filled in."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        row = json.loads(line)
        if not isinstance(row, dict) or not {"audio", "text"} <= set(row):
            raise ValueError(f"{path}, line {number}: expected an object with `audio` and `text`, got {line:.80}.")
        row = {"ref_audio": row["audio"], "speaker": speaker, "language": "auto"} | row
        row |= {name: path.parent / row[name] for name in ("audio", "ref_audio")}
        for name in ("audio", "ref_audio"):
            if not row[name].is_file():
                raise ValueError(f"{path}, line {number}: there is no file {row[name]}.")
        rows.append(row)
    if len(rows) < 2:
        raise ValueError(f"{path} must hold at least two lines, one of them to be held out; got {len(rows)}.")
    return rows


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
    temporary = cache.with_suffix(".partial")
    save_file(known, temporary)
    temporary.replace(cache)
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


def add_adapters(model: Qwen3TTSForConditionalGeneration, rank: int):
    from peft import LoraConfig, get_peft_model

    layers = r"talker\..*\.(q|k|v|o|gate|up|down)_proj"
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers))


def main() -> None:
    args = parse_args()
    rows = read_lines(args.data, args.speaker)
    processor = Qwen3TTSProcessor.from_pretrained(args.model)
    model = Qwen3TTSForConditionalGeneration.from_pretrained(args.model, dtype=torch.float32)
    config = model.config
    speakers = speaker_vectors(model, processor, rows)
    examples = make_examples(processor, rows, encode(model, rows, args.output / "codes.safetensors"))
    random.Random(args.seed).shuffle(examples)
    held_out = max(1, round(args.eval_share * len(examples)))

    def collate(batch: list[dict[str, Any]]) -> dict[str, Any]:
        tensors = training_batch(
            config,
            [example["text_ids"] for example in batch],
            [example["codes"] for example in batch],
            torch.stack([speakers[example["speaker"]] for example in batch]),
            [example["language_id"] for example in batch],
        )
        return tensors | ({"loss_type": "shipped"} if args.shipped_loss else {})

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
            weight_decay=0.01,
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
    store_speakers(model, speakers, args.first_speaker_row)
    model.save_pretrained(args.output)
    processor = Qwen3TTSProcessor.from_config(model.config, processor.tokenizer, processor.feature_extractor)
    processor.save_pretrained(args.output)
    print(f"saved: {args.output}")


if __name__ == "__main__":
    main()

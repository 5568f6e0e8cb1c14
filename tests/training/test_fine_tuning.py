"""What the fine-tuning scripts share."""

import argparse
from pathlib import Path

import pytest

from tts_models.training.fine_tuning import add_training_options, hold_out, training_arguments


def parsed(*arguments: str, **defaults: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_training_options(parser, **defaults)
    return parser.parse_args(list(arguments))


def test_options_reach_the_trainer(tmp_path: Path) -> None:
    args = parsed("--batch_size", "3", "--lora", learning_rate=0.25)
    args.output = tmp_path
    settings = training_arguments(args, weight_decay=0.5)
    assert (settings.per_device_train_batch_size, settings.learning_rate, settings.weight_decay) == (3, 0.25, 0.5)
    assert args.lora and settings.save_strategy == "no"


def test_unknown_default_is_refused() -> None:
    with pytest.raises(ValueError, match="bach_size"):
        parsed(bach_size=2)


@pytest.mark.parametrize(("share", "expected"), [("0.0", 1), ("0.3", 3), ("1.0", 9)])
def test_held_out_examples(share: str, expected: int) -> None:
    """One at least is held out and one at least is left, nothing is lost, and the seed decides."""
    train, held_out = hold_out(range(10), parsed("--eval_share", share))
    assert len(held_out) == expected and sorted(train + held_out) == list(range(10))
    assert hold_out(range(10), parsed("--eval_share", share)) == (train, held_out)
    with pytest.raises(ValueError, match="at least two"):
        hold_out([1], parsed())

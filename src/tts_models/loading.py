"""Loading that never leaves a model with random weights."""

from typing import Any


class CompleteCheckpointMixin:
    """For a model class, before `PreTrainedModel`: `from_pretrained` refuses a folder that lacks weights of the model.

    `transformers` only reports such weights and leaves them random. An unconverted upstream checkpoint, whose weights
    carry other names, would then load and speak noise.

    Attributes:
        conversion_script (`str`): File name of the script that converts upstream's checkpoints, for the message.
    """

    conversion_script: str

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As `PreTrainedModel.from_pretrained`.

        Raises:
            ValueError: the folder misses weights of the model.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        model, info = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        missing = sorted(info["missing_keys"])
        if missing:
            raise ValueError(
                f"{pretrained_model_name_or_path} lacks {len(missing)} weights of {cls.__name__} "
                f"({', '.join(missing[:3])}, …). If it is a checkpoint in upstream's layout, convert it with "
                f"`conversion_scripts/{cls.conversion_script}`."
            )
        return (model, info) if wants_info else model


__all__ = ["CompleteCheckpointMixin"]

"""Speaking models around a language model, whose embeddings are theirs."""

from torch import nn


class LanguageModelEmbeddingsMixin:
    """For a composite model, before `PreTrainedModel`: its token embeddings are those of one of its parts.

    Attributes:
        language_model_name (`str`): Attribute that holds the part.
    """

    language_model_name: str

    def get_input_embeddings(self) -> nn.Module:
        """The part's token embeddings."""
        return getattr(self, self.language_model_name).get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Give the part other token embeddings."""
        getattr(self, self.language_model_name).set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        """The part's head over its tokens."""
        return getattr(self, self.language_model_name).get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Give the part another head over its tokens."""
        getattr(self, self.language_model_name).set_output_embeddings(new_embeddings)


__all__ = ["LanguageModelEmbeddingsMixin"]

"""The loss reaches every trainable parameter, and a step along its gradient lowers it."""

from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainingArguments

from .model_tester import ModelTester


class TrainingTests:
    """Mixin: inherit it and provide a `tester` fixture."""

    def test_gradients_reach_every_trainable_parameter(self, tester: ModelTester) -> None:
        model = tester.model().train()
        loss = tester.loss(model)
        assert loss.dim() == 0 and loss.isfinite()
        loss.backward()
        unreached = {
            name
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
        }
        assert unreached == set(tester.untrained_parameters)
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)

    def test_gradient_step_lowers_the_loss(self, tester: ModelTester) -> None:
        model = tester.model()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        before = tester.loss(model)
        before.backward()
        optimizer.step()
        with torch.no_grad():
            after = tester.loss(model)
        assert after < before

    def test_gradient_checkpointing_changes_nothing(self, tester: ModelTester) -> None:
        model = tester.model().train()
        if not model.supports_gradient_checkpointing:
            pytest.skip("the family has no gradient checkpointing")
        plain = self._gradients(tester, model)
        model.gradient_checkpointing_enable()
        for name, gradient in self._gradients(tester, model).items():
            torch.testing.assert_close(gradient, plain[name], msg=name)

    @staticmethod
    def _gradients(tester: ModelTester, model: torch.nn.Module) -> dict[str, torch.Tensor]:
        model.zero_grad()
        torch.manual_seed(0)
        tester.loss(model).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    def test_trainer_averages_over_accumulation_steps(self, tester: ModelTester, tmp_path: Path) -> None:
        """`Trainer` divides the loss by its accumulation steps, unless `forward` itself divides by the items."""
        model = tester.model()
        if not Trainer(model, TrainingArguments(str(tmp_path))).model_accepts_loss_kwargs:
            return
        inputs = tester.training_inputs()
        loss = model(**inputs, num_items_in_batch=torch.tensor(1_000_000)).loss
        assert loss < 0.01 * model(**inputs).loss

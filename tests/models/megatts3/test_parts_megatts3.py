"""The diffusion transformer and WaveVAE of MegaTTS3: the common suite, each part alone."""

import pytest

from tests.common.batching import BatchingTests
from tests.common.configuration import ConfigurationTests
from tests.common.input_errors import InputErrorTests
from tests.common.model_tester import ModelTester
from tests.common.saving import SavingTests
from tests.common.training import TrainingTests
from tests.models.megatts3.parts import TransformerTester, VAETester


@pytest.fixture(params=(TransformerTester, VAETester), ids=("transformer", "vae"))
def tester(request: pytest.FixtureRequest) -> ModelTester:
    """The tester of each part in turn."""
    return request.param()


class TestConfiguration(ConfigurationTests):
    """Configurations."""

    # Parts are loaded by their classes: the Auto classes know the whole.
    test_saved_round_trip = test_sub_configs_keep_their_type = None


class TestSaving(SavingTests):
    """Saving and loading."""

    test_auto_model_loads_the_class = None


class TestBatching(BatchingTests):
    """Batches and padding."""


class TestTraining(TrainingTests):
    """Loss and gradients."""


class TestInputErrors(InputErrorTests):
    """Refused input."""

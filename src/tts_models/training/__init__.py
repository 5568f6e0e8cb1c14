"""Training: data sets, losses and the loops that the example scripts run."""

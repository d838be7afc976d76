"""What is trained: a small torch network. Write another module here."""

from torch import nn

from reuna.adapters.torch_learner import TorchLearner


def estimator(features: int) -> TorchLearner:
    """From features to hours."""
    return TorchLearner(lambda: _module(features), features=features)


def _module(features: int) -> nn.Module:
    return nn.Sequential(nn.Linear(features, 16), nn.ReLU(), nn.Linear(16, 1))

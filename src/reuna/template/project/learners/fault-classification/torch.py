"""What is trained: a small torch network. Write another module here."""

from torch import nn

from reuna.adapters.torch_learner import TorchLearner


def estimator(features: int, classes: int) -> TorchLearner:
    """From features to one score for each class."""
    return TorchLearner(lambda: _module(features, classes), features=features, classes=classes)


def _module(features: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(features, 16), nn.ReLU(), nn.Linear(16, classes))

"""What is trained: a torch autoencoder. Write another module with a narrow layer here."""

from torch import nn

from reuna.adapters.torch_learner import TorchLearner

NARROW = 3  # values through which a normal window must pass; fewer than features, or it learns nothing


def estimator(features: int) -> TorchLearner:
    """From features to the same features, as far as they pass the narrow layer."""
    return TorchLearner(lambda: _module(features), features=features)


def _module(features: int) -> nn.Module:
    wide = nn.Linear(features, 16), nn.Tanh(), nn.Linear(16, NARROW)
    return nn.Sequential(*wide, nn.Linear(NARROW, 16), nn.Tanh(), nn.Linear(16, features))

"""What is trained: a small scikit-learn network. Write another one with `partial_fit` here."""

from sklearn.neural_network import MLPRegressor

from reuna.adapters.sklearn_learner import SklearnLearner


def estimator(features: int) -> SklearnLearner:
    """From features to hours."""
    network = MLPRegressor(hidden_layer_sizes=(16,), solver="sgd")
    return SklearnLearner(network, features=features)

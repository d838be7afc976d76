"""What is trained: a scikit-learn network with a narrow layer. Write another one with `partial_fit` here."""

from sklearn.neural_network import MLPRegressor

from reuna.adapters.sklearn_learner import SklearnLearner

NARROW = 3  # values through which a normal window must pass; fewer than features, or it learns nothing


def estimator(features: int) -> SklearnLearner:
    """From features to the same features, as far as they pass the narrow layer."""
    network = MLPRegressor(hidden_layer_sizes=(NARROW,), activation="identity", solver="sgd")
    return SklearnLearner(network, features=features, outputs=features)

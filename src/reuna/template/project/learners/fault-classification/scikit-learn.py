"""What is trained: a scikit-learn classifier. Write another one with `partial_fit` here."""

from sklearn.linear_model import SGDClassifier

from reuna.adapters.sklearn_learner import SklearnLearner


def estimator(features: int, classes: int) -> SklearnLearner:
    """From features to the probabilities of the classes."""
    return SklearnLearner(SGDClassifier(loss="log_loss"), features=features, classes=classes)

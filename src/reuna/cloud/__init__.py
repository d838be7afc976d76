"""The cloud: the coordinator, wherever it runs. Plans rounds, closes them, keeps the models."""

"""Machine failures of AI4I 2020: features and model."""

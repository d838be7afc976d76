"""Faults of the Tennessee Eastman process: features and model."""

"""Anomalies of SKAB: features and model."""

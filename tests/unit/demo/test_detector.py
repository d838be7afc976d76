"""Features and calibration of the Tennessee Eastman example."""

from __future__ import annotations

import numpy as np
import pytest

from reuna.demo.project.detector import calibration, features

RANDOM = np.random.default_rng(7)


def test_a_window_gives_mean_deviation_and_change_of_each_signal() -> None:
    signals = np.zeros((20, 2), np.float32)
    signals[10:, 0] = 4
    signals[:, 1] = 3
    inputs, labels = features.windows(signals, np.zeros(20, np.int32))
    assert inputs.tolist() == [[2, 3, 2, 0, 4, 0]]
    assert (inputs.dtype, labels.dtype, labels.tolist()) == (np.float32, np.int32, [0])


def test_windows_that_straddle_the_onset_are_left_out() -> None:
    labels = np.r_[np.zeros(33, np.int32), np.full(47, 6, np.int32)]
    inputs, named = features.windows(RANDOM.normal(size=(80, 3)).astype(np.float32), labels)
    # Starts 0, 5, 10 end by sample 29; starts 35 to 60 begin in the fault; 15 to 30 hold both.
    assert named.tolist() == [0, 0, 0, 6, 6, 6, 6, 6, 6]
    assert inputs.shape == (9, 9)


def test_a_run_shorter_than_a_window_gives_none() -> None:
    inputs, labels = features.windows(np.zeros((19, 53), np.float32), np.zeros(19, np.int32))
    assert inputs.shape == (0, 159)
    assert labels.shape == (0,)


def test_the_scaler_centres_normal_and_keeps_the_sign_of_the_far_away() -> None:
    normal = RANDOM.normal(50, 2, (400, 3)).astype(np.float32)
    scaler = features.fit_scaler(normal)
    scaled = features.apply_scaler(scaler, normal)
    assert np.abs(scaled.mean(axis=0)).max() < 0.1
    far = features.apply_scaler(scaler, np.array([[50 + 2000, 50 - 2000, 50]], np.float32))
    assert far[0] == pytest.approx([np.log1p(1000), -np.log1p(1000), 0], abs=0.2)
    assert far.dtype == np.float32


def test_a_signal_that_stands_still_stays_finite() -> None:
    signals = np.full((60, 1), 100, np.float32)
    inputs, _ = features.windows(signals, np.zeros(60, np.int32))
    assert features.apply_scaler(features.fit_scaler(inputs), inputs).tolist() == [[0, 0, 0]] * 9


def test_the_threshold_lies_above_the_validation_windows_that_are_normal() -> None:
    fault = RANDOM.uniform(0.5, 0.9, 500)
    chances = np.c_[1 - fault, fault].astype(np.float32)
    threshold = calibration.choose_threshold(chances)
    assert np.mean(calibration.decide(chances, threshold)) == 0
    assert np.mean(calibration.decide(chances, calibration.LOWEST)) == 1


def test_without_validation_windows_even_odds_raise_the_alarm() -> None:
    threshold = calibration.choose_threshold(np.zeros((0, 3), np.float32))
    chances = np.array([[0.4, 0.2, 0.4], [0.6, 0.4, 0.0], [0.0, 0.9, 0.1]], np.float32)
    assert calibration.decide(chances, threshold).tolist() == [2, 0, 1]

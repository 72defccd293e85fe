"""Scores of a classifier: pure functions of labels and predictions or probabilities; numpy only."""

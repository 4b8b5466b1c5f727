"""Fold training: many small trainings of one network, each blind to its held-out subject."""

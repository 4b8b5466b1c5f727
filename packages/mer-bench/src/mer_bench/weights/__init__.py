"""Weights that are kept: training on everything, checkpoints, prediction, export."""

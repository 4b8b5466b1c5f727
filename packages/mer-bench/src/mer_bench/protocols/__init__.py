"""Protocols: how samples are cut into folds of whole subjects."""

"""Runs on disk: what is trained, where its records lie, and how many are trained one after another."""

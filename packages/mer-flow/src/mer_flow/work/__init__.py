"""Shared with mer-bench: processes, progress, locks, files, settings, errors."""

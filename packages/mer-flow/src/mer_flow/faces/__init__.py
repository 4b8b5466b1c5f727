"""Faces: detection, landmarks, alignment, and the five region centres."""

"""The real databases' layouts: each module plans names and numbers, and writes the sheets."""

"""What a prediction and an explanation look like, drawn with Pillow."""

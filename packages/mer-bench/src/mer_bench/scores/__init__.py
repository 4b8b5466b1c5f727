"""From recorded logits to scores: selection, metrics, intervals, paired tests, published figures."""

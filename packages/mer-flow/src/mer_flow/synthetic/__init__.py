"""A database whose true movement is known: real face pixels, known facial movements, four real layouts.

`make_tree` writes one database tree with real-format sheets and the quirks of the real ones; `load_truth`
reads the true displacement, head motion and apex of every clip back.
"""

from __future__ import annotations

from mer_flow.synthetic.tree import DATABASES, find_tree, make_tree
from mer_flow.synthetic.truth import TRUTH_FILE, Truth, TruthSample, load_truth

__all__ = ["DATABASES", "TRUTH_FILE", "Truth", "TruthSample", "find_tree", "load_truth", "make_tree"]

"""Databases whose true movement is known: real face pixels, known facial movements, the real layouts.

`make_tree` writes one database tree with real-format sheets and the quirks of the real ones; `load_truth`
reads the true displacement, head motion and apex of every clip back.
"""

from mer_flow.synthetic.tree import find_tree, make_tree, synthetic_databases
from mer_flow.synthetic.truth import TRUTH_FILE, load_truth

__all__ = ["TRUTH_FILE", "find_tree", "load_truth", "make_tree", "synthetic_databases"]

"""Where folds are trained: one at a time, over processes, or stacked on a GPU."""

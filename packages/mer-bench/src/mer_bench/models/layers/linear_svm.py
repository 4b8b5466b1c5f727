"""The classifier that published handcrafted pipelines end with: a linear support vector machine."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from mer_bench.errors import UsageError

#: What was filled in for either baseline.
SVM_FILLED_IN = (
    "The sources read state neither kernel nor cost of the SVM: linear, cost 1 (guesses, set in advance), "
    "scikit-learn's SVC on LIBSVM; no class weights; features are not standardised.",
    "LIBSVM lets pairs of classes vote and gives ties to the lower class; here ties go to the larger "
    "decision value, so that the recorded values and the prediction agree.",
)


class LinearSVM:
    """One-against-one linear SVM of LIBSVM's cost C, whose decision values name its prediction."""

    def __init__(self, cost: float = 1.0) -> None:
        if not cost > 0:
            raise UsageError(f"cost must be above 0, got {cost}")
        self.cost = cost

    def fit(self, features: np.ndarray, labels: np.ndarray) -> Self:
        """Fit on `(n, D)` float features and `(n,)` int64 labels of at least two classes."""
        from sklearn.svm import SVC

        self._svc: Any = SVC(C=self.cost, kernel="linear", break_ties=True, decision_function_shape="ovr")
        self._svc.fit(np.asarray(features, np.float64), labels)
        self.classes_ = np.asarray(self._svc.classes_, np.int64)
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Predict `(n,)` int64 from `(n, D)` float features."""
        return self._svc.predict(np.asarray(features, np.float64)).astype(np.int64)

    def decision_function(self, features: np.ndarray) -> np.ndarray:
        """Count the votes of the pairs of classes, with a confidence below half a vote added.

        Returns:
            `(n, classes seen)` float64, or `(n,)` where training had two classes, positive for the second.
        """
        return np.asarray(self._svc.decision_function(np.asarray(features, np.float64)))

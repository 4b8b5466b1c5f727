"""A store of two synthetic clips, and an untrained checkpoint for it."""

from __future__ import annotations

import pytest
from tests.ahmsa_model.parts import Built, build


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    pytest.importorskip("cv2", reason="prediction from frames needs ahmsa-model[predict]")
    pytest.importorskip("dlib", reason="prediction from frames needs ahmsa-model[predict]")
    return build(tmp_path_factory.mktemp("predict"))

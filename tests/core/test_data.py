from __future__ import annotations

import numpy as np
import pytest

from casemate.core.data import Data
from casemate.core.facets import DataKind
from casemate.core.schema import Feature, Schema
from casemate.errors import IntegrityError


def test_rows_are_found_by_ids_in_any_order_and_strange_ids_are_refused() -> None:
    schema = Schema(DataKind.TABLE, (1,), (Feature("a"),))
    data = Data(np.arange(5.0)[:, None], schema, sample_id=np.array([40, 10, 30, 20, 0]))
    assert data.places(np.array([20, 40])).tolist() == [3, 0]
    for ids in ([41], [-1], [10, 10]):
        with pytest.raises(IntegrityError, match="distinct sample ids"):
            data.places(np.array(ids))

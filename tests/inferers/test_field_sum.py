"""Fields as sums of fields of other sizes."""

import pytest
import torch

from monai_regplugins import fields
from monai_regplugins.inferers.field_sum import FieldSum


@pytest.mark.parametrize(("sizes", "size"), [([(5, 7), (12, 10)], (12, 10)), ([(4, 5, 3), (8, 6, 7)], (11, 9, 7))])
def test_rows_are_those_of_the_resized_terms(sizes: list[tuple[int, ...]], size: tuple[int, ...]) -> None:
    terms = [torch.rand(1, len(size), *one) for one in sizes]
    expected = torch.stack([fields.resize(one, size) for one in terms]).sum(dim=0)
    total = FieldSum(terms, size)
    torch.testing.assert_close(total.whole(), expected)
    for rows in (slice(0, 3), slice(2, 9), slice(size[0] - 1, size[0])):
        torch.testing.assert_close(total.rows(rows), expected[:, :, rows])


def test_terms_stay_as_they_are() -> None:
    terms = [torch.ones(1, 2, 6, 6), torch.ones(1, 2, 3, 3)]
    assert FieldSum(terms, [6, 6]).whole().unique().tolist() == [3.0]
    assert all(bool((one == 1).all()) for one in terms)

"""Settings out of range are refused in a line that names the field."""

import dataclasses
import subprocess
import sys

import pytest

from socodet.proposals.settings import ProposalSettings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("method", "slow"),
        ("work_size", 4),
        ("max_aspect", 0.5),
        ("max_aspect", float("nan")),
        ("min_scale", -0.1),
        ("min_scale", 0.9),
        ("max_scale", 1.5),
        ("max_overlap", 0.0),
        ("seed", -1),
    ],
)
def test_settings_out_of_range_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"_?(scale|" + field + r") must be ") as caught:
        dataclasses.replace(ProposalSettings(), **{field: value})
    assert "\n" not in str(caught.value)


def test_settings_and_tables_do_not_import_numba_or_torch() -> None:
    program = (
        "import sys, socodet.proposals.settings, socodet.proposals.table\n"
        "assert not {'numba', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

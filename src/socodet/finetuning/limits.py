"""Which detections are asked for, and how many images go through a detector together."""

from numbers import Integral, Real

from socodet.errors import SettingError


def check_limits(min_score: float | None, max_detections: int | None, batch_size: int) -> None:
    """SettingError for values that select nothing or make no sense."""
    if min_score is not None and not (_is_number(min_score, Real) and 0 <= min_score <= 1):
        raise SettingError(f"min_score must be a number between 0 and 1, not {min_score!r}")
    for name, value in (("max_detections", max_detections), ("batch_size", batch_size)):
        if value is None and name == "max_detections":
            continue
        if not (_is_number(value, Integral) and value >= 1):  # type: ignore[operator]
            raise SettingError(f"{name} must be a whole number of at least 1, not {value!r}")


def _is_number(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)

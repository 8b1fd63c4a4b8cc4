"""Numbers as people read them: `1 step`, `1,200 steps`, `0.0123`."""


def counted(number: float, thing: str, plural: str | None = None) -> str:
    """The number, in at most three significant digits if it is not whole, and the thing in singular or plural."""
    figure = f"{number:,.0f}" if number == round(number) or number >= 100 else f"{number:.3g}"
    return f"{figure} {thing if figure == '1' else plural or thing + 's'}"


def rounded(number: float, digits: int = 3) -> str:
    """Rounded to this many significant digits; a larger number is shown as a whole one, never as `1.64e+03`."""
    return f"{number:,.0f}" if abs(number) >= 10**digits - 0.5 else f"{number:.{digits}g}"

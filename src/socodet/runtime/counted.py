"""Numbers with the things they count: `1 step`, `1,200 steps`."""


def counted(number: float, thing: str, plural: str | None = None) -> str:
    """The number, in at most three significant digits if it is no whole one, and the thing in singular or plural."""
    figure = f"{number:,.0f}" if number == round(number) or number >= 100 else f"{number:.3g}"
    return f"{figure} {thing if figure == '1' else plural or thing + 's'}"

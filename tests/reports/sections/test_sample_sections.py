"""The text of the sections on proposals and views."""

from socodet.reports.sections.samples import sample_sections


def test_the_text_has_no_markdown():
    """A page would show it verbatim."""
    for section in sample_sections([], []):
        assert section.text
        assert "`" not in section.text

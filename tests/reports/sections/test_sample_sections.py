"""The text of the sections of proposals and views."""

from socodet.reports.sections.samples import sample_sections


def test_the_text_has_no_markdown():
    """A page shows it as it is."""
    for section in sample_sections([], []):
        assert section.text
        assert "`" not in section.text

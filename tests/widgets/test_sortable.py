"""A table that can be sorted, and its Markdown."""

import pytest

from vistok import tables
from vistok.widgets import SortableTable

TABLE = """| row | PSNR ↑ | what<br>published |
| --- | ---: | --- |
| vq-d4 | 24.61<br>(24.5 to 24.7) | `a<b` |
| fsq | – | **best** |"""


def test_the_markdown_stands_beside_the_html() -> None:
    bundle = SortableTable(TABLE)._repr_mimebundle_()
    assert bundle["text/markdown"] == TABLE
    assert bundle["text/plain"] == "SortableTable: 2 rows of row, PSNR ↑, what published"
    page = bundle["text/html"]
    assert '<th scope="row">vq-d4</th><td class="right">24.61<br><small>(24.5 to 24.7)</small></td>' in page
    assert "<td><code>a&lt;b</code></td>" in page and "<td><strong>best</strong></td>" in page
    assert page == SortableTable(TABLE)._repr_mimebundle_()["text/html"]  # notebooks compare it


def test_every_table_of_the_notebooks_can_be_sorted() -> None:
    planned = tables.plan("quantizers64", scale="laptop", seeds=[0], dataset="imagenet-sample")
    for make in (tables.markdown, tables.quantizers_markdown, tables.remedies_markdown):
        assert len(planned) + 2 >= SortableTable(make(planned)).markdown.count("\n") + 1


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(ValueError, match="'No rows asked for.' is no Markdown table"):
        SortableTable("No rows asked for.")
    with pytest.raises(ValueError, match=r"A row has 1 cells, but the heading 2: \['x'\]"):
        SortableTable("| a | b |\n| --- | --- |\n| x |")


def test_a_bar_of_a_cells_text_divides_no_cells() -> None:
    page = SortableTable("| a | b |\n|---|---|\n| x \\| y | 1\\| |")._repr_mimebundle_()["text/html"]
    assert '<th scope="row">x | y</th><td>1|</td>' in page

"""The comments at the head of a text, as data."""

from bptt.language.head import About, about, body

HEAD = """\
# Peephole LSTM: F. Gers, N. Schraudolph: "Learning Precise Timing" (2002)
# i and f look at the cell state before the step,
# o at the new one: mind that.
# family: lstm
# from: memory of the paper,
#       compared with ONNX's
# equals: onnx LSTM (1.23.0)
# equals: another (2)
"""
CELL = """\
h[t] = tanh(W @ x[t])  # family: none
# from: nowhere
init W = 1
"""


def test_a_head_is_read() -> None:
    found = about(HEAD + CELL)
    assert found == About(
        title="Peephole LSTM",
        citation='F. Gers, N. Schraudolph: "Learning Precise Timing" (2002)',
        remarks="i and f look at the cell state before the step, o at the new one: mind that.",
        family="lstm",
        source="memory of the paper, compared with ONNX's",
        equals=("onnx LSTM (1.23.0)", "another (2)"),
    )
    assert found.year == "2002"
    assert about(HEAD) == found


def test_no_head_says_nothing() -> None:
    for text in ("", "\n", CELL, f"\n{HEAD}{CELL}", "#\n#\nh[t] = h[t-1]", "\ufeff"):
        assert about(text) == About()
    assert about(CELL).year == ""


def test_a_title_may_stand_alone_and_a_paper_have_a_colon() -> None:
    assert about("# A cell of mine").title == "A cell of mine"
    found = about('# A. Gomez, "Backpropagating: an example" (2016)\n')
    assert (found.title[:8], found.citation) == ("A. Gomez", "")
    assert about("# One: two: three").citation == "two: three"


def test_a_body_is_a_text_without_its_head() -> None:
    assert body(HEAD + CELL) == CELL
    assert body(f"{HEAD}\n{CELL}") == CELL
    assert body(CELL) == CELL
    assert body(HEAD) == body("") == ""

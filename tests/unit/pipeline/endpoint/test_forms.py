"""What a model writes is taken apart in the same way however its text arrives in pieces."""

import json

import pytest

from encoders.errors import UserError
from pipeline.endpoint.forms import FORMS, Answered, Forwarding, answer_form

WRITTEN = {
    "line": [
        ("A red ball.\nSources: 2, 5", Answered("A red ball.", (2, 5))),
        ("A red ball.\n\n**Sources:** 2 and 5.", Answered("A red ball.", (2, 5))),
        ("A red ball. Sources: none", Answered("A red ball.", ())),
        ("A red ball.", Answered("A red ball.", None)),
        ("Sources of a river", Answered("Sources of a river", None)),
        ("Sources: Reuters\nand 7", Answered("Sources: Reuters\nand 7", None)),
        ("<think>Is it 3?\nSources: 3</think>\nNo.\nSources: 4", Answered("No.", (4,))),
        ("The bus\nstops.\nsource: [12]", Answered("The bus\nstops.", (12,))),
        ("", Answered("", None)),
    ],
    "json": [
        ('{"answer": "A \\"red\\" ball\\n\\u00e9\\ud83c\\udfa5", "sources": [2, 5]}',
         Answered('A "red" ball\né🎥', (2, 5))),
        ('```json\n{"answer": "Blue.", "sources": []}\n```', Answered("Blue.", ())),
        ('{"answer": "Blue.", "sources": ["x", 4]}', Answered("Blue.", (4,))),
        ('{"answer": "Blue."}', Answered("Blue.", None)),
        ('{"answer": "cut o', Answered("cut o", None)),
        ("Plainly blue.", Answered("Plainly blue.", None)),
    ],
    "plain": [
        ("4821\n", Answered("4821", None)),
        ("<think>hm</think> 4821", Answered("4821", None)),
    ],
}  # fmt: skip
CASES = [(form, written, answered) for form, rows in WRITTEN.items() for written, answered in rows]


@pytest.mark.parametrize(("form", "written", "answered"), CASES)
def test_an_answer_is_taken_apart(form: str, written: str, answered: Answered) -> None:
    assert answer_form(form).parse(written) == answered


@pytest.mark.parametrize(("form", "written", "answered"), CASES)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_the_pieces_of_a_stream_are_the_answer(
    form: str, written: str, answered: Answered, size: int
) -> None:
    """Also where a piece ends in the middle of an escape, of a thought or of the sources."""
    pieces: list[str] = []
    forwarding = Forwarding(answer_form(form), pieces.append)
    for at in range(0, len(written), size):
        forwarding.add(written[at : at + size])
    text = answer_form(form).parse(written).text
    forwarding.finish(text)
    if not (form == "json" and not written.lstrip("`json\n").startswith("{")):
        assert "".join(pieces) == text == answered.text


def test_text_streams_before_it_ends() -> None:
    pieces: list[str] = []
    forwarding = Forwarding(answer_form("line"), pieces.append)
    for piece in ("A red", " ball", " rolls.", "\nSou"):
        forwarding.add(piece)
    assert "".join(pieces) == "A red ball rolls."
    forwarding = Forwarding(answer_form("json"), pieces.append)
    pieces.clear()
    forwarding.add('{"answer": "A red')
    assert pieces == ["A red"]


def test_the_schema_is_sent_as_openai_writes_it() -> None:
    form = answer_form("json").fields()["response_format"]
    assert form["type"] == "json_schema" and form["json_schema"]["strict"] is True
    assert json.loads(json.dumps(form)) == form
    assert answer_form("line").fields() == answer_form("plain").fields() == {}


def test_another_form_is_refused() -> None:
    with pytest.raises(UserError, match=r"answer_form=xml.*line, json, plain"):
        answer_form("xml")
    assert set(FORMS) == {"line", "json", "plain"}

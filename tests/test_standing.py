"""Standing requests on a running stream, with the embedded model; the table is made by tests/standing_table.py."""

import pytest

from encoders.errors import UserError
from pipeline.session import Session
from pipeline.standing import Standing, Watcher, check_for
from tests.test_session import embedded, feed, pushed, wait_until_seen, world  # noqa: F401


def test_it_is_told_once_soon_and_every_decision_is_logged(embedded, tmp_path):  # noqa: F811
    paint = world("shape:blue circle@3", "shape:red star@6", "shape:red star@14")
    with embedded(tmp_path / "bank") as qa:
        source, told = pushed(qa), []
        with Session(qa, source) as session:
            watcher = Watcher(session, lambda standing, decision: told.append((standing.request, decision.time)))
            star, cross = (
                Standing(session, text, check_for(text, embedded=True))
                for text in ("Tell me when a red star appears", "Tell me when a green cross appears")
            )
            watcher.add(star)
            watcher.add(cross)
            for second in range(18):  # the requests look at each frame as it comes
                feed(source, paint, second, second + 1)
                wait_until_seen(session, second)
            watcher.close()
    assert [text for text, _ in told] == [star.request] * 2  # twice shown, each for two frames, and told once each
    assert 6 <= told[0][1] <= 9 and 14 <= told[1][1] <= 17
    for standing in (star, cross):
        assert [d.time for d in standing.log] == [float(second) for second in range(18)]
        assert all((d.score is None) == (not d.gate) and (not d.told or d.score > 0.6) for d in standing.log)
    assert any(not d.gate for d in cross.log)  # the gate spares the model some frames


def test_requests_become_questions_that_the_model_knows():
    assert check_for("tell me when a red star appears", embedded=True).question == "What shape is red?"
    assert check_for("tell me when a red star appears", embedded=True).says == ("star",)
    assert check_for("is there any heart?", embedded=True).question == "What color is the heart?"
    assert check_for("a code", embedded=True).says == ()
    assert check_for("the name alice", embedded=True).says == ("Alice",)
    assert check_for("when someone opens the door", embedded=False).says[0] == "yes"
    with pytest.raises(UserError, match="does not know"):
        check_for("when someone opens the door", embedded=True)
    with pytest.raises(UserError, match="is empty"):
        check_for(" ", embedded=False)

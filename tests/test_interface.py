"""Nothing that versions promise changes unnoticed: names, arguments, states, trajectories."""

import json

import interface
import pytest
from cases import CASES
from runs import deviation

RECORDED = json.loads(interface.RECORDED.read_text())
MEANT = (
    "This is the interface, and a change of it is a breaking one (docs/index.md, Versions), an "
    "addition is not. If it is meant: a line in CHANGELOG.md, a changed default or trajectory "
    "under `Changed trajectories` with the old behaviour; then `python tests/interface.py`."
)


@pytest.mark.parametrize("part", ["signatures", "states"])
def test_names_arguments_and_states_are_those_promised(part):
    now, then = getattr(interface, part)(), RECORDED[part]
    changed = {
        name: (then.get(name, "not there"), now.get(name, "not there"))
        for name in now | then
        if now.get(name) != then.get(name)
    }
    assert not changed, MEANT


def test_trajectories_are_those_promised():
    """Each optimizer is held to its reference by test_parity.py, and that one here."""
    now, then = interface.trajectories(), RECORDED["trajectories"]
    assert now.keys() == then.keys(), MEANT
    for case in CASES:
        for shape in case.shapes:
            key, (start, _) = interface.key(case, shape), case.problem(shape)
            apart = deviation(now[key].reshape(1, -1), [then[key]], start.ravel())
            assert apart < 10 * case.float64, (key, MEANT)

"""Nothing that versions promise changes unnoticed: names, arguments, states, trajectories."""

import json

import interface
import pytest
from certificates import CERTIFICATES
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


def test_trajectories_end_where_they_did():
    """Optimizers are held to their references by test_parity.py, and those to this."""
    now, then = interface.ends(), RECORDED["ends"]
    assert now.keys() == then.keys(), MEANT
    for name, (start, end, exact) in now.items():
        assert deviation([end], [then[name]], start) < exact, (name, MEANT)


def test_every_optimizer_and_wrapper_is_recorded():
    assert RECORDED["states"].keys() == CERTIFICATES.keys()
    alone = {name.split("(")[0].split(" ")[0] for name in RECORDED["ends"]}
    assert alone == CERTIFICATES.keys() - interface.STORING.keys()

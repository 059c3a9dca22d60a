import pytest

from flowsteer.notebook import VARIABLE, is_quick


@pytest.mark.parametrize(("value", "quick"), [(None, False), ("full", False), ("quick", True)])
def test_the_switch(monkeypatch, value, quick):
    if value is None:
        monkeypatch.delenv(VARIABLE, raising=False)
    else:
        monkeypatch.setenv(VARIABLE, value)
    assert is_quick() is quick


def test_a_misspelt_switch_is_refused(monkeypatch):
    monkeypatch.setenv(VARIABLE, "fast")
    with pytest.raises(ValueError, match="FLOWSTEER_NOTEBOOK = 'fast' is unknown; use quick"):
        is_quick()

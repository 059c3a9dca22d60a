"""`flowsteer reproduce` as it is typed; the run itself is in conftest."""

import pytest
import tyro

from flowsteer.cli.reproduce import Reproduce
from flowsteer.reproduce.presets import PRESETS


def parse(words):
    return tyro.cli(
        Reproduce,
        args=words.split(),
        use_underscores=True,
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
    )


def test_flags_are_understood(tmp_path):
    command = parse(
        f"--preset smoke --output_dir {tmp_path} --tables 0 tuning 3 --cells a b --seeds 0 5"
        " --max_seconds 540 --compile --dataloader_num_workers 8"
    )
    assert command == Reproduce(
        "smoke",
        tmp_path,
        ("0", "tuning", "3"),
        ("a", "b"),
        (0, 5),
        540,
        compile=True,
        dataloader_num_workers=8,
    )


def test_every_preset_can_be_typed():
    assert {parse(f"--preset {name}").preset for name in PRESETS} == set(PRESETS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--seeds -1", "seeds = -1"),
        ("--seeds 1.5", "seeds = 1.5"),
        ("--max_seconds 0", "max_seconds = 0 must be a number above 0"),
        ("--max_seconds nan", "max_seconds = nan"),
        ("--max_seconds soon", "max_seconds = 'soon'"),
        ("--max_seconds 1e300", "max_seconds = 1e+300"),
        ("--device cpu --compile", "compile = True needs a CUDA GPU"),
        ("--dataloader_num_workers 1000", "dataloader_num_workers = 1000"),
        ("--cells 3-nobody-seed0", "no cell '3-nobody-seed0'"),
        ("--tables 0 --cells 1-mismatch", "no cell '1-mismatch'"),
        ("--report_only", "has no cell yet"),
        ("--device tpu9 --tables 0", "device = 'tpu9'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(tmp_path, words, message):
    folder = tmp_path / "out"
    with pytest.raises(ValueError) as error:
        parse(f"--preset smoke {words} --output_dir {folder}").run()
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not folder.exists()


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="choose another folder"):
        parse(f"--preset smoke --output_dir {tmp_path / 'file'}").run()


def test_report_only_reports_what_is_there_and_runs_nothing(fakes, capsys):
    fakes.variants(a=0.5)
    parse(f"--report_only --output_dir {fakes.store.folder}").run()
    assert capsys.readouterr().out == f"{fakes.store.folder / 'report.md'}\n"
    assert set(fakes.store.read_all()) == {"0-variants"}


def test_what_there_is_no_time_for_is_left_and_told(tmp_path, capsys):
    """Nothing is done, so there is nothing to report either, and the message says so."""
    with pytest.raises(ValueError, match="has no cell yet"):
        parse(f"--preset smoke --tables 0 --max_seconds 1e-9 --output_dir {tmp_path}").run()
    assert "0-variants: left, it does not fit" in capsys.readouterr().out

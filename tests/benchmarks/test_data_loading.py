"""The benchmark runs, and prints every kind of pass; what it measures is not for a test to judge."""

from __future__ import annotations

import data_loading
import pytest


@pytest.mark.usefixtures("tensorflow")
def test_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    data_loading.main(["--images", "40", "--side", "16", "--width", "4", "--repeat", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "40 images of 32 x 32, model of 16 x 16, batches of 32"
    kinds = ["images, plain", "images, first", "images, later", "arrays, plain", "arrays", "model alone"]
    assert [line.split("  ")[0] for line in lines[3:]] == kinds
    assert all(float(number) > 0 for line in lines[3:] for number in line.split()[-2:])

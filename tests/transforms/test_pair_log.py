"""Lines of the log about one pair."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from monai_regplugins.data import PreparePaird
from monai_regplugins.transforms import ScalePaird
from monai_regplugins.transforms.pair_log import of_pair, pair_logger, unreported


def test_lines_are_left_out_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    logger = pair_logger("monai_regplugins.any")
    with unreported(), unreported(False):
        logger.warning("left out")
    logger.warning("reported")
    assert caplog.messages == ["reported"]


def test_warnings_name_the_pair(caplog: pytest.LogCaptureFixture) -> None:
    logger = pair_logger("monai_regplugins.any")
    caplog.set_level("INFO")
    with of_pair("50%_to_0%"):
        logger.warning("%d %% are lost", 3)
        logger.info("%d %% are lost", 3)
        logger.warning("'%s' lies elsewhere", "of a file", extra={"file": "of a file"})
    logger.warning("of none")
    assert caplog.messages == ["50%_to_0%: 3 % are lost", "3 % are lost", "'of a file' lies elsewhere", "of none"]


def test_what_is_of_a_file_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    logger = pair_logger("monai_regplugins.any")
    with unreported():
        logger.warning("moving label '%s' is flipped", "a", extra={"file": "a"})
    for role, file in (("moving", "a"), ("fixed", "a"), ("fixed", "b"), ("fixed", "")):
        for _ in range(2):
            logger.warning("%s label '%s' is flipped", role, file, extra={"file": file})
    assert [line.partition(" is")[0] for line in caplog.messages] == [
        "moving label 'a'",
        "fixed label 'b'",
        "fixed label ''",
        "fixed label ''",
    ]


def test_a_training_does_not_report_the_alignment_of_each_pair(caplog: pytest.LogCaptureFixture) -> None:
    """It keeps no original images; what registers or evaluates does."""
    pair = {key: MetaTensor(torch.rand(1, 12, 12, 12)) for key in ("fixed", "moving")}
    for keep, lines in ((False, 0), (True, 1)):
        caplog.clear()
        with caplog.at_level("INFO", "monai_regplugins"):
            PreparePaird(ScalePaird(), initial_alignment="center", keep_original=keep)(pair)
        assert len([line for line in caplog.messages if "initial alignment" in line]) == lines

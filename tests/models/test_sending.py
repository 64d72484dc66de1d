"""What is sent to another process: only this user can reach it, and only what was sent is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from compress.models.sending import SENT, ForeignError, receive, send


def test_what_is_sent_arrives_through_a_private_folder_and_nothing_else_is_read(tmp_path: Path) -> None:
    value = {"tensor": torch.arange(4.0), "rows": np.arange(1_000_000)}
    digest = send(value, tmp_path / "sent")
    assert (tmp_path / "sent").stat().st_mode & 0o777 == 0o700
    received = receive(tmp_path / "sent", digest, torch.device("cpu"))
    assert torch.equal(received["tensor"], value["tensor"])
    assert np.array_equal(received["rows"], value["rows"])
    assert isinstance(received["rows"], np.memmap)
    other = send({"tensor": torch.zeros(4)}, tmp_path / "other")
    assert other != digest
    (tmp_path / "other" / SENT).replace(tmp_path / "sent" / SENT)
    with pytest.raises(ForeignError, match="does not hold what was sent"):
        receive(tmp_path / "sent", digest, torch.device("cpu"))
    with pytest.raises(FileExistsError):
        send(value, tmp_path / "sent")

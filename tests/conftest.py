"""For all tests: one thread, no display, CPU and no network, unless a test is marked `gpu` and a
card is there.
"""

import os
import socket
from typing import Any

import pytest

# Before torch or a kernel is started: with two pytest workers on two cores, more threads only
# fight.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked `gpu` where torch sees no CUDA device."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def on_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test compares was worked out on the CPU; only tests marked `gpu` see the card."""
    if not request.node.get_closest_marker("gpu"):
        monkeypatch.setenv("TIMESCOPE_DEVICE", "cpu")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library promises to work offline: a connection to anywhere but this machine fails the
    test.
    """
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        if self.family != getattr(socket, "AF_UNIX", None) and address[0] not in {
            "127.0.0.1",
            "::1",
            "localhost",
        }:
            raise AssertionError(f"a test tried to reach {address}: nothing may need the network")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)

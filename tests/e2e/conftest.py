"""A server that answers as AWS does, for the tests that ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # the server is a large program: only who needs it waits for it
    from tests.kit.aws import Aws


@pytest.fixture(scope="module")
def cloud() -> Iterator[Aws]:
    from tests.kit.aws import serving

    with serving() as found:
        yield found


@pytest.fixture
def aws(cloud: Aws) -> Aws:
    """The server, as if nobody had used it before."""
    cloud.reset()
    return cloud

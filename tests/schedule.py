"""Which tests run side by side."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

# What these share takes seconds to make: a browser, all manifests rendered.
_TOGETHER = {
    "tests/observe/test_breaking.py": "browser",
    "tests/observe/test_browser.py": "browser",
    "tests/k8s": "manifests",
}


class FileByFile(LoadScopeScheduling):  # type: ignore[misc] # its types are not exported
    """Gives a process the tests of one file at a time, in the order of collection.

    The groups of xdist 3.8 are no alternative: pytest 9.2 has no test ids that could be changed, and ignores them.
    """

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        path = PurePosixPath(nodeid.partition("::")[0])
        return _TOGETHER.get(str(path)) or _TOGETHER.get(str(path.parent)) or str(path)

"""The manifests, rendered once for all tests of this folder."""

from __future__ import annotations

import pytest

from tests.k8s.manifests import KUSTOMIZATIONS, Manifests, render


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "image: builds and runs the image, which takes minutes; only with `-m image`")
    config.addinivalue_line(
        "markers", "kube: asks a real API server, which takes minutes to build; only with `-m kube`"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Takes the tests that last minutes out, unless they are asked for."""
    unwanted = {marker for marker in ("image", "kube") if marker not in config.option.markexpr}
    left = {item for item in items if unwanted.intersection(mark.name for mark in item.iter_markers())}
    config.hook.pytest_deselected(items=[item for item in items if item in left])
    items[:] = [item for item in items if item not in left]


@pytest.fixture(scope="session")
def rendered() -> dict[str, Manifests]:
    """Every kustomization by its folder's name below `k8s/`."""
    return {name: render(name) for name in KUSTOMIZATIONS}

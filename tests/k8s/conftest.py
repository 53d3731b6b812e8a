"""The manifests, rendered once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.k8s.manifests import KUSTOMIZATIONS, Manifests, render

_HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "image: builds and runs the image, which takes minutes; only with `-m image`")
    config.addinivalue_line(
        "markers", "kube: asks a real API server, which takes minutes to build; only with `-m kube`"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps this folder's tests together, and those that take minutes out unless they are asked for."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.xdist_group("k8s"))
    for marker in ("image", "kube"):
        if marker in config.option.markexpr:
            continue
        wanted = [item for item in items if item.get_closest_marker(marker) is None]
        config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
        items[:] = wanted


@pytest.fixture(scope="session")
def rendered() -> dict[str, Manifests]:
    """Every kustomization by its folder's name below `k8s/`."""
    return {name: render(name) for name in KUSTOMIZATIONS}

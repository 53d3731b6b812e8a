"""What a nursery's exception group comes down to."""

from __future__ import annotations

from collections.abc import Iterator

import trio

from pipeline.model.errors import Refused, Retryable, SessionError

_DEEPEST = 32  # a group and its member may name each other as cause


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions of a group, however deeply nested; of anything else, itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def root(error: BaseException) -> BaseException:
    """Where it began: libraries wrap errors in others that say less, or nothing."""
    for _ in range(_DEEPEST):
        inner = error.__context__ if error.__cause__ is None else error.__cause__
        if inner is None:
            inner = next(leaves(error))
            if inner is error:
                break
        error = inner
    return error


def settle(error: BaseException) -> BaseException:
    """The one exception that decides what happens next, to be raised outside of the `except` block.

    A bug outweighs everything and keeps its company, so that no traceback is lost; then cancellation, which
    makes lost connections of the same moment irrelevant; then `Refused`, since trying again cannot help; then
    the first `Retryable`. A lone exception comes back as itself.
    """
    if not isinstance(error, BaseExceptionGroup):
        return error
    found = list(leaves(error))
    if len(found) == 1:
        return found[0]
    if any(not isinstance(leaf, (SessionError, trio.Cancelled)) for leaf in found):
        return error
    if cancelled := error.subgroup(trio.Cancelled):
        return cancelled
    for kind in (Refused, Retryable):
        for leaf in found:
            if isinstance(leaf, kind):
                return leaf
    return error


def describe(error: BaseException) -> str:
    """Why it ended, in one line."""
    texts = dict.fromkeys(
        "cancelled" if isinstance(leaf, trio.Cancelled) else str(leaf) or type(leaf).__name__ for leaf in leaves(error)
    )
    return "; ".join(texts)

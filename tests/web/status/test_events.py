"""What changes while the page is told of changes is told of next."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from csfd_core.web.status import api


def test_what_changes_while_changes_are_read_is_not_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    follower = SimpleNamespace(newest=1.0, is_stopped=False)
    asked: list[float] = []

    def changed_since(_: object, moment: float) -> list[object]:
        asked.append(moment)
        follower.is_stopped = len(asked) == 2
        follower.newest = 3.0  # another row has changed meanwhile
        return []

    async def is_disconnected() -> bool:
        follower.newest = max(follower.newest, 2.0)  # something changes at once
        return False

    monkeypatch.setattr(api, "_changed_since", changed_since)
    monkeypatch.setattr(api, "services_of", lambda _: None)
    monkeypatch.setattr(api, "_TICK_S", 0.001)
    state = SimpleNamespace(follower=follower)
    request: Any = SimpleNamespace(
        app=SimpleNamespace(state=state), is_disconnected=is_disconnected
    )

    async def listen() -> None:
        answer = await api.events(request, SimpleNamespace())  # type: ignore[arg-type]
        assert [_ async for _ in answer.body_iterator] == ["retry: 2000\n\n"]

    asyncio.run(asyncio.wait_for(listen(), 20))
    assert asked == [1.0, 2.0]

"""Answers of a real Redis reach the calls that they belong to, also after a call whose taker raised."""

from __future__ import annotations

import asyncio

from redis_server import redis_server

from estiba.core.log import Log
from estiba.gateway.options import StoreAddress
from estiba.gateway.redis_connection import RedisConnection


async def calls(address: StoreAddress) -> list[object]:
    """Send what a taker fails on, one more behind it on the same connection, and some on the next."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: None)  # asyncio names the error of the taker
    connection = RedisConnection(address, 1.0, (), Log())
    opened = asyncio.Event()
    connection.start(opened.set)
    await opened.wait()

    def failing(answer: object) -> None:
        if answer is not None:
            raise ValueError(answer)

    behind: asyncio.Future[object] = loop.create_future()
    opened.clear()
    connection.call(failing, "ECHO", "first")
    connection.call(behind.set_result, "ECHO", "second")
    answers = [await behind]
    await asyncio.wait_for(opened.wait(), 5)
    for word in ("third", "fourth"):
        later: asyncio.Future[object] = loop.create_future()
        connection.call(later.set_result, "ECHO", word)
        answers.append(await later)
    connection.close()
    return answers


def test_a_taker_that_raises_puts_no_later_answer_out_of_step() -> None:
    with redis_server() as redis:
        answers = asyncio.run(calls(StoreAddress.of(redis.url)))
    assert answers == [None, "third", "fourth"]

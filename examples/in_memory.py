"""Runs in memory, for tests and experiments: nothing is kept when the process ends."""

import asyncio

from durable_nb import InMemoryStore, Workflow

store = InMemoryStore()
wf = Workflow("memory", db=store)


@wf.task
async def double(n: int) -> int:
    print("executing double", n)
    return 2 * n


@wf.workflow(id="doubling-{n}")
async def doubling(n: int) -> int:
    return await double(await double(n))


async def main() -> None:
    print("first: ", await doubling(10))
    print("second:", await doubling(10))  # replayed: nothing is executed
    print("stored:", await store.get_step("doubling-10", "double"))


if __name__ == "__main__":
    asyncio.run(main())

"""Runs on a Redis server, which several machines can share.

Needs `pip install 'durable_nb[redis]'` and a server, by default on this machine; otherwise set `REDIS_URL`:

    python examples/redis_order.py             # charges, then waits for approval; stop it, start it elsewhere
    python examples/redis_order.py approve     # from any other machine
"""

import asyncio
import os
import sys

from durable_nb import RedisStore, Workflow

store = RedisStore(os.environ.get("REDIS_URL", "redis://localhost:6379/0"), ttl=7 * 86400, prefix="shop")
wf = Workflow("orders", db=store)


@wf.task(retries=3)
async def charge(order: str) -> str:
    print("charging", order, flush=True)
    return f"receipt for {order}"


@wf.task
async def ship(order: str) -> str:
    print("shipping", order, flush=True)
    return f"{order} is on its way"


@wf.workflow(id="order-{order}")
async def process(order: str) -> str:
    receipt = await charge(order)
    print("waiting for approval", flush=True)
    if not await wf.signal("approval"):
        return f"{receipt} is void"
    return await ship(order)


async def main(command: str) -> None:
    if command == "approve":
        first = await wf.complete("order-a17", "approval", True)
        print("approved" if first else "was approved already")
    else:
        print(await process("a17"))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:] or ["process"]))

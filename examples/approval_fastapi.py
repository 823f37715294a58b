"""Orders that wait for an approval, behind a web API. Needs: pip install fastapi uvicorn

    uvicorn approval_fastapi:app
    curl -X POST localhost:8000/orders/a17             starts it
    curl -X POST 'localhost:8000/orders/a17/approval?approved=true'
    curl localhost:8000/orders/a17

Kill the server while an order waits, and start it again: it goes on with the order by itself, and the card
is not charged twice. A decision may be sent before its order.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException

from durable_nb import Workflow
from durable_nb.errors import RunNotFound, StoreUnavailable

wf = Workflow("orders", db="approvals.db")
running: dict[str, asyncio.Task[Any]] = {}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.resuming = asyncio.create_task(wf.resume_interrupted())
    yield


app = FastAPI(lifespan=lifespan)


@wf.task
async def charge(order: str) -> str:
    print("charging", order, flush=True)
    return f"receipt for {order}"


@wf.workflow(id="order-{order}")
async def process(order: str) -> dict[str, str]:
    receipt = await charge(order)
    approved = await wf.signal("approval")
    return {"receipt": receipt, "state": "shipped" if approved else "refunded"}


@app.post("/orders/{order}")
async def start(order: str) -> dict[str, str]:
    if order not in running:
        running[order] = asyncio.create_task(process(order))
    return {"order": order}


@app.post("/orders/{order}/approval")
async def approve(order: str, approved: bool) -> dict[str, bool]:
    """Deliver a decision; the first one counts, later ones are refused."""
    if not await wf.complete(f"order-{order}", "approval", approved):
        raise HTTPException(409, f"order {order!r} was decided before")
    return {"approved": approved}


@app.get("/orders/{order}")
async def show(order: str) -> dict[str, str]:
    try:
        status = (await wf.status(f"order-{order}")).run.status
    except (RunNotFound, StoreUnavailable):  # there is no database before the first order
        raise HTTPException(404, f"order {order!r} does not exist") from None
    if status != "done":
        return {"state": "waiting for approval"}
    return await wf.result(f"order-{order}")

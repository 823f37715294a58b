"""Orders that wait for a person, behind a web API. Needs: pip install fastapi uvicorn

    uvicorn approval_fastapi:app
    curl -X POST localhost:8000/orders/a17             starts it, or goes on with it after a restart
    curl -X POST 'localhost:8000/orders/a17/approval?approved=true'
    curl localhost:8000/orders/a17

Kill the server while an order waits, and start it again: the card is not charged twice. A decision may also
come before its order.
"""

import asyncio
from typing import Any

from fastapi import FastAPI, HTTPException

from durable_nb import Workflow

app = FastAPI()
wf = Workflow("orders", db="approvals.db")
running: dict[str, asyncio.Task[Any]] = {}


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
    """The first decision counts; a later one is told so."""
    if not await wf.complete(f"order-{order}", "approval", approved):
        raise HTTPException(409, "it was decided before")
    return {"approved": approved}


@app.get("/orders/{order}")
async def show(order: str) -> dict[str, str]:
    if order not in running:
        raise HTTPException(404, "no such order")
    if not running[order].done():
        return {"state": "waiting for approval"}
    return running[order].result()

"""Orders that wait for an approval, behind a web API. Needs: pip install fastapi uvicorn

    uvicorn approval_fastapi:app
    curl -X POST localhost:8000/orders/a17             starts it, or resumes it after a restart
    curl -X POST 'localhost:8000/orders/a17/approval?approved=true'
    curl localhost:8000/orders/a17

Kill the server while an order waits, and start it again: the card is not charged twice. A decision may
be sent before its order.
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
    """Deliver a decision; the first one counts, later ones are refused."""
    if not await wf.complete(f"order-{order}", "approval", approved):
        raise HTTPException(409, f"order {order!r} was decided before")
    return {"approved": approved}


@app.get("/orders/{order}")
async def show(order: str) -> dict[str, str]:
    if order not in running:
        raise HTTPException(404, f"order {order!r} does not exist")
    if not running[order].done():
        return {"state": "waiting for approval"}
    return running[order].result()

"""A tour: checkpoints, retries, branches, a signal, and the replay of a run.

Run `python tour.py` twice: the second time no task is executed.
"""

import asyncio

from durable_nb import RunContext, Workflow, constant

wf = Workflow("tour", db="tour.db", default_retries=3, default_backoff=constant(0.1))
attempts = 0


@wf.task
async def fetch(city: str) -> dict[str, int]:
    print("executing fetch", city)
    await asyncio.sleep(0.1)
    return {"letters": len(city)}


@wf.task(retries=5, backoff=constant(0))
async def flaky(city: str) -> str:
    """Fails twice, then succeeds: only the body is retried."""
    global attempts
    attempts += 1
    print("executing flaky, attempt", attempts)
    if attempts < 3:
        raise ConnectionError("the service is down")
    return f"forecast for {city}"


@wf.task(name="mail")
def send(text: str, to: tuple[str, ...]) -> tuple[str, ...]:
    """A task may be a synchronous function. A tuple is restored as a tuple."""
    print(f"executing mail to {', '.join(to)}: {text}")
    return to


@wf.workflow(id="report-{day}")
async def report(day: str, cities: tuple[str, ...] = ("Oslo", "Rome", "Lima")) -> str:
    print(f"run {RunContext.current().run_id}: what {day} brings")
    found = await asyncio.gather(*(fetch(city, step_id=f"fetch-{city}") for city in cities))
    forecast = await flaky(cities[0])
    approved = await wf.signal("approval")
    if not approved:
        return "rejected"
    to = send(forecast, ("ann", "bob"))
    return f"{sum(one['letters'] for one in found)} letters, {forecast}, mailed to {' and '.join(to)}"


async def main() -> None:
    first = await wf.complete("report-monday", "approval", True)  # stored until the run exists
    print("approval:", "delivered" if first else "was there already")
    print("result:", await report("monday"))


if __name__ == "__main__":
    asyncio.run(main())

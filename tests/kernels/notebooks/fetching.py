"""Pages are fetched from a server, several at once; the address is in SERVER."""

# %%
import asyncio
import json
import os

host, port = os.environ["SERVER"].split(":")
limit = 3
pages = {}


# %%
class Page:
    def __init__(self, number, body):
        self.number, self.body = number, body
        self.links = []

    def __repr__(self):
        return f"<page {self.number}: {self.body['title']}>"


# %%
async def fetch(number):
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET /{number} HTTP/1.0\r\n\r\n".encode())
    await writer.drain()
    answer = await reader.read()
    writer.close()
    return Page(number, json.loads(answer.split(b"\r\n\r\n", 1)[1]))


# %%
start = await fetch(1)
pages[start.number] = start
start
# %%
found = await asyncio.gather(*(fetch(number) for number in start.body["links"]))
for page in found:
    pages[page.number] = page
    start.links.append(page)
sorted(pages)
# %%
slots = asyncio.Semaphore(limit)
order = []


async def polite(number):
    async with slots:
        page = await fetch(number)
        order.append(page.number)
        return page


# %%
async with asyncio.TaskGroup() as group:
    tasks = [group.create_task(polite(number)) for page in found for number in page.body["links"]]
more = [task.result() for task in tasks]
del tasks, group
print(len(more), "more,", sorted(order) == sorted(page.number for page in more))
# %%
order.sort()
for page in more:
    pages.setdefault(page.number, page)
pages[2] is start.links[0]
# %%
try:
    async with asyncio.timeout(0.05):
        await asyncio.Event().wait()
except TimeoutError:
    print("nobody came")


# %%
async def walk(page, depth=0):
    yield depth, page
    for number in page.body["links"]:
        if number in pages and depth < 2:
            async for found_below in walk(pages[number], depth + 1):
                yield found_below


tree = [("  " * depth + str(page.number)) async for depth, page in walk(start)]
print("\n".join(tree))
# %%
titles = {page.body["title"] for page in pages.values()}
start.body["title"] = "home"
slots.locked(), len(titles), repr(pages[1]), limit

"""A database is asked through a connection that no checkpoint can keep, and a generator reads from it."""

# %%
import sqlite3
from pathlib import Path
from threading import Lock


def note(made):
    with Path("made").open("a") as file:
        file.write(f"{made}\n")


# %%
def connect(path):
    note("connection")
    return sqlite3.connect(path)


connection = connect("shop.db")
# %%
connection.execute("create table if not exists sales (item text primary key, price integer)")
connection.commit()
# %%
rows = [("apple", 3), ("pear", 4), ("plum", 7)]
with connection:
    connection.executemany("insert or replace into sales values (?, ?)", rows)
len(rows)


# %%
def prices():
    note("numbers")
    for (price,) in connection.execute("select price from sales order by price"):
        yield price


numbers = prices()
# %%
total = sum(numbers)
print("in all", total)
# %%
lock = Lock()
with lock:
    best = max(price for _, price in rows)
best
# %%
with lock:
    found = connection.execute("select item from sales where price = ?", [best]).fetchall()
found
# %%
items = [item for (item,) in connection.execute("select item from sales order by item desc")]
items, lock.locked()
# %%
connection.close()
del connection, numbers, lock
sorted(items)

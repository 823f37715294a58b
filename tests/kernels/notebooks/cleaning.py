"""Orders of a shop are cleaned: merges, groups, changes in place."""

# %%
import io

import pandas as pd

ORDERS = """id,customer,day,amount,currency
1,7,2024-01-03,19.90,EUR
2,8,2024-01-03,,EUR
3,7,2024-01-04,240,SEK
4,9,not known,12.5,EUR
5,11,2024-01-09,99.00,GBP
5,11,2024-01-09,99.00,GBP
"""
orders = pd.read_csv(io.StringIO(ORDERS))
raw = orders
orders.head(3)
# %%
customers = pd.DataFrame(
    {"customer": [7, 8, 9, 10], "name": ["Ada", "Bo", None, "Di"], "tags": [["vip"], [], [], []]}
)
print(len(orders), "orders of", len(customers), "customers")
customers.dtypes
# %%
orders["day"] = pd.to_datetime(orders["day"], errors="coerce")
orders.loc[orders["amount"].isna(), "amount"] = 0.0
orders.drop_duplicates(inplace=True)
raw is orders
# %%
rates = {"EUR": 1.0, "SEK": 0.087}
seen = set()


def in_euro(row):
    seen.add(row["currency"])
    return round(row["amount"] * rates.get(row["currency"], 0), 2)


# %%
rates["GBP"] = 1.17
orders["euro"] = orders.apply(in_euro, axis=1)
print(sorted(seen))
orders[["id", "euro"]]
# %%
merged = orders.merge(customers, on="customer", how="left", indicator=True)
tags = customers["tags"].iloc[0]
tags.append("since 2019")
merged["_merge"].value_counts().to_dict()
# %%
by_customer = {name: group for name, group in merged.groupby("customer")}
largest = by_customer[7]
for key, group in by_customer.items():
    print(key, group["euro"].sum())
# %%
customers.set_index("customer", inplace=True)
customers.loc[9, "name"] = "Cy"
del rates["SEK"], key, group
customers
# %%
import sys

report = merged.pivot_table(index="currency", values="euro", aggfunc=["sum", "count"])
print("rows without a day:", int(merged["day"].isna().sum()), file=sys.stderr)
report
# %%
total = float(orders["euro"].sum())
f"{total:.2f} EUR, {customers.loc[9, 'name']}, {tags}, {largest.shape}"

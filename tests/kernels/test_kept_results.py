"""What functions keep in ``functools.lru_cache`` comes back with the cell that added it, or is named at commit."""

# ruff: noqa: E501 - a table of cells

import pytest

from helpers.replays import ORDINARY, check_replayed, played_twice

PRICE = "def price(n):\n    calls.append(n)\n    return n * 2"
SETUP = f"{ORDINARY}import functools\ncalls = []"

# Cells, and an expression that is true after them, also after a replay; it shows that no call is repeated.
KEPT = {
    "a limit": (
        [f"{SETUP}\n@functools.lru_cache\n{PRICE}", "total = price(2) + price(3)", "total += price(2)"],
        "price(3) == 6 and calls == [2, 3] and price.cache_info() == (2, 2, 128, 2)",
    ),
    "no limit, defined in a durable cell": (
        [SETUP, f"@functools.cache\n{PRICE}\nprice(1)", "price(2)"],
        "price(1) + price(2) == 6 and calls == [1, 2] and price.cache_info().misses == 2",
    ),
    "the oldest result is dropped": (
        [f"{SETUP}\n@functools.lru_cache(maxsize=2)\n{PRICE}", "price(1); price(2)", "price(1); price(3)"],
        "price(1) == 2 and calls == [1, 2, 3] and price(2) == 4 and calls == [1, 2, 3, 2]",
    ),
    "arguments by name, told apart by their types": (
        [
            f"{SETUP}\n@functools.lru_cache(typed=True)\ndef pay(*args, to=None, **more):\n    calls.append((args, to))\n    return [args, to, more]",
            "paid = [pay(1, 2.0), pay(1.0, 2, to='a'), pay(to='b', x=(1,)), pay(())]",
        ],
        "[pay(1, 2.0), pay(1.0, 2, to='a'), pay(to='b', x=(1,)), pay(())] == paid and len(calls) == 4 and pay(1, 2) and len(calls) == 5",
    ),
    "a call of itself": (
        [
            f"{SETUP}\n@functools.cache\ndef fib(n):\n    calls.append(n)\n    return n if n < 2 else fib(n - 1) + fib(n - 2)",
            "fib(20)",
            "fib(30)",
        ],
        "fib(30) == 832040 and len(calls) == 31 and fib.cache_info()[:2] == (30, 31)",
    ),
    "a function in a closure": (
        [
            f"{SETUP}\ndef make(factor):\n    @functools.lru_cache(maxsize=None)\n    def scaled(n, by=1):\n        calls.append(n)\n        return n * factor * by\n    return scaled\nscaled = make(3)",
            "scaled(2); scaled(2, by=2)",
        ],
        "scaled(2) + scaled(2, by=2) == 18 and calls == [2, 2] and scaled(1) == 3",
    ),
    "a result that is bound to a name too": (
        [
            f"{SETUP}\n@functools.lru_cache\ndef load(path):\n    calls.append(path)\n    return {{'rows': [path]}}",
            "table = load('a')",
            "table['rows'].append('b')",
        ],
        "load('a') is table and table == {'rows': ['a', 'b']} and calls == ['a']",
    ),
    "a method": (
        [
            f"{SETUP}\nclass Shop:\n    @functools.cache\n    def rate(self, n):\n        calls.append(n)\n        return n",
            "shop = Shop()\nshop.rate(1)",
        ],
        "shop.rate(1) == 1 and calls == [1]",
    ),
    "a method of an object that only a container holds": (
        [
            f"{SETUP}\nclass Shop:\n    @functools.cache\n    def rate(self, n):\n        calls.append(n)\n        return n",
            "shops = [Shop(), Shop()]\nshops[0].rate(1)",
            "shops.append(3); shops[1].rate(2)",
        ],
        "shops[0].rate(1) + shops[1].rate(2) == 3 and calls == [1, 2]",
    ),
    "a result that one cell changes and another one returns": (
        [
            f"{SETUP}\n@functools.lru_cache(maxsize=3)\ndef load(path):\n    calls.append(path)\n    return [path]",
            "held = {'first': load('a')}",
            "load('a').append('b')\nlater = [load('a'), load('c')]",
        ],
        "load('a') is held['first'] is later[0] and later == [['a', 'b'], ['c']] and calls == ['a', 'c']",
    ),
    "a function that is defined again": (
        [SETUP, f"@functools.cache\n{PRICE}\nprice(1)", f"@functools.cache\n{PRICE}\nprice(1)"],
        "price(1) == 2 and calls == [1, 1]",
    ),
    "results that were cleared": (
        [f"{SETUP}\n@functools.lru_cache\n{PRICE}", "price(1); price(2)", "price.cache_clear(); price(3)"],
        "price(3) == 6 and calls == [1, 2, 3] and price(1) == 2 and calls == [1, 2, 3, 1]",
    ),
    "calls that failed": (
        [
            f"{SETUP}\n@functools.lru_cache\ndef half(n):\n    calls.append(n)\n    return 1 / n",
            "half(1)\nfor _ in range(3):\n    try: half(0)\n    except ZeroDivisionError: pass",
        ],
        "half(1) == 1 and calls == [1, 0, 0, 0] and half.cache_info()[:2] == (1, 4)",
    ),
}
# Cells of which some results cannot be kept, and the names that say so.
NAMED = {
    "a result that cannot be saved": (
        [
            f"{SETUP}\n@functools.lru_cache\ndef opened(n): return iter(int, 1) if n else (x for x in [1])\n@functools.lru_cache\n{PRICE}",
            "opened(0); price(1)",
        ],
        {"what"},
        "price(1) == 2 and calls == [1]",
    ),
    "a callable of a library": (
        [f"{SETUP}\nroot = functools.lru_cache(functools.partial(pow, 2))", "root(3)"],
        {"what"},
        "root(3) == 8",
    ),
    "too many results": (
        [f"{SETUP}\n@functools.cache\ndef same(n): return n", "for n in range(10_001): same(n)"],
        {"what"},
        "same(1) == 1",
    ),
}
CASES = {**{name: (cells, set(), check) for name, (cells, check) in KEPT.items()}, **NAMED}


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    return played_twice(tmp_path_factory.mktemp("kept"), CASES)


@pytest.mark.parametrize("name", CASES)
def test_results_that_functions_keep_come_back_or_are_named(played, name):
    check_replayed(played[name], CASES[name])


def test_a_function_that_was_edited_keeps_no_recorded_result(kernel):
    define = "import functools\n@functools.lru_cache\ndef price(n): return n * {}"
    opening = "%load_ext durable_nb\n%durable_workflow edited --db runs.db"
    kernel.run(f"{opening}\n{define.format(2)}")
    kernel.run("%%durable_step pay\nbill = [price(5)]")
    kernel.sigkill()
    kernel.restart()
    kernel.run(f"{opening}\n{define.format(3)}")
    kernel.run("%%durable_step pay --on-edit keep --on-drift keep\nbill = [price(5)]")
    assert kernel.run("print(bill, price(5), price.cache_info().misses)").text == "[10] 15 1\n"


def test_a_result_that_looks_like_a_key_is_named_and_can_be_left_out(kernel):
    kernel.run("%load_ext durable_nb\n%durable_workflow keys --db runs.db")
    body = "import functools\n@functools.cache\ndef token(): return 'sk-proj-' + 'aB3dE5gH7jK9mN1pQ3rS5tU7' * 2\nlong = len(token())"
    told = kernel.run(f"%%durable_step one\n{body}").told
    assert "looks like a secret, and is saved" in told
    line = "%%durable_step one --exclude 'what token() keeps'"
    assert line in told
    excluded = kernel.run(f"{line.replace(' one ', ' two ')}\n{body}").told
    assert "excluded what token() keeps" in excluded
    kernel.sigkill()
    kernel.restart()
    kernel.run("%load_ext durable_nb\n%durable_workflow keys --db runs.db")
    kernel.run(f"{line.replace(' one ', ' two ')}\n{body}")
    assert kernel.run("print(long, token.cache_info().currsize)").text == "56 0\n"

import functools
import threading

from durable_nb import fingerprint
from durable_nb.notebook.namespace.kept_results import kept_results, put_results


def test_another_thread_that_calls_a_function_meanwhile_executes_it():
    threads = []

    @functools.cache
    def price(n):
        return n * 2

    class Asks:
        """An argument that has another thread call the function, when it is looked up."""

        def __hash__(self):
            thread = threading.Thread(target=lambda: threads.append(price(7)))
            thread.start()
            thread.join()
            return 1

    code = fingerprint.function(price)
    state = [code, 0, 2, [((Asks(),), {}, "recorded"), ((8,), {}, "too")]]
    put_results({"price": price}, {"what price() keeps": state})
    assert set(threads) == {14}
    assert price(8) == "too"


def test_results_are_listed_with_their_arguments_and_counts():
    @functools.lru_cache(maxsize=2)
    def sent(*args, **named):
        return args, named

    sent(1)
    sent((2,), by="post")
    sent(1)
    user_ns = {"sent": sent, "other": functools.lru_cache(len), "bare": functools.cache(lambda: 1)}
    assert kept_results(user_ns) == {
        "what sent() keeps": [
            fingerprint.function(sent),
            1,
            2,
            [(((2,),), {"by": "post"}, (((2,),), {"by": "post"})), ((1,), {}, ((1,), {}))],
        ]
    }

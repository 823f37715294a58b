"""Walkers on a grid: streams of random numbers, views of arrays, a class that steps."""

# %%
import numpy as np

SIZE, WALKERS = 40, 60
root = np.random.SeedSequence(20240229)
streams = [np.random.default_rng(seed) for seed in root.spawn(3)]
print(SIZE, WALKERS)
# %%
grid = np.zeros((SIZE, SIZE))
middle = grid[10:30, 10:30]
middle[:] = 1
grid.sum()


# %%
class Walkers:
    def __init__(self, count, stream):
        self.stream = stream
        self.places = stream.integers(0, SIZE, size=(count, 2))
        self.steps = 0

    def step(self):
        self.places += self.stream.integers(-1, 2, size=self.places.shape)
        np.clip(self.places, 0, SIZE - 1, out=self.places)
        self.steps += 1


walkers = Walkers(WALKERS, streams[0])
walkers.places[:3]
# %%
for _ in range(50):
    walkers.step()
where = walkers.places
walkers.steps, int(where.sum())
# %%
trace = np.empty((200, 2))
for moment in range(len(trace)):
    walkers.step()
    trace[moment] = where.mean(axis=0)
half = trace[100:]
print(half.mean().round(4))
# %%
middle -= streams[1].random(middle.shape) * 0.1
grid[where[:, 0], where[:, 1]] = 5
middle.max(), np.shares_memory(grid, middle)
# %%
large = streams[2].normal(size=(400, 400))
upper = large[:200]
upper[upper < 0] = 0
round(float(large.mean()), 5)
# %%
counts = np.bincount(where[:, 0], minlength=SIZE)
masked = np.ma.masked_equal(counts, 0)
record = np.array([(walkers.steps, grid.sum())], dtype=[("steps", "i4"), ("heat", "f8")])
record
# %%
again = np.random.default_rng(root.spawn(1)[0])
draws = [stream.random() for stream in (*streams, again)]
walkers.step()
print([round(draw, 4) for draw in draws], walkers.steps, int(where.sum()))
# %%
half[:] = 0
float(trace[150:].sum()), masked.sum(), walkers.places is where

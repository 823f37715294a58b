"""Figures that several cells work on."""

# %%
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap

x = np.linspace(0, 6, 50)
colours = ListedColormap(["#204a87", "#a40000"])
# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(4, 2))
left.plot(x, np.sin(x), label="sine")
right.hist(np.cos(x), bins=5)
plt.close(fig)
len(fig.axes)
# %%
line = left.lines[0]
line.set_color(colours(1))
left.set_title("waves")
left.legend()
line.get_color()
# %%
fig
# %%
small = {"figsize": (2, 1), "dpi": 60}


def sketch(values, **options):
    figure, axes = plt.subplots(**{**small, **options})
    axes.plot(values)
    return figure, axes


# %%
second, axes = sketch(x**2)
axes.set_ylim(0, 40)
plt.show()
# %%
print("before")
third, _unused = sketch([3, 1, 2])
third.suptitle("third")
plt.show()
print("after")
# %%
small["figsize"] = (1, 1)
annotation = axes.annotate("here", (10, 20))
figures = {"waves": fig, "square": second}
figures["square"].axes[0] is axes
# %%
annotation.set_text("there")
figures["square"]
# %%
line.set_ydata(np.cos(x))
plt.close("all")
fig.canvas.draw()
left.get_title(), line.axes is left, annotation.get_text(), plt.get_fignums()

"""A classifier is trained, measured and drawn."""

# %%
import numpy as np
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

rng = np.random.default_rng(11)
features, labels = make_classification(n_samples=400, n_features=6, random_state=3)
features.shape
# %%
train_x, test_x, train_y, test_y = train_test_split(features, labels, random_state=5)
test_x[0, :] = 0.0
print(train_x.shape, test_x.shape, labels.mean())
# %%
scaler = StandardScaler()
model = make_pipeline(scaler, LogisticRegression(C=0.5))
history = []
# %%
model.fit(train_x, train_y)
history.append(("logistic", model.score(test_x, test_y)))
model.named_steps["standardscaler"] is scaler
# %%
online = SGDClassifier(random_state=rng.integers(100))
order = rng.permutation(len(train_x))
for batch in np.array_split(order, 5):
    online.partial_fit(scaler.transform(train_x[batch]), train_y[batch], classes=[0, 1])
history.append(("online", online.score(scaler.transform(test_x), test_y)))
print(*history, sep="\n")
# %%
import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(3, 2))
ax.scatter(test_x[:, 0], test_x[:, 1], c=model.predict(test_x), s=4)
ax.set_title("predicted")
plt.show()
# %%
weights = model[-1].coef_[0]
top = weights[np.abs(weights).argsort()[::-1]][:3]
weights *= 2
top.round(3).tolist()
# %%
ax.set_xlabel("first feature")
best = max(history, key=lambda entry: entry[1])
fig
# %%
noise = rng.normal(size=3)
print(best[0], model.predict(test_x[:5]), noise.round(3))

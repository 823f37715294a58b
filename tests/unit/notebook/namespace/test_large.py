"""Large plain values are looked at again only where a cell can have changed them."""

import pytest

from durable_nb.notebook.lineage.reading import only_reads
from durable_nb.notebook.namespace import snapshot
from durable_nb.notebook.namespace.large import LARGE
from durable_nb.notebook.namespace.pickling import Fingerprinter


@pytest.fixture
def looked_at(monkeypatch):
    """The values of which a fingerprint was taken."""
    found, real = [], Fingerprinter.fingerprint

    def fingerprint(self, value, **options):
        found.append(value)
        return real(self, value, **options)

    monkeypatch.setattr(Fingerprinter, "fingerprint", fingerprint)
    return found


def rows():
    return [{"a": n, "b": str(n)} for n in range(LARGE // 10)]


def executed(ns, source, named=None, *, known=None):
    """Execute a cell; gives what it changed, and the large values that it left."""
    before = snapshot.snapshot_names(ns, (), known=known)
    reads = only_reads(source, {*ns}, before.marks.plain)
    code = compile(source, "cell", "exec")
    exec(code, ns)
    bound = {name for name in named if f"{name} = " in source} if named else ()
    changes = before.changes(ns, bound, named, only_reads=reads)
    return changes, changes.scan.marks.large


def test_it_is_not_looked_at_where_a_cell_only_reads_it(looked_at):
    ns = {"many": rows()}
    _, known = executed(ns, "x = 1", {"x"})
    looked_at.clear()
    changes, known = executed(ns, "x = many[3]['a']", {"x", "many"}, known=known)
    assert changes.names == ("x",)
    assert {*known} == {"many"}
    assert not any(value is ns["many"] for value in looked_at)


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("many[3]['a'] = -1", {"many"}),
        ("row['a'] = -1", {"row"}),
        ("def change():\n    row['a'] = -1\nchange()", {"change", "row"}),
        ("holder.row['a'] = -1", {"holder"}),
        ("method()", {"method"}),
        ("alias = many\nalias.append(1)", {"alias", "many"}),
        ("alias = many\nalias += [1]", {"alias", "many"}),
        ("exec('many.clear()')", None),
    ],
)
def test_what_changes_it_is_noticed(source, named):
    ns = {"many": rows()}
    exec("class Holder: pass\nholder = Holder()\nrow = holder.row = many[3]\nmethod = many.pop", ns)
    _, known = executed(ns, "y = 1", {"y"})
    assert {*known} >= {"many"}
    changes, _ = executed(ns, source, named, known=known)
    assert "many" in changes.mutated


def test_what_something_else_changes_is_noticed_by_the_next_cell_that_may_change_it():
    ns = {"many": rows()}
    _, known = executed(ns, "y = 1", {"y"})
    ns["many"][0]["a"] = -1  # as a thread does between two cells
    changes, known = executed(ns, "y = 2", {"y"}, known=known)
    assert changes.names == ("y",)
    changes, _ = executed(ns, "many.append(1)", {"many"}, known=known)
    assert "many" in changes.mutated


def test_another_object_of_that_name_is_looked_at(looked_at):
    ns = {"many": rows()}
    _, known = executed(ns, "y = 1", {"y"})
    before, ns["many"] = ns["many"], rows()
    looked_at.clear()
    executed(ns, "y = 2", {"y"}, known=known)
    assert sum(value is ns["many"] for value in looked_at) == 1
    assert not any(value is before for value in looked_at)


def test_what_it_shares_with_a_new_name_is_found_without_a_look(looked_at):
    ns = {"many": rows()}
    _, known = executed(ns, "y = 1", {"y"})
    looked_at.clear()
    changes, _ = executed(ns, "row = many[7]", {"row", "many"}, known=known)
    references, along = changes.scan.shared(["row"])
    assert [(each.name, each.obj) for each in references.values()] == [("many", ns["many"][7])]
    assert not along
    assert not any(value is ns["many"] for value in looked_at)


READS = [
    "x = rows[0]['a']",
    "x = len(rows)\nx",
    "for row in rows:\n    y = row['a'] + 1",
    "[row for row in rows if row.get('a') > 3]",
    "total = sum(row['a'] for row in rows)",
    "f'{rows[0]} {x!r}'",
]
CHANGES = [
    "rows[0] = 1",
    "rows.append(1)",
    "rows += [1]",
    "alias = rows\nalias[0] = 1",
    "del rows[0]",
    "rows[0].update(a=1)",
    "for rows[0] in [1, 2]: pass",
    "len = rows.clear\nlen()",
    "sorted(rows, key=change)",
    "x = thing[0]",
    "thing + 1",
    "change()",
    "import module",
    "with thing: pass",
    "rows[change()]",
    "x = unknown",
    "x = (",
    "get_ipython().run_line_magic('time', '')",
    "rows.a.get(1)",
]


@pytest.mark.parametrize("source", READS)
def test_code_that_only_reads(source):
    assert only_reads(source, {"rows", "x", "thing", "change"}, {"rows", "x"})


@pytest.mark.parametrize("source", CHANGES)
def test_code_that_may_change_something(source):
    assert not only_reads(source, {"rows", "x", "thing", "change"}, {"rows", "x"})

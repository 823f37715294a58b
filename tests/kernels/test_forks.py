"""A fork in a notebook: the same cells under another run id, from a step on."""

CELLS = (
    "%%durable_step load\nran('load')\nx = [1]",
    "%%durable_step clean\nran('clean')\nx.append(factor)",
    "%%durable_step report\nran('report')\ntotal = sum(x)",
)
OPEN = """\
%load_ext durable_nb
%durable_workflow {} --db runs.db
factor = {}
def ran(step):
    with open('ran.log', 'a') as log:
        print(step, file=log, end=' ')
"""


def all_cells(kernel):
    """Run all cells: those whose bodies were executed, and what came of it."""
    (kernel.cwd / "ran.log").write_text("")
    for cell in CELLS:
        assert kernel.run(cell).status == "ok"
    return (kernel.cwd / "ran.log").read_text().split(), kernel.run("print(total)").text


def test_from_a_step_on_and_after_a_restart(kernel_factory):
    kernel = kernel_factory()
    kernel.run(OPEN.format("etl", 2))
    assert all_cells(kernel) == (["load", "clean", "report"], "3\n")
    forked = kernel.run("%durable_fork 'etl b' --from clean")
    assert "resuming, 1 finished" in forked.outputs[0]["data"]["text/plain"]
    kernel.run("factor = 5")
    assert all_cells(kernel) == (["clean", "report"], "6\n")
    kernel.sigkill()
    again = kernel_factory()
    for run, factor, total in ("etl", 2, "3\n"), ("'etl b'", 5, "6\n"):
        again.run(OPEN.format(run, factor))
        assert all_cells(again) == ([], total)


def test_what_is_refused(kernel):
    kernel.run("%load_ext durable_nb")
    refused = kernel.run("%durable_fork other").reply["evalue"]
    assert "NoOpenRun: no run is open. To open one: %durable_workflow RUN_ID" in refused
    kernel.run(OPEN.format("etl", 2))
    for line, words in (
        ("etl", "run 'etl': the run cannot be forked under 'etl': that id is taken"),
        (
            "other --from laod",
            "run 'etl', step 'laod': no step of that name. Steps: none yet.",
        ),
        ("", "the following arguments are required: NEW_RUN"),
    ):
        assert words in kernel.run(f"%durable_fork {line}").reply["evalue"]

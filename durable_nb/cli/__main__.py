"""``python -m durable_nb.cli``: for environments in which the script is not on the PATH."""

import sys

from durable_nb.cli import main

sys.exit(main())

"""``python -m durable_nb.cli``, where the script is not on the PATH."""

import sys

from durable_nb.cli import main

sys.exit(main())

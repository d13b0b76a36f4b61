"""``python -m distime.cli`` is the ``distime`` command, also where the package is not installed."""

import sys

from distime.cli import main

sys.exit(main())

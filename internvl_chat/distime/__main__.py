"""``python -m distime`` is the ``distime`` command."""

import sys

from distime.cli import main

sys.exit(main())

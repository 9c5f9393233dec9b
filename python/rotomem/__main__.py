"""`python -m rotomem` is `rotomem`."""

import sys

from rotomem.cli import main

sys.exit(main())

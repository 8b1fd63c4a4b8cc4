"""What holds for every test."""

import os

# As the command line does: threads wait asleep, so that tests are not many times slower beside other work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:  # there is a worker per core
    os.environ["OMP_NUM_THREADS"] = "1"

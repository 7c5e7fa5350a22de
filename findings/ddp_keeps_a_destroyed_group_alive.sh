#!/usr/bin/env bash
# torch 2.14.1: after one DistributedDataParallel, destroy_process_group() destroys nothing: the group of gloo and its
# threads live on to the end of the process. Unless torch.distributed.nn was imported before the group was made.
#
# Guess before running: destroy_process_group() ends the group's threads once the wrapped network is deleted too, and
# the order of imports changes nothing.
#
# Seen: building the first DistributedDataParallel imports torch.distributed.nn. Functions in its functional.py have
# "group=group.WORLD" as a default argument, which Python evaluates at import: it is the group that exists by then. So
# ten functions hold it for ever. gc.get_referrers(group) doesn't name them: their tuples of default arguments hold
# nothing that the garbage collector tracks. Imported before init_process_group(), the defaults are None, and
# destroy_process_group() ends all threads.
#
# It matters at a program's end. Threads of gloo that were still there were seen to abort a process (std::terminate)
# that had done all its work, in 2 of some 40 runs on a busy machine.
#
# Runs without cs_gan. Fails if the numbers of threads or default arguments change in either order.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.14.1" "numpy==2.3.5"
cat > "$folder/group.py" <<'PYTHON'
import gc
import sys
from pathlib import Path

import torch
import torch.distributed as dist

if sys.argv[1] == "early":
    import torch.distributed.nn

store = f"file://{sys.argv[2]}/store-{sys.argv[1]}"
dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)
assert ("torch.distributed.nn" in sys.modules) == (sys.argv[1] == "early")
network = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
assert "torch.distributed.nn" in sys.modules
network(torch.ones(1, 2)).sum().backward()
del network
gc.collect()
dist.destroy_process_group()
names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
threads = sum("gloo" in name for name in names)
functions = vars(sys.modules["torch.distributed.nn.functional"]).values()
defaults = [value for function in functions for value in getattr(function, "__defaults__", None) or ()]
groups = [value for value in defaults if isinstance(value, dist.ProcessGroup)]
found = sum(isinstance(holder, tuple) for group in groups for holder in gc.get_referrers(group))
print(f"torch {torch.__version__}, torch.distributed.nn imported {sys.argv[1]}: {threads} threads of gloo left, "
      f"{len(groups)} default arguments hold the group, {found} of them known to gc.get_referrers")
assert found == 0
assert (threads, len(groups)) == ((0, 0) if sys.argv[1] == "early" else (3, 10))
PYTHON
for order in early late; do
  OMP_NUM_THREADS=1 GLOO_SOCKET_IFNAME=lo "$folder/venv/bin/python" "$folder/group.py" "$order" "$folder"
done

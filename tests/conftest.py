"""One thread for torch: two cores run the tests, their env workers and, often, a neighbour."""

import torch

torch.set_num_threads(1)

"""How the cost of extraction, initialisation and unlearning grows, and how far FILA is behind.

The paper says that VILA extracts 40 times faster than FILA and stores 100 times less. Cost depends on shapes, not on
what was learnt, so random weights and random tokens suffice. One axis at a time leaves the base point. In a cell all
methods have their turn in every round, with a plain LoRA forward and backward pass over the same tokens among them:
ratios are within a round. The released arithmetic is run for one of its ten passes and its seconds are counted ten
times; what the released code adds, a copy of every gradient to host memory in each step, is in docs/performance.md.
"""

from unlora_research.scale.study import STUDY as STUDY

"""Where a set's gradient energy lies, as two thin matrices a layer: L = E[G G^T] (outputs), K = E[G^T G] (inputs).

The marginals are the diagonals of L and K. The whole matrices also say in which *rotated* directions the energy lies,
but for a 7B model they take 70 GB a set; a sketch of m columns takes m / d of it, whatever the number of examples.
"""

import hashlib

import torch
from jaxtyping import Float
from torch import Tensor

from unlora import processes
from unlora.importance.spaces import Inputs, OutputGradients


class GradientSketch:
    """Y (d_out, m) and Z (d_in, m) with E[Y Y^T] = sum_b G_b G_b^T and E[Z Z^T] = sum_b G_b^T G_b.

    Y = sum_b G_b Omega diag(s_b) for one random Omega (d_in, m) of variance 1/m and signs s_b of every example: in
    expectation over the signs the cross terms of two examples vanish, so one thin matrix serves any number of
    examples. G_b = D_b^T X_b is never formed: G_b Omega = D_b^T (X_b Omega). Z is the same of G_b^T.
    """

    def __init__(
        self,
        name: str,
        shape: tuple[int, int],
        *,
        columns: int,
        seed: int,
        device: torch.device,
        inputs_only: bool = False,
    ) -> None:
        """Draw the probes; they depend on the module's name, whatever other modules are measured.

        With `inputs_only` there is no Y: half the price and half the memory, and the same Z.
        """
        d_out, d_in = shape
        digest = hashlib.sha256(f"sketch:{seed}:{name}".encode()).digest()
        self._generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        self._columns = columns
        input_probe = self._normal(d_in)  # Drawn in any case: Z does not depend on whether Y is asked for.
        self._input_probe = input_probe.to(device) if not inputs_only else None
        self._output_probe = self._normal(d_out).to(device)
        self.outputs: Float[Tensor, "d_out column"] | None = None
        if not inputs_only:
            self.outputs = torch.zeros(d_out, columns, device=device)
        self.inputs: Float[Tensor, "d_in column"] = torch.zeros(d_in, columns, device=device)

    def update(self, inputs: Inputs, output_gradients: OutputGradients) -> None:
        """Take in one batch."""
        inputs, output_gradients = inputs.float(), output_gradients.float()
        signs = self._signs(inputs.shape[0]).to(inputs.device)
        if self.outputs is not None and self._input_probe is not None:
            seen = (inputs @ self._input_probe).mul_(signs[0]).flatten(0, 1)
            self.outputs.addmm_(output_gradients.flatten(0, 1).T, seen)
        pulled = (output_gradients @ self._output_probe).mul_(signs[1]).flatten(0, 1)
        self.inputs.addmm_(inputs.flatten(0, 1).T, pulled)

    def skip(self, sample_count: int) -> None:
        """Draw the signs of samples that another process takes in."""
        self._signs(sample_count)

    def combine(self) -> None:
        """Add the sketches of all processes: Y and Z are sums over examples."""
        self.inputs = processes.total(self.inputs)
        self.outputs = processes.total(self.outputs)

    def _signs(self, sample_count: int) -> Float[Tensor, "2 sample 1 column"]:
        shape = (2, sample_count, 1, self._columns)
        return torch.randint(0, 2, shape, generator=self._generator) * 2.0 - 1.0

    def _normal(self, width: int) -> Tensor:
        return torch.randn(width, self._columns, generator=self._generator) * self._columns**-0.5

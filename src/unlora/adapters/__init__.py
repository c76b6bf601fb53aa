"""LoRA adapters that start anywhere without moving the model, and their portable forms."""

from unlora.adapters.anchored import attach_anchored_adapter as attach_anchored_adapter
from unlora.adapters.anchored import attach_plain_adapter as attach_plain_adapter
from unlora.adapters.anchored import check_output_unmoved as check_output_unmoved
from unlora.adapters.contrast import contrast_factors as contrast_factors
from unlora.adapters.initialise import initial_factors as initial_factors
from unlora.adapters.published import factors_as_measured as factors_as_measured

"""LoRA adapters that start anywhere without moving the model, and their portable forms."""

from unlora.adapters.anchored import attach_factors as attach_factors
from unlora.adapters.anchored import attach_plain_adapter as attach_plain_adapter
from unlora.adapters.anchored import check_output_unmoved as check_output_unmoved

"""How much each parameter matters to the forget set and to the retain set."""

from unlora.importance.contrast_map import ContrastMap as ContrastMap
from unlora.importance.contrast_map import estimate_contrast as estimate_contrast
from unlora.importance.estimate import IMPORTANCE_PRESETS as IMPORTANCE_PRESETS
from unlora.importance.estimate import estimate_importance as estimate_importance
from unlora.importance.importance_map import ImportanceMap as ImportanceMap
from unlora.importance.ratio import module_ratio as module_ratio
from unlora.importance.ratio import most_important_modules as most_important_modules

"""Inference on an Ascend device, which is not supported: its functions say so when they are called."""

from autoquant.amct.logs import set_logging_level
from autoquant.amct.unsupported import unsupported

__all__ = ["set_logging_level"]


create_quant_config_ascend = unsupported("create_quant_config_ascend")
quantize_model_ascend = unsupported("quantize_model_ascend")
save_model_ascend = unsupported("save_model_ascend")

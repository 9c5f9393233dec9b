"""The published networks at widths that take no time."""

from __future__ import annotations

from rotomem.models.stcn import STCNConfig
from rotomem.models.stm import STMConfig
from rotomem.models.xmem import XMemConfig

STM_TINY = STMConfig("basic", 8, (8, 8, 16), (1, 1, 1), key_dim=8, value_dim=16, decoder_dim=16)
STCN_TINY = STCNConfig("basic", 8, (8, 8, 16), (1, 1, 1), 8, (8, 8, 16), (1, 1, 1), 8, 16, 16, (16, 16, 8))
XMEM_TINY = XMemConfig("basic", 8, (8, 8, 16), (1, 1, 1), 8, (8, 8, 16), (1, 1, 1), 8, 16, 8, (16, 16, 8), 8)

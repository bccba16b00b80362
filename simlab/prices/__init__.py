"""Prices of API tokens and GPU hours, each with its source and date."""

from __future__ import annotations

from simlab.prices.api_prices import ApiPrice, api_price
from simlab.prices.gpu_prices import GpuPrice, Market, gpu_price
from simlab.prices.prompt_caches import PromptCacheTerms, prompt_cache_terms

__all__ = ["ApiPrice", "GpuPrice", "Market", "PromptCacheTerms", "api_price", "gpu_price", "prompt_cache_terms"]

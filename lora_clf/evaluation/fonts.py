"""The fonts of plots: a label may be in any script, and no one font has them all."""

from __future__ import annotations

from functools import cache

# Those that systems come with, for what DejaVu lacks: Chinese, Japanese, Korean, and scripts of the rest of the world.
COMMON = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR", "Source Han Sans SC"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "IPAGothic", "TakaoGothic", "NanumGothic"),
    *("Microsoft YaHei", "SimHei", "Yu Gothic", "Meiryo", "MS Gothic", "Malgun Gothic", "Leelawadee UI", "Nirmala UI"),
    *("PingFang SC", "PingFang HK", "Heiti TC", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil"),
    *("Noto Sans Thai", "Noto Sans", "FreeSans", "Segoe UI Symbol", "Noto Emoji", "Symbola", "Unifont"),
)


@cache
def families(first: str = "DejaVu Sans") -> list[str]:
    """``first`` and those of the common fonts that this system has, for the letters that ``first`` lacks."""
    from matplotlib.font_manager import fontManager

    there = set(fontManager.get_font_names())
    return [first, *(name for name in COMMON if name in there)]

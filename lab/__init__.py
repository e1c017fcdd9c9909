"""The house behind the scripts: records and failures (standard library only), nothing that imports torch."""
